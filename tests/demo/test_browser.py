"""The page in a real Chromium: every function clicked at both sizes, a clean console, no request to another host."""

import base64
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.demo.conftest import CHROMIUM, CHROMIUM_OPTIONS, STREET, Page

pytest.importorskip("gradio", reason="the extra demo is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="browser: Chromium is not installed"),
]

SIZES = {"wide": (1280, 900), "narrow": (390, 844)}
WAIT = 60_000
PASTED = (
    "data:image/png;base64," + base64.b64encode(cv2.imencode(".png", np.full((32, 64, 3), 99, np.uint8))[1]).decode()
)
Visits = Callable[..., Any]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def visits(chromium: Any, page: Page) -> Iterator[Visits]:
    """Open the page; at the end the console is clean and no other host was asked."""
    problems: list[str] = []
    contexts = []

    def visit(size: str = "wide", *, dark: bool = False, expected: str = "^$") -> Any:
        width, height = SIZES[size]
        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light",
            permissions=["camera", "clipboard-read", "clipboard-write"],
        )  # fmt: skip
        contexts.append(context)
        view = context.new_page()
        view.set_default_timeout(WAIT)

        def note(text: str) -> None:
            if not re.search(expected, text):
                problems.append(text)

        view.on("console", lambda message: note(message.text) if message.type == "error" else None)
        view.on("pageerror", lambda error: note(str(error)))
        view.on("response", lambda got: note(f"{got.status} {got.url}") if got.status >= 400 else None)
        view.on("request", lambda one: None if local(one.url, page) else problems.append(f"asked for {one.url}"))
        view.goto(page.address)
        view.locator("#picture-input input[type=file]").first.wait_for(state="attached")
        return view

    yield visit
    for context in contexts:
        context.close()
    assert problems == []


def local(url: str, page: Page) -> bool:
    return url.startswith((page.address, "data:", "blob:"))


def open_tab(view: Any, name: str) -> None:
    """Open a tab, which is in a menu where there is no room for it."""
    tab = view.get_by_role("tab", name=name)
    if not tab.is_visible():
        view.locator(".overflow-menu button").first.click()
        tab = view.get_by_role("button", name=name, exact=True)
    tab.click()


def send(view: Any, name: str, path: Path) -> None:
    view.locator(f"#{name} input[type=file]").first.set_input_files(path)


def show_picture(view: Any, path: Path = STREET) -> None:
    send(view, "picture-input", path)
    view.locator("#facts").get_by_text("agree on").wait_for()
    view.locator("#slider img").nth(1).wait_for()


def box(view: Any, selector: str) -> dict[str, float]:
    found = view.locator(selector).first.bounding_box()
    assert found is not None, selector
    return dict(found)


@pytest.mark.parametrize(("size", "dark"), [("wide", False), ("narrow", True)])
def test_a_picture_from_upload_to_downloads(visits: Visits, size: str, dark: bool) -> None:
    view = visits(size, dark=dark)
    assert "never saw your camera" in view.locator("#banner").inner_text()
    show_picture(view)
    assert view.evaluate("scrollY") == 0
    # What has to be on the first screen: on a wide one the whole result, on a narrow one its head.
    visible = ["#slider", "#facts", "#view"] + (["#shares", ".downloads", "#point"] if size == "wide" else [])
    for selector in visible:
        area = box(view, selector)
        assert area["y"] + area["height"] <= SIZES[size][1], selector
    check_texts(view)
    view.locator("#picture-input img").first.click(position={"x": 90, "y": 120})
    reading = view.locator("#point").get_by_text(re.compile(r"after: [a-z ]+ [\d.]+ %, then [a-z ]+ [\d.]+ %"))
    reading.wait_for()
    assert view.locator("#shares .swatch").count() > 3
    sides = [image.get_attribute("src") for image in view.locator("#slider img").all()]
    for name in ("confidence", "difference", "classes"):
        view.locator("#view").get_by_text(name).click()
        view.wait_for_function(
            "old => [...document.querySelectorAll('#slider img')].map(e => e.src).join() !== old", arg=",".join(sides)
        )
        view.wait_for_timeout(300)
        sides = [image.get_attribute("src") for image in view.locator("#slider img").all()]
    for label, ending in (("Overlay", ".png"), ("Mask", ".png"), ("Shares", ".csv"), ("All (ZIP)", ".zip")):
        with view.expect_download() as download:
            view.get_by_role("button", name=label).or_(view.get_by_role("link", name=label)).first.click()
        assert download.value.suggested_filename.endswith(ending)


