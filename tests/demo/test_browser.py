"""The page in a real Chromium: every function clicked through, no console error, no request to another host."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lsr_infer import Segmenter
from lsr_infer.io.images import read_image
from lsr_infer.web.models import shipped_models
from tests.demo.conftest import FRAMES, Page, running_page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytest.importorskip("gradio", reason="the extra demo is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="browser: Chromium is not installed"),
]

OPTIONS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]  # fmt: skip
WAIT = 60_000
FORGET = """([shown, drop]) => {
  shown.data = null;
  drop.querySelector("[role=alert]")?.remove();
}"""
ENDED = """([shown, drop]) =>
  ["done", "error"].includes(shown.data?.state) || drop.querySelector("[role=alert]") !== null
"""
MOVING = {".mp4", ".mov", ".mkv", ".avi", ".webm", ".gif", ".h264", ".ts"}
Visits = Callable[..., Any]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def visits(chromium: Any, page: Page) -> Iterator[Visits]:
    """Open the page; at the end nothing may have gone wrong in the console or have been asked for elsewhere."""
    problems: list[str] = []
    opened = []

    def visit(width: int = 1280, *, dark: bool = False, expected: tuple[int, ...] = ()) -> Any:
        context = chromium.new_context(
            viewport={"width": width, "height": 900}, color_scheme="dark" if dark else "light",
            permissions=["camera", "clipboard-read", "clipboard-write"],
        )  # fmt: skip
        opened.append(context)
        view = context.new_page()
        view.set_default_timeout(WAIT)

        def said(message: Any) -> None:
            if message.type in ("error", "warning") and not any(
                f"status of {code}" in message.text for code in expected
            ):
                problems.append(message.text)

        view.on("console", said)
        view.on("pageerror", lambda error: problems.append(str(error)))
        view.on("request", lambda asked: problems.extend(elsewhere(asked.url, page.address)))
        view.goto(page.address)
        view.locator("#picture-drop input[type=file]").wait_for(state="attached")
        return view

    yield visit
    for context in opened:
        context.close()
    assert not problems


def elsewhere(url: str, address: str) -> list[str]:
    """Return an address that leads to another host."""
    return [] if url.startswith((f"{address}/", "data:", "blob:")) else [url]


def tab(view: Any, name: str) -> None:
    """Choose a tab, behind the menu where the page is narrow."""
    found = view.get_by_role("tab", name=name)
    if found.count() and found.first.is_visible():
        found.first.click()
        return
    view.get_by_role("button", name="More tabs").click()
    view.locator(".overflow-dropdown button", has_text=name).click()


def send(view: Any, place: str, file: Path) -> None:
    view.set_input_files(f"#{place} input[type=file]", str(file))


@contextmanager
def saving(view: Any, folder: Path, into: dict[str, Path]) -> Iterator[None]:
    """Keep the file that is saved in this block, under the name it is given."""
    with view.expect_download() as download:
        yield
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    into[path.name] = path


def choose(view: Any, label: str, option: str) -> None:
    """Choose in a dropdown of Gradio's that is visible."""
    view.get_by_role("listbox", name=label).or_(view.get_by_label(label, exact=True)).locator(
        "visible=true"
    ).first.click()
    view.get_by_role("option", name=option).locator("visible=true").first.click()


