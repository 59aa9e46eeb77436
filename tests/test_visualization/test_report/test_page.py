"""Tests of the HTML report in a headless Chromium."""

import io
import itertools

import numpy as np
import pytest

from mmdet_lesion.structures import Volume
from mmdet_lesion.visualization.report import write_report

from ...browser import chromium

LESIONS = [(0.95, [60, 40, 8, 72, 52, 14]), (0.7, [30, 60, 20, 38, 66, 24]),
           (0.4, [70, 45, 10, 90, 60, 13])]  # fmt: skip


def phantom():
    """A thorax of boxes with three lesions, scanned head first."""
    hu = np.full((30, 100, 120), -1000, dtype=np.int16)
    hu[:, 15:85, 10:110] = 40
    hu[:, 25:75, 20:55] = hu[:, 25:75, 65:100] = -850
    for _, (x1, y1, z1, x2, y2, z2) in LESIONS:
        hu[z1:z2, y1:y2, x1:x2] = 120
    return Volume(hu, (2.5, 2.5, 4.0), (-150, -120, 900), (1, 0, 0, 0, 1, 0, 0, 0, -1))


def content(volume):
    lesions = []
    for number, (score, box) in enumerate(LESIONS, start=1):
        box = np.array(box, dtype=float)
        center = volume.geometry.centers_to_world([box])[0].tolist()
        lesions.append(
            dict(
                id=number, label="lesion", score=score, box_voxels=box.tolist(),
                center_world=center, bounds_world=[0.0] * 6,
                size_mm=((box[3:] - box[:3]) * volume.spacing).tolist(),
                slice_range=[int(box[2]), int(box[5]) - 1], key_slice=int(box[2] + box[5]) // 2,
                key_file=None,
            )
        )  # fmt: skip
    return dict(
        format="1.0",
        scan=dict(
            path="/data/<b>scan & co", kind="image", series_uid="1.2.3",
            shape=list(volume.shape), spacing=list(volume.spacing), origin=list(volume.origin),
            direction=list(volume.direction), slice_axis="z",
        ),
        model=dict(
            config="config.py", checkpoint="model.pth", sha256="0" * 64, spacing=[1, 1, 1],
            score_thr=0.3,
        ),
        software=dict(name="mmdet_lesion", version="0"),
        created="2026-01-02T03:04:05+00:00",
        fingerprint="0" * 64,
        lesions=lesions,
        warnings=["2 slices are missing <and> </script> interpolated"],
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    volume = phantom()
    write_report(path, volume, content(volume))
    return path


def test_report_requires_no_network(report):
    text = report.read_text(encoding="utf-8")
    # Only the SVG namespace, which is not requested.
    assert text.count("http") == text.count("http://www.w3.org/2000/svg") == 1
    assert "scan &amp; co" in text
    assert text.count("</script>") == 2
    assert len(text) < 3e6


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser, report):
    opened = browser.new_page(viewport=dict(width=1500, height=1000))
    problems = []
    opened.on("console", lambda message: problems.append(message.text))
    opened.on("pageerror", lambda error: problems.append(str(error)))
    opened.on(
        "request",
        lambda request: problems.append(request.url)
        if not request.url.startswith(("data:", report.as_uri()))
        else None,
    )
    opened.goto(report.as_uri())
    opened.wait_for_selector("canvas[data-slice]")
    yield opened
    opened.close()
    assert problems == []


def shown_slice(page):
    page.wait_for_timeout(150)
    return int(page.get_attribute("canvas", "data-slice"))


def visible(page, selector):
    return [node.get_attribute("data-id") for node in page.query_selector_all(selector)
            if node.is_visible()]  # fmt: skip


def test_texts_of_the_page(page):
    assert page.title() == "<b>scan & co: 3 lesions"
    assert page.text_content("#count") == "3 of 3 lesions"
    assert "2 slices are missing <and> </script> interpolated" in page.text_content(".warnings")
    first = page.text_content(".lesion[data-id='1']")
    assert "30 × 30 × 24 mm" in first
    # -150 + 65.5 * 2.5 = 13.75, -120 + 45.5 * 2.5 = -6.25, 900 - 10.5 * 4 = 858
    assert "L 14 A 6 S 858 mm" in " ".join(first.split())
    assert "8 to 13, best 11" in first
    assert len(page.query_selector_all(".planes figure")) == 3


def test_threshold_filters_lesions(page):
    page.fill("#threshold", "0.6")
    assert page.text_content("#count") == "2 of 3 lesions"
    assert visible(page, ".lesion") == ["1", "2"]
    assert len(visible(page, ".mark")) == 6
    page.fill("#threshold", "1")
    assert visible(page, ".lesion") == []
    assert page.is_visible("#none")
    assert page.query_selector_all("#boxes rect") == []