def test_examples_the_camera_the_clipboard_and_another_model(visits: Visits) -> None:
    view = visits()
    view.locator("#picture-input-examples button, #picture-input-examples .gallery-item").first.click()
    view.locator("#facts").get_by_text("udacity_solidWhiteRight_060").wait_for()
    view.get_by_label("Before").click()
    view.get_by_role("option", name="the original picture").click()
    view.locator("#facts").get_by_text("agree on").wait_for(state="detached")
    view.locator("#view").get_by_text("difference").click()
    view.get_by_text("A difference needs two models of the same classes. Choose both above.").wait_for()
    view.locator("#view").get_by_text("classes").click()
    view.get_by_role("button", name="Remove Image").first.click()
    view.locator("#facts").get_by_text("Upload a picture").wait_for()
    view.get_by_role("button", name="Capture from camera").first.click()
    view.locator("#picture-input").get_by_text("Click to Access Webcam").click()
    view.wait_for_function("document.querySelector('#picture-input video')?.readyState > 2")
    view.locator("#picture-input").get_by_role("button", name="capture photo").click()
    view.locator("#facts").get_by_text(re.compile(r"\d+ x \d+ · on cpu")).wait_for()
    view.get_by_role("button", name="Remove Image").first.click()
    view.locator("#facts").get_by_text("Upload a picture").wait_for()
    view.evaluate("""async url => {
        const blob = await (await fetch(url)).blob();
        await navigator.clipboard.write([new ClipboardItem({"image/png": blob})]);
    }""", PASTED)  # fmt: skip
    view.get_by_role("button", name="Paste from clipboard").first.click()
    view.locator("#facts").get_by_text("64 x 32 · on cpu").wait_for()


@pytest.mark.parametrize("size", ["wide", pytest.param("narrow", marks=pytest.mark.slow)])
def test_a_clip_from_the_example_to_the_plot(visits: Visits, size: str) -> None:
    view = visits(size)
    open_tab(view, "Video")
    view.locator("#every input").click()
    view.get_by_role("option", name="every 5th frame").click()
    view.locator("#video-input-examples button, #video-input-examples .gallery-item").first.click()
    view.locator("#video-facts").get_by_text("10 frames in").wait_for()
    view.wait_for_function("document.querySelector('#video-result video')?.readyState > 1")
    assert view.evaluate("document.querySelector('#video-result video').videoWidth") == 2 * 960 + 4
    view.locator("#plot svg").get_by_text("road").first.wait_for()
    for label in ("Clip", "Masks (ZIP)", "Shares (CSV)"):
        with view.expect_download():
            view.get_by_role("button", name=label, exact=True).click()


@pytest.mark.slow
def test_progress_is_shown_and_a_clip_is_cancelled(visits: Visits, clip_of: Callable[[int], Path]) -> None:
    view = visits()
    open_tab(view, "Video")
    send(view, "video-input", clip_of(299))
    view.get_by_text(re.compile(r"[\d.]+ frames/s, \d+ s left")).first.wait_for()
    view.get_by_text(re.compile(r"\d+/299 frames")).first.wait_for()
    assert view.locator("#video-facts").inner_text() == "Segmenting drive_299.mp4. Cancel ends it."
    view.get_by_role("button", name="Cancel").click()
    view.locator("#video-facts").get_by_text("Cancelled.").wait_for(timeout=2000)
    view.get_by_text(re.compile(r"\d+/299 frames")).first.wait_for(state="detached")
    view.wait_for_timeout(700)
    assert view.locator("#video-facts").inner_text() == "Cancelled. Segment starts again."
    view.reload()
    view.locator("#picture-input input[type=file]").first.wait_for(state="attached")
    open_tab(view, "Video")
    send(view, "video-input", clip_of(320))
    view.get_by_text("drive_320.mp4 lasts 32 s").first.wait_for()
    view.locator("#video-facts").get_by_text("drive_320.mp4 was not segmented.").wait_for()


def test_a_closed_page_ends_what_it_was_computing(visits: Visits, page: Page, clip_of: Callable[[int], Path]) -> None:
    view = visits()
    open_tab(view, "Video")
    send(view, "video-input", clip_of(299))
    view.get_by_text(re.compile(r"\d+/299 frames")).first.wait_for()
    before, workers = len(page.working()), set(page.workers())
    view.close()
    for _ in range(600):
        if set(page.workers()) != workers and len(page.working()) < before:
            return
        time.sleep(0.05)
    pytest.fail("the clip is still computed")