def test_a_picture_from_upload_to_downloads(visits: Visits, street: Path, tmp_path: Path) -> None:
    view = visits()
    send(view, "picture-drop", street)
    viewer = view.locator("#picture-viewer lsr-viewer")
    viewer.locator("canvas").first.wait_for()
    assert "512 × 256" in viewer.inner_text()
    # The divider by keys, the strength, a class off and on, the confidence map.
    divider = viewer.locator("[role=slider]")
    before = divider.get_attribute("aria-valuenow")
    divider.focus()
    view.keyboard.press("ArrowLeft")
    assert divider.get_attribute("aria-valuenow") != before
    viewer.locator("input[value=confidence]").check()
    viewer.get_by_text("Sure", exact=False).or_(viewer.get_by_text("100 %")).first.wait_for()
    viewer.locator("input[value=classes]").check()
    road = viewer.get_by_role("checkbox", name=re.compile("road"))
    assert road.is_checked()
    road.uncheck()
    road.check()
    # A place in the lower middle is road, and the answer is what the segmenter says there.
    box = viewer.locator("canvas").first.bounding_box()
    viewer.locator("canvas").first.click(position={"x": box["width"] * 0.75, "y": box["height"] * 0.9}, force=True)
    classes = Segmenter(shipped_models()[1])(read_image(street)).classes
    name = Segmenter(shipped_models()[1]).label_space.names[classes[int(256 * 0.9), int(512 * 0.75)]]
    viewer.get_by_text(re.compile(rf"{name} \d+ %, then")).first.wait_for()
    saved: dict[str, Path] = {}
    for link in viewer.locator("a[download]").all():
        with saving(view, tmp_path, saved):
            link.click()
    with saving(view, tmp_path, saved):
        viewer.get_by_role("button", name="Save what you see").click()
    assert len(saved) == 6
    mask = cv2.imread(str(saved["camera_900001_toytown_adapted_mask.png"]), cv2.IMREAD_UNCHANGED)
    palette = Segmenter(shipped_models()[1]).label_space.palette()[:, ::-1]
    assert np.array_equal(mask, palette[classes])
    assert cv2.imread(str(saved["camera_900001_toytown_adapted_overlay.png"])).shape == (256, 512, 3)
    assert json.loads(saved["camera_900001.json"].read_text())["layers"][1]["shares"]["road"] > 0.1


def test_examples_the_camera_and_the_clipboard(visits: Visits) -> None:
    view = visits()
    viewer, drop = view.locator("#picture-viewer lsr-viewer"), view.locator("#picture-drop")
    drop.get_by_role("button", name="Toytown, camera 2").click()
    viewer.get_by_text("camera_900001.jpg").wait_for()
    drop.get_by_role("button", name="Use the camera").click()
    drop.get_by_role("button", name="Take the picture").click()
    viewer.get_by_text("camera.jpg, ").wait_for()
    view.evaluate(
        """async () => {
            const answer = await fetch("/lsr/examples/game_900000");
            const bitmap = await createImageBitmap(await answer.blob());
            const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
            canvas.getContext("2d").drawImage(bitmap, 0, 0);
            const data = new DataTransfer();
            data.items.add(new File([await canvas.convertToBlob()], "pasted.png", {type: "image/png"}));
            document.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}));
        }"""
    )
    viewer.get_by_text("pasted.png").wait_for()
    assert "512 × 256" in viewer.inner_text()


def test_another_model_is_taken_without_a_restart(visits: Visits, street: Path) -> None:
    view = visits()
    send(view, "picture-drop", street)
    viewer = view.locator("#picture-viewer lsr-viewer")
    viewer.get_by_text("toytown_source.onnx").wait_for()
    choose(view, "On the left", "Nothing: show the original")
    viewer.get_by_text("toytown_source.onnx").wait_for(state="detached")
    viewer.get_by_text("toytown_adapted.onnx").wait_for()
    assert re.search(r"toytown_adapted.onnx, \d+ ms on cpu", viewer.inner_text())


