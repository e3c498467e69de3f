"""Take the README's pictures of the demo page, in a real Chromium: `make page-pictures`.

The page runs with the shipped networks, so that the pictures show nothing that a reader cannot try.
"""

import argparse
import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from tests.demo.conftest import running_page
from tests.demo.test_browser import OPTIONS, send, tab

REPOSITORY = Path(__file__).resolve().parents[1]


def main() -> int:
    """Write docs/page_picture.png and docs/page_video.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clip", type=Path, required=True, help="a video for the second picture")
    parser.add_argument("--temporary", type=Path, required=True, help="an empty folder for the page's files")
    options = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    with running_page(options.temporary) as page, sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=chromium, args=OPTIONS)
        picture(browser, page.address, 1280, "light", "page_picture.png")
        video(browser, page.address, options.clip)
        browser.close()
    return 0


def opened(browser: Any, address: str, width: int, scheme: str) -> Any:
    """Return a page of a browser's own."""
    view = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    view.goto(address)
    view.locator("#picture-drop input[type=file]").wait_for(state="attached")
    return view


def picture(browser: Any, address: str, width: int, scheme: str, name: str) -> None:
    """Show a picture before and after."""
    view = opened(browser, address, width, scheme)
    view.locator("#picture-drop").get_by_role("button", name="Toytown, camera 2").click()
    view.locator("#picture-viewer canvas").first.wait_for()
    view.wait_for_timeout(1500)
    view.locator("#picture-viewer").screenshot(path=REPOSITORY / "docs" / name)


def video(browser: Any, address: str, clip: Path) -> None:
    """Show a clip with its chart."""
    view = opened(browser, address, 1280, "light")
    tab(view, "Video")
    send(view, "video-drop", clip)
    player = view.locator("#video-player")
    player.locator("lsr-chart").wait_for(timeout=300_000)
    player.locator("lsr-chart svg, lsr-chart canvas").first.click()
    view.wait_for_timeout(2000)
    player.screenshot(path=REPOSITORY / "docs" / "page_video.png")


if __name__ == "__main__":
    sys.exit(main())
