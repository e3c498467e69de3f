"""Takes the pictures of the demo page for the documents, in a real Chromium: `make page-pictures`.

The page runs with the shipped networks, so that the pictures show nothing that a reader cannot try.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.demo.conftest import CHROMIUM, CHROMIUM_OPTIONS, running_page
from tests.demo.test_browser import SIZES, open_tab, send, show_picture

DOCS = Path(__file__).resolve().parent
FRAME = DOCS.parent / "lsr_infer/models/street/images/udacity_test_video_004.jpg"


def main() -> int:
    """Write page_picture.png, page_picture_narrow.png and page_video.png beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, help="a video for the second picture; without one the package's")
    parser.add_argument("--temporary", type=Path, required=True, help="an empty folder for the page's files")
    options = parser.parse_args()
    with running_page(options.temporary) as page, sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        picture(browser, page.address, "wide", "page_picture.png")
        picture(browser, page.address, "narrow", "page_picture_narrow.png")
        video(browser, page.address, options.clip)
        browser.close()
    return 0


def opened(browser: Any, address: str, size: str) -> Any:
    """Open the page at one of the sizes at which it is tested."""
    viewport = dict(zip(("width", "height"), SIZES[size], strict=True))
    view = browser.new_context(viewport=viewport, color_scheme="light").new_page()
    view.goto(address)
    view.locator("#picture-input input[type=file]").first.wait_for(state="attached")
    return view


def picture(browser: Any, address: str, size: str, name: str) -> None:
    """Show a picture before and after, and what both networks say of a place in its tree."""
    view = opened(browser, address, size)
    show_picture(view, FRAME)
    shown = view.locator("#picture-input img").first
    area = shown.bounding_box()
    shown.click(position={"x": 0.3 * area["width"], "y": 0.3 * area["height"]})
    view.locator("#point").get_by_text("after:").wait_for()
    view.evaluate("scrollTo(0, 0)")
    view.wait_for_timeout(1500)
    view.screenshot(path=DOCS / name)


def video(browser: Any, address: str, clip: Path | None) -> None:
    """Show a clip with the shares of its classes."""
    view = opened(browser, address, "wide")
    open_tab(view, "Video")
    if clip is None:
        view.locator("#video-input-examples button").first.click()
    else:
        send(view, "video-input", clip)
    view.locator("#video-facts").get_by_text("frames in").wait_for(timeout=300_000)
    view.locator("#plot svg").wait_for()
    view.wait_for_timeout(2500)
    view.screenshot(path=DOCS / "page_video.png")


if __name__ == "__main__":
    sys.exit(main())