def test_a_video_plays_and_its_chart_follows(visits: Visits, clip_of: Callable[[int], Path], tmp_path: Path) -> None:
    view = visits()
    tab(view, "Video")
    send(view, "video-drop", clip_of(120))
    player = view.locator("#video-player lsr-player")
    player.locator("lsr-chart").wait_for()
    video = player.locator("video")
    assert video.evaluate("it => [it.videoWidth, it.videoHeight]") == [2 * 512 + 4, 256]
    player.get_by_role("button", name="Play").click()
    view.wait_for_function("document.querySelector('#video-player video').currentTime > 0.5")
    player.get_by_role("button", name="Pause").click()
    assert not video.evaluate("it => it.error")
    for mode in ("Side by side", "Left", "Right", "Slider"):
        player.get_by_role("radio", name=mode).check()
    player.locator("lsr-chart svg, lsr-chart canvas").first.hover()
    assert "road" in player.inner_text()
    saved: dict[str, Path] = {}
    for link in player.locator("a[download]").all():
        with saving(view, tmp_path, saved):
            link.click()
    assert sorted(saved) == ["drive_120_classes.csv", "drive_120_masks.zip", "drive_120_segmented.mp4"]


def long_video(visits: Visits, clip: Path) -> tuple[Any, Any]:
    """Send a video of 299 frames; return the page and its player once some of them are done."""
    view = visits(expected=(404,))
    tab(view, "Video")
    send(view, "video-drop", clip)
    player = view.locator("#video-player lsr-player")
    player.get_by_text(re.compile(r"\d+ of 299 frames")).first.wait_for()
    return view, player


def test_a_long_video_begins_to_play_and_can_be_stopped(visits: Visits, clip_of: Callable[[int], Path]) -> None:
    view, player = long_video(visits, clip_of(299))
    view.wait_for_function("document.querySelector('#video-player video')?.currentTime > 0")
    assert re.search(r"\d+ of 299 frames", player.inner_text())  # it is computed still
    player.get_by_role("button", name="Cancel").click()
    player.get_by_text("Cancelled. Nothing of it was kept.").wait_for()
    assert not player.locator("lsr-chart").count()


def test_a_clip_of_the_package_is_at_hand(visits: Visits) -> None:
    view = visits()
    tab(view, "Video")
    example = view.locator("#video-drop").get_by_role("button", name="A drive through Toytown, camera")
    # HAVE_CURRENT_DATA: its first frame is there to be shown.
    view.wait_for_function("document.querySelector('#video-drop .lsr-example video').readyState >= 2")
    example.click()
    player = view.locator("#video-player lsr-player")
    player.locator("lsr-chart").wait_for()
    player.get_by_text("96 frames, 12 a second, 8 s").wait_for()


def test_a_later_video_takes_the_place_of_an_earlier_one(visits: Visits, clip_of: Callable[[int], Path]) -> None:
    view, player = long_video(visits, clip_of(299))
    view.evaluate(
        "it => { window.seen = []; new MutationObserver(() => window.seen.push(it.innerText)).observe(it,"
        " {childList: true, subtree: true}); }",
        player.element_handle(),
    )
    send(view, "video-drop", clip_of(30))
    player.get_by_text("drive_30.mp4, 512").wait_for()
    player.locator("lsr-chart").wait_for()
    texts = view.evaluate("window.seen")
    later = next(number for number, text in enumerate(texts) if "of 30 frames" in text or "drive_30" in text)
    assert not any("of 299 frames" in text for text in texts[later:])


@pytest.mark.parametrize("seconds", [0.3, 1.0, 1.8])
def test_a_clip_begun_again_says_nothing_of_the_first(
    visits: Visits, clip_of: Callable[[int], Path], seconds: float
) -> None:
    view, player = long_video(visits, clip_of(299))
    view.wait_for_timeout(1000 * seconds)
    send(view, "video-drop", clip_of(100))
    player.get_by_text(re.compile(r"\d+ of 100 frames")).wait_for()
    assert not player.get_by_text("The preview stopped").count()
    player.locator("lsr-chart").wait_for()
    assert not player.get_by_text("The preview stopped").count()