@pytest.mark.parametrize("size", SIZES)
def test_models_are_compared_and_listed_and_the_api_is_found(visits: Visits, size: str) -> None:
    # Gradio's list of functions asks for two things that are switched off here.
    view = visits(size, expected="mcp/schema|monitoring/summary|status of 40[34]")
    open_tab(view, "Compare")
    send(view, "compare-input", STREET)
    view.locator("#comparison .body-cell").filter(has_text="median of 5").wait_for()
    view.locator("#difference").scroll_into_view_if_needed()
    view.locator("#difference img").wait_for()
    open_tab(view, "Models")
    view.locator("#model-table .body-cell").filter(has_text="street.onnx").wait_for()
    open_tab(view, "API")
    if size == "wide":
        view.get_by_role("button", name="Use via API").click()
        view.locator(".api-docs, .api-docs-wrap").get_by_text("/segment_video").first.wait_for()


@pytest.mark.parametrize("size", SIZES)
def test_an_empty_page_fits_its_window_and_what_has_nothing_to_work_on_cannot_be_pressed(
    visits: Visits, size: str
) -> None:
    view = visits(size)
    buttons = {"Picture": ["Overlay", "Mask"], "Video": ["Segment", "Cancel", "Clip"], "Compare": ["Compare the two"]}
    for tab, names in buttons.items():
        open_tab(view, tab)
        for column in view.locator(".viewer > *, .viewer > * > *").filter(visible=True).all():
            area = column.bounding_box()
            assert area["x"] >= 0, tab
            assert area["x"] + area["width"] <= SIZES[size][0], tab
        for name in names:
            assert view.get_by_role("button", name=name).filter(visible=True).first.is_disabled(), name
    send(view, "compare-input", STREET)
    view.get_by_role("button", name="Compare the two").and_(view.locator(":enabled")).wait_for()


def test_a_model_that_is_added_to_the_folder_appears_and_can_be_chosen(visits: Visits, page: Page) -> None:
    view, added = visits(), page.folder / "models" / "mine.onnx"
    open_tab(view, "Models")
    view.locator("#model-table .body-cell").filter(has_text="street.onnx").wait_for()
    row = view.locator("#model-table .body-cell").filter(has_text="mine.onnx")
    added.write_bytes((STREET.parents[2] / "toytown.onnx").read_bytes())
    try:
        assert row.count() == 0
        view.get_by_role("button", name="Refresh the list").click()
        row.wait_for()
        view.get_by_label("After").click()
        view.get_by_role("option", name="mine").click()
        open_tab(view, "Picture")
        send(view, "picture-input", STREET)
        view.locator("#facts").get_by_text("agree on").wait_for()
    finally:
        added.unlink()
    open_tab(view, "Models")
    view.get_by_role("button", name="Refresh the list").click()
    row.wait_for(state="detached")


def test_a_refusal_is_a_sentence_on_the_page(visits: Visits, tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    view = visits()
    send(view, "picture-input", bad)
    view.get_by_text("bad.png").and_(view.get_by_text("Replace the file")).first.wait_for()
    large = tmp_path / "large.jpg"
    large.write_bytes(STREET.read_bytes() + bytes(9_000_000))
    view.reload()
    send(view, "picture-input", large)
    view.get_by_text(re.compile("exceed the maximum allowed size")).first.wait_for()
    show_picture(view)  # and the page goes on


def test_texts_can_be_read_in_the_dark_and_nothing_overflows(visits: Visits) -> None:
    view = visits(dark=True)
    show_picture(view)
    check_texts(view)


def check_texts(view: Any) -> None:
    """Check that the texts have contrast, and that no tab is wider than the page."""
    for selector in ("#head h1", "#banner p", "#facts p", "#foot p", "#shares .body-cell span.text", "#point p"):
        assert contrast(view, selector) >= 4.5, selector
    for name in ("Video", "Compare", "Models", "API", "Picture"):
        open_tab(view, name)
        assert view.evaluate("document.documentElement.scrollWidth <= innerWidth"), name


def contrast(view: Any, selector: str) -> float:
    """Return the contrast of a text and what is behind it, as WCAG defines it."""
    colors = view.locator(selector).first.evaluate("""element => {
        const parse = text => text.match(/[\\d.]+/g).map(Number);
        const ground = [];
        for (let at = element; at; at = at.parentElement) ground.push(parse(getComputedStyle(at).backgroundColor));
        const opaque = ground.find(color => color.length === 3 || color[3] > 0.9) || [255, 255, 255];
        return [parse(getComputedStyle(element).color), opaque];
    }""")

    def light(color: list[float]) -> float:
        parts = [c / 255 / 12.92 if c / 255 <= 0.03928 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in color[:3]]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    darker, lighter = sorted(map(light, colors))
    return (lighter + 0.05) / (darker + 0.05)
