"""Parts shared by the HTML pages: HU windows, compressed images, templates."""

from .images import mean_pixels, to_base64, webp
from .pages import template_environment, write_page
from .windows import KNOTS, WINDOWS, body_mask, choose_window, expand, squeeze

__all__ = [
    "KNOTS",
    "WINDOWS",
    "body_mask",
    "choose_window",
    "expand",
    "mean_pixels",
    "squeeze",
    "template_environment",
    "to_base64",
    "webp",
    "write_page",
]