def test_what_is_computed_and_what_went_wrong_is_scrolled_to(visits: Visits, clip_of: Callable[[int], Path]) -> None:
    view, player = long_video(visits, clip_of(299))
    cancel = player.get_by_role("button", name="Cancel")
    cancel.wait_for()
    view.wait_for_function("it => it.getBoundingClientRect().bottom < innerHeight", arg=cancel.element_handle())
    cancel.click()
    player.get_by_text("Cancelled").wait_for()
    view.evaluate("scrollTo(0, 0)")
    send(view, "video-drop", FRAMES / "camera_900001.jpg")
    text = player.get_by_text("camera_900001.jpg is a picture, not a video. Send it on the tab Picture.")
    text.wait_for()
    view.wait_for_function("it => it.getBoundingClientRect().bottom < innerHeight", arg=text.element_handle())


def test_an_open_page_finds_its_server_again(chromium: Any, tmp_path: Path, clip_of: Callable[[int], Path]) -> None:
    context = chromium.new_context()
    view = context.new_page()
    view.set_default_timeout(WAIT)
    with running_page(tmp_path) as page:
        view.goto(page.address)
        view.locator("#picture-drop input[type=file]").wait_for(state="attached")
        tab(view, "Video")
        send(view, "video-drop", clip_of(299))
        view.locator("#video-player").get_by_text(re.compile(r"\d+ of 299 frames")).wait_for()
        view.evaluate("window.asItWas = true")
    view.get_by_text("The server does not answer.").wait_for()
    with running_page(tmp_path, "--port", page.address.rsplit(":", 1)[1]):
        view.wait_for_function("window.asItWas === undefined")
        view.locator("#picture-drop").get_by_role("button", name="Toytown, camera 2").click()
        view.locator("#picture-viewer canvas").first.wait_for()
        context.close()


def test_two_models_compared(visits: Visits) -> None:
    view = visits()
    tab(view, "Compare")
    view.locator("#compare-drop").get_by_role("button", name="Toytown, camera 3").click()
    viewer = view.locator("#compare-viewer lsr-viewer")
    viewer.locator("canvas").first.wait_for()
    viewer.locator("input[value=difference]").check()
    assert re.search(r"Both agree on \d+ % of the picture", viewer.inner_text())
    assert len(re.findall(r"\d+ ms on cpu", viewer.inner_text())) == 2
    table = view.locator("#compare-table")
    assert "99.43 % of the pixels" in table.inner_text()
    assert "cpu, onnxruntime" in table.inner_text()


def test_the_camera_stream_shows_classes(visits: Visits) -> None:
    view = visits()
    tab(view, "Video")
    view.get_by_role("button", name="Camera stream").click()
    live = view.locator("#camera lsr-live")
    live.get_by_role("button", name="Start the camera").click()
    live.get_by_text(re.compile(r"frames/s")).first.wait_for()
    names = Segmenter(shipped_models()[1]).label_space.names
    assert any(name in live.inner_text() for name in names)
    live.get_by_role("button", name="Stop").click()
    live.get_by_role("button", name="Start the camera").wait_for()


def test_models_and_lines_for_programs_are_shown(visits: Visits, page: Page) -> None:
    view = visits()
    tab(view, "Models")
    listed = view.locator("#model-table")
    assert listed.locator("article").count() == 2
    view.get_by_role("button", name="Look into the folder again").click()
    assert "toytown_adapted.onnx" in listed.inner_text()
    tab(view, "API")
    view.get_by_text(f'client = Client("{page.address}")').wait_for()


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("notes.txt.jpg", b"no picture", "is no image"),
        ("empty.jpg", b"", "is empty"),
        (
            "drive.jpg",
            b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00",
            "drive.jpg is a video, no image. Send another file.",
        ),
        ("half.png", b"\x89PNG\r\n\x1a\n\x00\x00", "is truncated"),
        ("<img src=x onerror=alert(1)>.jpg", b"no picture", "is no image"),
    ],
)
def test_a_bad_picture_gets_a_sentence(
    visits: Visits, tmp_path: Path, name: str, content: bytes, sentence: str
) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    view = visits(expected=(422,))
    send(view, "picture-drop", file)
    view.locator("#picture").or_(view.locator("body")).get_by_text(sentence).first.wait_for()
    assert view.locator("img[src=x]").count() == 0
    view.locator("#picture-drop").get_by_role("button", name="Toytown, camera 2").click()
    view.locator("#picture-viewer canvas").first.wait_for()  # and the page goes on


