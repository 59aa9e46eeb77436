"""Tests of the review pages in a headless Chromium."""

import json

import pytest

from mmdet_lesion.apis import apply_review
from mmdet_lesion.errors import InputError
from mmdet_lesion.io import write_candidates
from mmdet_lesion.visualization.review import write_review

from ...browser import chromium
from ...small_review import (
    MODEL,
    SETTINGS,
    SHAPE,
    make_candidates,
    write_store,
)

# Not `Page.wait_for_function`: it evaluates text in the page, which the page's policy forbids.
expect = pytest.importorskip("playwright.sync_api", reason="playwright is not installed").expect
COUNT = 56
CANDIDATES = sorted(make_candidates(COUNT), key=lambda one: -one.score)
IDS = [one.id for one in CANDIDATES]
BY_ID = {one.id: one for one in CANDIDATES}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return write_store(tmp_path_factory.mktemp("review"), make_candidates(COUNT))


@pytest.fixture(scope="module")
def review(store):
    (page,) = write_review(store.parent, store, progress=False)
    return page


@pytest.fixture(scope="module")
def two_pages(store):
    return write_review(store.parent / "two", store, progress=False, page_candidates=30)


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture
def context(browser):
    """A browser profile, in which pages share what they keep."""
    found = browser.new_context(viewport=dict(width=1400, height=900), accept_downloads=True)
    yield found
    found.close()


@pytest.fixture
def visit(context):
    """Function that opens a page and fails at the end of the test if the page reported an error."""
    problems = []

    def call(path, script=""):
        page = context.new_page()
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "request",
            lambda request: problems.append(request.url)
            if not request.url.startswith(("data:", "blob:", path.parent.as_uri()))
            else None,
        )
        if script:
            page.add_init_script(script)
        page.goto(path.as_uri())
        page.wait_for_selector("body[data-loaded]")
        return page

    yield call
    assert problems == []


def wait_for(page, candidate):
    expect(page.locator("body")).to_have_attribute("data-shown", candidate)
    settle(page)