def test_keyboard_shortcuts(page):
    # The page opens at the key slice of the lesion with the highest score.
    assert shown_slice(page) == 11
    assert len(page.query_selector_all("#boxes rect")) == 2
    # In a head-first scan, slice numbers decrease upward.
    page.keyboard.press("ArrowUp")
    assert shown_slice(page) == 10
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert shown_slice(page) == 12
    page.keyboard.press("ArrowRight")
    assert shown_slice(page) == 22
    assert page.get_attribute(".lesion.current", "data-id") == "2"
    page.keyboard.press("ArrowLeft")
    assert page.get_attribute(".lesion.current", "data-id") == "1"
    page.keyboard.press("Home")
    assert shown_slice(page) == 0
    page.keyboard.press("End")
    assert shown_slice(page) == 29
    page.keyboard.press("3")
    assert page.get_attribute("[data-window='bone']", "aria-pressed") == "true"
    for _ in range(3):
        page.keyboard.press("+")
    assert page.text_content("#count") == "2 of 3 lesions"


def gray_at(page, x, y):
    """Return the gray value of the canvas at relative coordinates."""
    return page.evaluate(
        "([x, y]) => { const c = document.getElementById('slice');"
        "return c.getContext('2d').getImageData(x * c.width, y * c.height, 1, 1).data[0]; }",
        [x, y],
    )


def test_viewer_shows_voxels_in_the_hu_window(page):
    page.keyboard.press("2")
    page.wait_for_timeout(150)
    # 120 and 40 HU in -160 … 240, lung below.
    assert abs(gray_at(page, 66 / 120, 46 / 100) - 178) < 12
    assert abs(gray_at(page, 14 / 120, 50 / 100) - 128) < 12
    assert gray_at(page, 35 / 120, 40 / 100) == 0
    page.keyboard.press("1")
    page.wait_for_timeout(150)
    assert abs(gray_at(page, 35 / 120, 40 / 100) - 85) < 12


def test_slider_and_clicks_select_slices_and_lesions(page):
    page.fill("#slider", "3")
    assert shown_slice(page) == 26
    page.click(".lesion[data-id='2'] .neighbor >> nth=0")
    assert shown_slice(page) == 24
    page.click(".planes figure >> nth=2 >> .mark[data-id='3']", position=dict(x=2, y=2))
    assert page.get_attribute(".lesion.current", "data-id") == "3"


@pytest.mark.parametrize("width", [1500, 1100, 700, 420])
def test_elements_do_not_overlap_or_overflow(page, width):
    page.set_viewport_size(dict(width=width, height=900))
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    selectors = ("h1", ".facts", ".warnings", ".overview", ".toolbar", ".viewer", ".lesion",
                 "footer", ".lesion[data-id='1'] .about", ".lesion[data-id='1'] .whole",
                 ".lesion[data-id='1'] .crop", ".lesion[data-id='1'] .neighbor")  # fmt: skip
    nodes = [(s, node) for s in selectors for node in page.query_selector_all(s)]
    boxes = [(s, node.bounding_box()) for s, node in nodes]
    for (a, one), (b, other) in itertools.combinations(boxes, 2):
        if a == ".lesion" and b.startswith(".lesion["):
            continue
        apart = (
            one["x"] + one["width"] <= other["x"] + 1
            or other["x"] + other["width"] <= one["x"] + 1
            or one["y"] + one["height"] <= other["y"] + 1
            or other["y"] + other["height"] <= one["y"] + 1
        )
        assert apart, (a, one, b, other)


def contrast(page, selector):
    """Return the contrast ratio of the text and its nearest background (WCAG 2)."""
    colors = page.evaluate(
        "(s) => { let n = document.querySelector(s); const c = getComputedStyle(n).color;"
        "while (getComputedStyle(n).backgroundColor === 'rgba(0, 0, 0, 0)') n = n.parentElement;"
        "return [c, getComputedStyle(n).backgroundColor]; }",
        selector,
    )
    luminance = []
    for color in colors:
        rgb = np.array([float(v) for v in color[color.index("(") + 1 : -1].split(",")[:3]]) / 255
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        luminance.append(float(linear @ (0.2126, 0.7152, 0.0722)))
    low, high = sorted(luminance)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_legible(page, scheme):
    page.emulate_media(color_scheme=scheme)
    for selector in ("h1", "dt", ".warnings li", "#count", ".keys", "#where", "figcaption",
                     ".number", "[aria-pressed='true']", "[aria-pressed='false']",
                     "footer"):  # fmt: skip
        assert contrast(page, selector) > 4.5, selector


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screenshot(page, scheme):
    image_module = pytest.importorskip("PIL.Image")
    page.emulate_media(color_scheme=scheme)
    page.wait_for_timeout(150)
    png = page.screenshot()
    picture = np.asarray(image_module.open(io.BytesIO(png)).convert("RGB")).astype(int)
    page_color = np.median(picture[:, :8].reshape(-1, 3), axis=0)
    assert page_color.mean() > 230 if scheme == "light" else page_color.mean() < 40
    # The box of the current lesion on the slice, and boxes in the rows.
    for color in ((255, 77, 109), (255, 176, 0)):
        assert (np.abs(picture - color).max(axis=2) < 12).sum() > 100, color


def test_print_layout(page):
    page.emulate_media(media="print")
    assert not page.is_visible(".viewer")
    assert not page.is_visible("#threshold")
    assert page.is_visible(".overview")
    assert visible(page, ".lesion") == ["1", "2", "3"]
    assert page.pdf(format="A4")[:4] == b"%PDF"