@pytest.mark.slow
def test_every_damaged_or_hostile_file_through_the_page(
    visits: Visits, page: Page, shared: Callable[[str], Path]
) -> None:
    """Each ends in a result or in a sentence with what to do, and none stops the next."""
    folder = shared("data/badmedia")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix not in (".md", ".tsv")]
    assert len(files) > 100
    view = visits(expected=(413, 422))
    refused = 0
    for place, moving in (("picture", False), ("video", True)):
        tab(view, place.capitalize())
        shown = view.locator(f"#{place}-viewer lsr-viewer" if not moving else "#video-player lsr-player")
        drop = view.locator(f"#{place}-drop lsr-drop")
        for path in (one for one in files if (one.suffix.lower() in MOVING) == moving):
            both = [shown.element_handle(), drop.element_handle()]
            view.evaluate(FORGET, both)
            send(view, f"{place}-drop", path)
            view.wait_for_function(ENDED, arg=both)
            state = shown.evaluate("it => it.data")
            if not state or state["state"] == "error":
                refused += 1
                sentence = state["text"] if state else drop.get_by_role("alert").inner_text().strip()
                assert sentence.endswith("."), (path, sentence)
                assert "server" not in sentence, (path, sentence)
    assert refused > 50
    assert page.ask("/lsr/health").status == 200


@pytest.mark.parametrize("width", [1280, 390])
def test_a_page_that_was_given_nothing_says_what_to_do(visits: Visits, width: int) -> None:
    view = visits(width)
    for name, place, sentence in (
        ("Picture", "picture-viewer", "Give a picture"),
        ("Video", "video-player", "Give a video"),
        ("Compare", "compare-viewer", "Give a picture"),
    ):
        tab(view, name)
        view.locator(f"#{place}").get_by_text(sentence).wait_for()
        assert view.locator(f"#{place} [role=progressbar]").count() == 0, name
        assert "undefined" not in view.locator("body").inner_text(), name


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overflows_and_texts_can_be_read(visits: Visits, street: Path, width: int, dark: bool) -> None:
    view = visits(width, dark=dark)
    send(view, "picture-drop", street)
    view.locator("#picture-viewer canvas").first.wait_for()
    for name in ("Picture", "Video", "Compare", "Models", "API"):
        tab(view, name)
        assert view.evaluate("document.documentElement.scrollWidth") <= width, name
        assert view.evaluate(CONTRASTS) == [], name
    grey = "#555" if dark else "#888"  # the check must see one that is too weak
    view.evaluate("grey => { document.querySelector('#foot p').style.color = grey; }", grey)
    assert len(view.evaluate(CONTRASTS)) == 1


CONTRASTS = """() => {
  const box = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const parse = (text) => {
    box.clearRect(0, 0, 1, 1); box.fillStyle = text; box.fillRect(0, 0, 1, 1);
    return [...box.getImageData(0, 0, 1, 1).data];
  };
  const linear = (v) => (v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (style.backgroundImage !== "none") return null;
      const color = parse(style.backgroundColor);
      if (color[3] === 255) return color;
      if (color[3] > 0) return null;
    }
    return [255, 255, 255, 255];
  };
  const poor = [];
  let measured = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim(), element = walker.currentNode.parentElement;
    if (!text || !element.checkVisibility()) continue;
    if (element.closest("canvas, [disabled], .lsr-visually-hidden, script, style")) continue;
    const behind = ground(element);
    if (!behind) continue;
    measured += 1;
    const [a, b] = [light(parse(getComputedStyle(element).color)), light(behind)].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(`${text.slice(0, 40)}: ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
  }
  return measured < 10 ? [`only ${measured} texts could be measured`] : poor;
}"""