def settle(page):
    """Wait until the page is drawn: once per frame, after all events before."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def press(page, key, candidate):
    """Press a key and wait until a candidate is shown."""
    page.keyboard.press(key)
    wait_for(page, candidate)


def shown_slice(page):
    settle(page)
    return int(page.get_attribute("#slice", "data-slice"))


def counts(page):
    return page.text_content("#counts")


def listed(page):
    return page.eval_on_selector_all("#list li", "(nodes) => nodes.map((one) => one.dataset.id)")


def current(page):
    return page.get_attribute("#list li[aria-current]", "data-id")


def saved(page, tmp_path):
    with page.expect_download() as download:
        page.click("#download")
    assert download.value.suggested_filename == "decisions.json"
    path = tmp_path / "decisions.json"
    download.value.save_as(path)
    return path


def test_page_requires_no_network(review):
    text = review.read_text(encoding="utf-8")
    assert "http://" not in text and "https://" not in text
    assert "default-src 'none'" in text and "For research use only" in text


def test_fifty_decisions_survive_and_are_applied(visit, review, tmp_path):
    page = visit(review)
    keys = ["a", "r", "s", "A", "r"] * 10
    for i, key in enumerate(keys):
        wait_for(page, IDS[i])
        page.keyboard.press(key)
    wait_for(page, IDS[50])
    assert counts(page) == "20 accepted · 20 rejected · 10 skipped · 6 open"
    page.close()

    # The next day.
    page = visit(review)
    wait_for(page, IDS[50])
    assert counts(page) == "20 accepted · 20 rejected · 10 skipped · 6 open"
    press(page, "s", IDS[51])
    press(page, "b", IDS[50])
    assert page.text_content("#decision") == "skipped"
    press(page, "a", IDS[51])
    press(page, "ArrowLeft", IDS[50])
    press(page, "ArrowLeft", IDS[49])
    # Changed: the last of the fifty was rejected.
    page.keyboard.press("a")
    wait_for(page, IDS[51])
    assert counts(page) == "22 accepted · 19 rejected · 10 skipped · 5 open"
    path = saved(page, tmp_path)

    words = {"a": "accept", "r": "reject", "s": "skip"}
    expected = {name: words[key.lower()] for name, key in zip(IDS, keys)}
    expected.update({IDS[49]: "accept", IDS[50]: "accept"})
    content = json.loads(path.read_text())
    assert content["decisions"] == expected
    assert content["format"] == "mmdet_lesion decisions 1"
    done = apply_review(path)
    assert (done.accepted, done.rejected, done.skipped, done.undecided) == (22, 19, 10, 5)
    accepted = {name for name, decision in expected.items() if decision == "accept"}
    annotations = json.loads(done.path.read_text())["annotations"]
    assert {one["lesion_id"] for one in annotations if one["source"] == "reviewed"} == accepted


def test_backspace_goes_back_step_by_step(visit, review):
    page = visit(review)
    for i in range(3):
        press(page, "r", IDS[i + 1])
    press(page, "Backspace", IDS[2])
    press(page, "Backspace", IDS[1])
    press(page, "Backspace", IDS[0])
    page.keyboard.press("Backspace")
    settle(page)
    assert current(page) == IDS[0]
    page.keyboard.press("c")
    assert counts(page).startswith("0 accepted · 2 rejected")
    # Next open: from the first candidate, which is shown, to the fourth.
    press(page, "u", IDS[3])
    press(page, "u", IDS[4])


def test_buttons_do_what_keys_do(visit, review):
    page = visit(review)
    page.click("[data-decision='accept']")
    wait_for(page, IDS[1])
    page.click("[data-decision='skip']")
    wait_for(page, IDS[2])
    page.click("[data-decision='reject']")
    wait_for(page, IDS[3])
    assert counts(page) == "1 accepted · 1 rejected · 1 skipped · 53 open"
    for button, expected in (("back", 2), ("previous", 1), ("next", 2), ("open", 3)):
        page.click(f"#{button}")
        wait_for(page, IDS[expected])
    page.click(f"#list li[data-id='{IDS[1]}']")
    wait_for(page, IDS[1])
    assert page.text_content("#decision") == "skipped"
    page.click("#clear")
    assert page.text_content("#decision") == "open"
    page.click("#help")
    assert page.is_visible("#keys")
    page.keyboard.press("?")
    assert not page.is_visible("#keys")


ORANGE, BLUE = (0xFF, 0xB0, 0x00), (0x58, 0xC4, 0xFF)
# Mean and gray levels of the stage, and the bounds x1, y1, x2, y2 of its pixels of a color.
PIXELS = """([red, green, blue]) => {
  const stage = document.getElementById("slice");
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [stage.width, stage.height];
  const context = canvas.getContext("2d");
  context.drawImage(stage, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const bounds = [Infinity, Infinity, -1, -1];
  const levels = new Array(256).fill(0);
  let sum = 0;
  for (let i = 0; i < data.length; i += 4) {
    sum += data[i];
    levels[data[i]] += 1;
    const near = [red, green, blue].every((value, k) => Math.abs(data[i + k] - value) < 30);
    if (!near) continue;
    const [x, y] = [(i / 4) % canvas.width, Math.floor(i / 4 / canvas.width)];
    bounds[0] = Math.min(bounds[0], x);
    bounds[1] = Math.min(bounds[1], y);
    bounds[2] = Math.max(bounds[2], x);
    bounds[3] = Math.max(bounds[3], y);
  }
  return { mean: (4 * sum) / data.length, levels, bounds: bounds[2] < 0 ? null : bounds };
}"""


def stage(page, color=ORANGE):
    settle(page)
    return page.evaluate(PIXELS, color)


def bounds_of(page, color):
    return stage(page, color)["bounds"]


def test_scrolling_changes_the_slice_and_the_boxes(visit, review):
    page = visit(review)
    wait_for(page, IDS[0])
    one = CANDIDATES[0]
    slices = [box[0] for box in one.boxes]
    assert shown_slice(page) == one.key_slice
    assert bounds_of(page, ORANGE)
    for _ in range(20):
        page.keyboard.press("ArrowUp")
    assert shown_slice(page) == min(one.key_slice + 8, SHAPE[0] - 1)
    assert not bounds_of(page, ORANGE)
    page.keyboard.press("k")
    assert shown_slice(page) == one.key_slice
    box = page.locator("#stage").bounding_box()
    page.mouse.move(box["x"] + 50, box["y"] + 50)
    page.mouse.wheel(0, 120)
    assert shown_slice(page) == one.key_slice - 1
    assert bool(bounds_of(page, ORANGE)) == (one.key_slice - 1 in slices)
    page.mouse.wheel(0, -120)
    page.keyboard.press("ArrowUp")
    assert shown_slice(page) == one.key_slice + 1
    page.keyboard.press("k")
    page.keyboard.press("h")
    assert not bounds_of(page, ORANGE)
    # A thumbnail of the strip, which shows all slices in a row.
    strip = page.locator("#strip").bounding_box()
    page.mouse.click(strip["x"] + 3, strip["y"] + 10)
    assert shown_slice(page) == max(0, one.key_slice - 8)


def test_boxes_are_where_the_annotation_file_has_them(visit, review):
    # A candidate whose crop shows the annotation on slice 6 of the first volume completely.
    one = next(c for c in CANDIDATES if c.volume.startswith("000001") and c.boxes[0][0] > 6
               and 45 < c.boxes[0][1] < 75)  # fmt: skip
    page = visit(review)
    page.click(f"#list li[data-id='{one.id}']")
    wait_for(page, one.id)
    assert "1 in view (recist), 1 in the volume" in page.text_content("#facts")
    key = next(box for box in one.boxes if box[0] == one.key_slice)
    found = bounds_of(page, ORANGE)
    for _ in range(one.key_slice - 6):
        page.keyboard.press("ArrowDown")
    assert shown_slice(page) == 6
    known = bounds_of(page, BLUE)
    # The crop is square and as high as the stage: 64 pixels of 2 mm.
    scale = page.evaluate("document.getElementById('slice').height") / 64
    sides = [found[2] - found[0], found[3] - found[1], known[2] - known[0], known[3] - known[1]]
    expected = [*[(key[3] - key[1]) * scale] * 2, *[8 * scale] * 2]
    # Lines are two pixels wide, on the outside.
    assert sides == pytest.approx([side + 3 for side in expected], abs=2)
    offset = [known[0] - found[0], known[1] - found[1]]
    assert offset == pytest.approx([(60 - key[1]) * scale, (30 - key[2]) * scale], abs=2)


def test_hu_windows(visit, review):
    page = visit(review)
    wait_for(page, IDS[0])
    automatic = stage(page)["mean"]
    means = {}
    for key, name in (("1", "lung"), ("2", "soft tissue"), ("3", "bone")):
        page.keyboard.press(key)
        means[name] = stage(page)["mean"]
        assert page.get_attribute(f"[data-window='{name}']", "aria-pressed") == "true"
    assert means["lung"] > means["bone"] > 0 and means["lung"] > means["soft tissue"]
    page.keyboard.press("0")
    assert stage(page)["mean"] == automatic
    chosen = page.text_content("#automatic").strip(" ()")
    assert means[chosen] == automatic
    # Soft tissue of 20 to 150 HU is gray and lung is black in its window.
    page.click("[data-window='soft tissue']")
    levels = stage(page)["levels"]
    tissue = round((20 + 10 * BY_ID[IDS[0]].key_slice + 160) * 255 / 400)
    assert sum(levels[tissue - 4 : tissue + 5]) > 0.1 * sum(levels)


def test_orders(visit, review):
    page = visit(review)
    assert listed(page) == IDS
    page.select_option("#order", "uncertainty")
    assert listed(page) == IDS[::-1]
    page.select_option("#order", "size")
    sides = [max(BY_ID[name].size_mm) for name in listed(page)]
    assert sides == sorted(sides, reverse=True)
    page.select_option("#order", "volume")
    keys = [(BY_ID[name].volume, BY_ID[name].key_slice) for name in listed(page)]
    assert keys == sorted(keys)
    # Keys follow the order, also of a page that was opened again.
    first = listed(page)
    page.reload()
    wait_for(page, first[0])
    assert listed(page) == first
    press(page, "ArrowRight", first[1])
    press(page, "a", first[2])


def test_filters(visit, review):
    page = visit(review)
    for i, key in enumerate("arsa"):
        press(page, key, IDS[i + 1])
    for show, expected in (("accept", [0, 3]), ("reject", [1]), ("skip", [2])):
        page.select_option("#show", show)
        assert listed(page) == [IDS[i] for i in expected]
        wait_for(page, IDS[expected[0]])
    page.select_option("#show", "open")
    assert listed(page) == IDS[4:]
    wait_for(page, IDS[4])
    press(page, "a", IDS[5])
    assert listed(page) == IDS[5:]
    # Back reaches candidates that are no longer listed.
    press(page, "b", IDS[4])
    page.select_option("#show", "all")
    page.select_option("#kind", "hard_negative")
    assert listed(page) == [one.id for one in CANDIDATES if one.kind == "hard_negative"]
    page.select_option("#kind", "all")
    page.fill("#lowest", "0.8")
    page.keyboard.press("Enter")
    assert listed(page) == [one.id for one in CANDIDATES if one.score >= 0.8]
    assert "56 candidates" in page.text_content("#listed")
    page.fill("#lowest", "1")
    page.keyboard.press("Enter")
    assert listed(page) == []


def test_keys_in_inputs_do_not_decide(visit, review):
    page = visit(review)
    wait_for(page, IDS[0])
    page.focus("#lowest")
    page.keyboard.type("0.6")
    page.keyboard.press("Backspace")
    page.focus("#order")
    page.keyboard.press("s")
    assert counts(page).endswith("56 open")
    page.focus("body")
    page.keyboard.press("Control+a")
    assert counts(page).endswith("56 open")


def test_two_pages_share_decisions(visit, two_pages, tmp_path):
    assert [path.name for path in two_pages] == ["review.html", "review_2.html"]
    first, second = (visit(path) for path in two_pages)
    assert listed(first) == IDS[:30] and listed(second) == IDS[30:]
    wait_for(first, IDS[0])
    press(first, "a", IDS[1])
    wait_for(second, IDS[30])
    expect(second.locator("#counts")).to_contain_text("1 accepted")
    press(second, "r", IDS[31])
    expect(first.locator("#counts")).to_contain_text("1 rejected")
    assert counts(first) == "1 accepted · 1 rejected · 0 skipped · 54 open (29 on this page)"
    assert counts(second) == "1 accepted · 1 rejected · 0 skipped · 54 open (25 on this page)"
    content = json.loads(saved(second, tmp_path).read_text())
    assert content["decisions"] == {IDS[0]: "accept", IDS[30]: "reject"}
    # The links lead to the other page, and tell its candidates.
    link = first.locator("nav a", has_text="31–56")
    link.click()
    first.wait_for_selector("body[data-loaded]")
    wait_for(first, IDS[31])
    assert first.locator("nav a[aria-current]").text_content() == "31–56"


def test_end_of_a_page_and_of_the_review(visit, store):
    path = write_review(store.parent / "many", store, progress=False, page_candidates=2)
    assert len(path) == 28 and path[27].name == "review_28.html"
    page = visit(path[0])
    press(page, "a", IDS[1])
    page.keyboard.press("a")
    assert page.text_content("#message").startswith("All candidates of this page are decided")
    # A new review with fewer pages removes the others.
    write_review(store.parent / "many", store, progress=False)
    assert [one.name for one in (store.parent / "many").glob("*.html")] == ["review.html"]


def test_pages_are_limited_by_size(store):
    one = write_review(store.parent / "size", store, progress=False, page_size=1)
    assert len(one) == COUNT


def test_decisions_without_storage_are_in_memory_only(visit, review, tmp_path):
    script = """Object.defineProperty(window, "localStorage", {
      get() { throw new DOMException("no", "SecurityError"); },
    })"""
    page = visit(review, script)
    assert page.is_visible("#unsaved")
    press(page, "a", IDS[1])
    path = saved(page, tmp_path)
    assert json.loads(path.read_text())["decisions"] == {IDS[0]: "accept"}
    page.reload()
    page.wait_for_selector("body[data-loaded]")
    assert counts(page).startswith("0 accepted")
    page.set_input_files("#file", path)
    expect(page.locator("#message")).to_have_text("1 decisions loaded.")
    assert counts(page).startswith("1 accepted")
    path.write_text(path.read_text().replace('"fingerprint": "', '"fingerprint": "0'))
    page.set_input_files("#file", path)
    page.wait_for_selector("#message.error")
    assert "other candidates" in page.text_content("#message")
    assert counts(page).startswith("1 accepted")


def test_storage_is_silent_where_it_works(visit, review):
    page = visit(review)
    assert not page.is_visible("#unsaved") and not page.is_visible("#blocked")


def test_damaged_storage_does_not_stop_the_page(visit, review, store):
    fingerprint = json.loads(store.read_text())["fingerprint"]
    kept = {IDS[0]: "accept", "other/1": "accept", IDS[1]: "maybe"}
    for text, expected in (("{", "0 accepted"), (json.dumps(kept), "1 accepted")):
        script = f"localStorage.setItem('mmdet_lesion decisions {fingerprint}', {text!r})"
        page = visit(review, script)
        assert counts(page).startswith(expected)
        page.close()


@pytest.mark.parametrize("width", [420, 700, 1400])
def test_nothing_overflows(visit, context, review, width):
    page = visit(review)
    page.set_viewport_size(dict(width=width, height=900))
    wait_for(page, IDS[0])
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    # The decisions are on the screen without scrolling.
    box = page.locator("[data-decision='accept']").bounding_box()
    assert width == 700 or box["y"] + box["height"] <= 900
    page.keyboard.press("ArrowRight")
    wait_for(page, IDS[1])
    assert page.evaluate("window.scrollY") == 0


def test_full_pages_respond_at_once(visit, tmp_path):
    candidates = make_candidates(700)
    path = write_store(tmp_path, candidates)
    pages = write_review(tmp_path / "out", path, progress=False)
    assert len(pages) == 2
    ids = [one.id for one in sorted(candidates, key=lambda one: (-one.score, one.id))]
    page = visit(pages[0])
    wait_for(page, ids[0])
    assert page.eval_on_selector_all("*", "(nodes) => nodes.length") < 500 * 6
    seconds = page.evaluate(
        """async (ids) => {
          const started = performance.now();
          for (const id of ids) {
            document.dispatchEvent(new KeyboardEvent("keydown", { key: "a" }));
            while (document.body.dataset.shown !== id) {
              await new Promise((done) => setTimeout(done));
            }
          }
          return (performance.now() - started) / 1000;
        }""",
        ids[1:21],
    )
    assert counts(page).startswith("20 accepted")
    assert seconds < 20 * 0.25


def test_review_without_candidates(visit, tmp_path):
    path = write_store(tmp_path, [])
    (review,) = write_review(tmp_path, path, progress=False)
    page = visit(review)
    assert page.text_content("#empty") == "There are no candidates."
    for key in ("a", "b", "u", "ArrowUp", "ArrowRight", "k", "h", "1", "c"):
        page.keyboard.press(key)
    assert counts(page) == "0 accepted · 0 rejected · 0 skipped · 0 open"


def test_names_are_escaped(visit, tmp_path):
    path = write_store(tmp_path, make_candidates(1))
    hostile = "</script><script>alert(1)</script>"
    model = dict(config=hostile, checkpoint="<b>", sha256="")
    write_candidates(path, make_candidates(1), ann_file=tmp_path / "annotations" / "train.json",
                     volumes=tmp_path / "volumes", model=model, settings=SETTINGS)  # fmt: skip
    (review,) = write_review(tmp_path, path, progress=False)
    page = visit(review)
    assert hostile in page.text_content("footer")


def test_changed_and_missing_files_are_refused(tmp_path):
    path = write_store(tmp_path, make_candidates(3))
    volumes = sorted((tmp_path / "volumes").iterdir())
    volumes[0].rename(tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="does not exist; expected a stored volume"):
        write_review(tmp_path / "out", path, progress=False)
    (tmp_path / "gone").rename(volumes[0])
    outside = [type(one)(**{**vars(one), "volume": "other"}) for one in make_candidates(1)]
    write_candidates(path, outside, ann_file=tmp_path / "annotations" / "train.json",
                     volumes=tmp_path / "volumes", model=MODEL, settings=SETTINGS)  # fmt: skip
    with pytest.raises(InputError, match="in the volume 'other'; expected a volume of"):
        write_review(tmp_path / "out", path, progress=False)
    (tmp_path / "annotations" / "train.json").write_text("{}")
    with pytest.raises(InputError, match="train.json has changed since its lesions were mined"):
        write_review(tmp_path / "out", path, progress=False)
    assert not (tmp_path / "out").exists()
