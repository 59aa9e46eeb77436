"""A headless Chromium, or a skipped test that says why there is none."""

import os
import shutil
from contextlib import contextmanager

import pytest

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def chromium():
    """Yield playwright's browser: its own, or one of the system."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = (
            [own] if os.path.exists(own) else [path for path in map(shutil.which, NAMES) if path]
        )
        if not found:
            pytest.skip("no Chromium: tools/setup/install_browser.py could not install one")
        browser = playwright.chromium.launch(executable_path=found[0], args=["--no-sandbox"])
        yield browser
        browser.close()
