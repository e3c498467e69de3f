"""`report` on tiny Toytown runs, and the page in a real browser."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from lsr_infer.errors import exit_status
from lsr_train.commands import dispatch
from lsr_train.comparison.document import comparison_document
from lsr_train.comparison.matrix import ScoredRun, last_checkpoint
from lsr_train.comparison.spec import ComparisonSpec, RunSpec
from lsr_train.runs.folder import RunFolder
from tests.lsr_train.training_runs import run_here, words
from tests.silence import listening

DATA = ["--layout", "toytown-camera", "--split", "val", "--limit", "3", "--threads", "1", "--per_class", "20"]
CHROMIUM = next((path for path in ("/usr/bin/chromium", "/usr/bin/google-chrome") if Path(path).is_file()), None)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    assert run_here("pretrain", words("toytown_source", folder / "source")) == 0
    more = ["--init", str(folder / "source"), "--log.gradients", "2"]
    assert run_here("adapt", words("toytown_lsr_em", folder / "adapted", *more)) == 0
    (folder / "table").mkdir()
    entry = {"seed": 0, "method": "lsr", "steps": 6, "state": "diverged", "why": "not finite"}
    row = {"row": "wild", "seeds": [entry], "mean": None, "spread": None}
    document = {
        "kind": "comparison", "format": 1, "name": "pair", "protocol": None, "data": None, "label_space": None,
        "rows": [row], "published": {"source": "", "miou": {}}, "left_out": [],
    }  # fmt: skip
    (folder / "table/table.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def run(arguments: list[str]) -> int:
    return exit_status(lambda: dispatch.report(arguments))


@pytest.fixture(scope="module")
def scored(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of both runs as `compare` leaves it: results, networks, and how they were scored."""
    folder = tmp_path_factory.mktemp("scored") / "pair"
    entries = []
    for name, place in (("source-only", "source-stage"), ("lsr-em", "lsr-em")):
        run_folder = folder / place / "seed-0"
        shutil.copytree(runs / ("source" if name == "source-only" else "adapted"), run_folder)
        result = folder / name / "seed-0.json"
        result.parent.mkdir(exist_ok=True)
        model = last_checkpoint(run_folder)
        words = [str(model), *DATA[:6], "--threads", "1", "--device", "cpu", "--out", str(result)]
        assert exit_status(lambda words=words: dispatch.evaluate(words)) == 0  # type: ignore[misc]
        spec = RunSpec(name=name)
        entries.append(ScoredRun(run=spec, seed=0, training=None, start=None, model=model, result=result))
    spec = ComparisonSpec(name="pair", source="s", base="b", evaluate={}, runs=tuple(item.run for item in entries))
    document = comparison_document(spec, entries, [], {})
    (folder / "table.json").write_text(json.dumps(document), encoding="utf-8")
    (folder / "comparison.json").write_text(json.dumps({"evaluate": DATA[:6], "target": []}), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def table_page(scored: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of a table alone."""
    file = tmp_path_factory.mktemp("page") / "table.html"
    with listening() as heard:
        assert run([str(scored), "--threads", "1", "--per_class", "20", "--worst", "2", "--out", str(file)]) == 0
    assert heard.found == []
    return file


def test_a_table_has_a_headline_and_pictures_of_its_first_and_its_best_network(table_page: Path) -> None:
    text = table_page.read_text(encoding="utf-8")
    found = re.search(r'<p class="headline">lsr-em is .* source-only .*Most changed: .+\.</p>', text)
    assert found is not None
    assert found.start() < text.index("<nav>")
    assert '<section id="table-0-worst">' in text
    assert '<section id="table-0-figures">' in text
    assert text.count('class="compare"') == 2
    assert text.count('class="legend"') == 2
    assert re.search(r"<figcaption>.*: mIoU source-only [\d.]+ %, lsr-em [\d.]+ %</figcaption>", text)
    assert "Labelled frames that a table was scored on were used for pictures." in text
    assert "subset 13: 13 of the 19 classes, " in text


def test_a_table_without_its_networks_has_no_pictures_and_says_so(scored: Path, tmp_path: Path) -> None:
    shutil.copytree(scored, tmp_path / "moved", ignore=shutil.ignore_patterns("seed-0"))
    file = tmp_path / "report.html"
    assert run([str(tmp_path / "moved"), "--out", str(file)]) == 0
    text = file.read_text(encoding="utf-8")
    assert "No pictures: none of its runs lies in moved, beside the table." in text
    assert "No labelled frame was used." in text


def test_pictures_that_cannot_be_made_are_named_and_the_table_stays(scored: Path, tmp_path: Path) -> None:
    shutil.copytree(scored, tmp_path / "other")
    (tmp_path / "other/comparison.json").write_text('{"evaluate": ["--data", "/nowhere"]}', encoding="utf-8")
    file = tmp_path / "report.html"
    assert run([str(tmp_path / "other"), "--out", str(file)]) == 6
    text = file.read_text(encoding="utf-8")
    assert "other, its pictures: /nowhere" in text
    assert '<section id="table-0">' in text


@pytest.fixture(scope="module")
def page(runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two runs, a table and a folder that is none of both."""
    (runs / "holiday").mkdir()
    named = [f"before={runs / 'source'}", f"after={runs / 'adapted'}", str(runs / "table"), str(runs / "holiday")]
    file = tmp_path_factory.mktemp("page") / "report.html"
    assert run([*named, *DATA, "--worst", "2", "--out", str(file)]) == 6
    return file


def test_everything_is_in_the_page_and_nothing_outside_it(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(text.encode()) < 8e6
    for address in ("runs", "curves", "scores", "worst", "figures", "configuration", "environment", "table-0"):
        assert f'<section id="{address}">' in text
    for shown in ("source-only", "lsr-em", "finished, step 6 of 6", "torch 2.", "toytown-camera val", "1 diverged"):
        assert shown in text
    assert "holiday: this is no run" in text
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", text)
    assert "url(" not in text


def test_the_page_begins_with_how_much_better_the_last_network_is(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = re.search(
        r'<p class="headline">after is (?:([\d.]+) points (better|worse) than|as good as) before '
        r"\(mIoU ([\d.]+) % and ([\d.]+) %\)\. Most changed: (.+)\.</p>", text
    )  # fmt: skip
    assert found is not None
    assert found.start() < text.index("<nav>")
    gain = float(found[3]) - float(found[4])
    assert abs(gain) == pytest.approx(float(found[1] or 0), abs=0.11)
    assert found[2] == (None if found[1] is None else "better" if gain > 0 else "worse")
    changes = [abs(float(part.rsplit(" ", 1)[1])) for part in found[5].split(", ")]
    assert changes == sorted(changes, reverse=True)
    assert 1 <= len(changes) <= 4
    assert changes[-1] > 0


def test_a_run_says_what_it_was_computed_with(runs: Path) -> None:
    (entry,) = RunFolder(runs / "adapted").environments()
    assert entry["step"] == 0
    assert entry["threads"] == 1
    assert entry["packages"]["torch"]
    assert re.fullmatch(r"[0-9a-f]{40}\+?", entry["commit"] or "0" * 40)


def test_without_data_the_page_shows_what_was_logged(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    assert run([str(runs / "adapted"), "--out", str(file)]) == 0
    text = file.read_text(encoding="utf-8")
    assert "No labelled frame was used." in text
    assert 'id="scores"' not in text
    assert "Gradient norms" in text
    assert run([str(runs / "adapted"), "--out", str(file)]) == 2  # it is there
    assert run([str(runs / "adapted"), "--out", str(file), "--overwrite"]) == 0


def test_names_are_text(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    assert run([f"<img src=x onerror=alert(1)>={runs / 'adapted'}", "--out", str(file)]) == 4  # `=` ends the name
    assert run([f"<b>bold<b>={runs / 'adapted'}", "--out", str(file)]) == 0
    assert "<b>bold<b>" not in file.read_text(encoding="utf-8")


def spoil_config(run_folder: Path) -> None:
    (run_folder / "config.yaml").write_bytes(b"\xff\x00")


def spoil_status(run_folder: Path) -> None:
    (run_folder / "status.json").write_text("{", encoding="utf-8")


def spoil_table(run_folder: Path) -> None:
    (run_folder / "table.json").write_text('{"rows": 3}', encoding="utf-8")


def spoil_gradients(run_folder: Path) -> None:
    (run_folder / "gradients.csv").write_bytes(b"step,a\n\xff\xfe,1\n")


def test_a_device_that_is_not_there(runs: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert run([str(runs / "adapted"), *DATA, "--device", "cuda", "--out", str(tmp_path / "a.html")]) == 3


@pytest.mark.parametrize("spoil", [spoil_config, spoil_status, spoil_table, spoil_gradients])
def test_a_damaged_run_is_named_and_left_out(runs: Path, tmp_path: Path, spoil: Any) -> None:
    shutil.copytree(runs / "adapted", tmp_path / "damaged")
    spoil(tmp_path / "damaged")
    file = tmp_path / "report.html"
    assert run([str(runs / "source"), str(tmp_path / "damaged"), "--out", str(file)]) == 6
    assert "damaged: " in file.read_text(encoding="utf-8")
    assert run([str(tmp_path / "damaged"), "--out", str(tmp_path / "none.html")]) == 4
    assert not (tmp_path / "none.html").exists()


def test_a_damaged_network_leaves_the_rest_of_its_run(runs: Path, tmp_path: Path) -> None:
    shutil.copytree(runs / "adapted", tmp_path / "damaged")
    for file in (tmp_path / "damaged/checkpoints").glob("*/model.safetensors"):
        file.write_bytes(b"short")
    page = tmp_path / "report.html"
    assert run([str(runs / "source"), str(tmp_path / "damaged"), *DATA, "--worst", "1", "--out", str(page)]) == 6
    text = page.read_text(encoding="utf-8")
    assert "damaged, its network: " in text
    assert "lsr-em" in text


def test_what_is_wrong_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--out", str(tmp_path / "a.html")]) == 2
    assert "no run is named" in capsys.readouterr().err
    assert run(["x", "--worst", "99"]) == 2
    assert "Set --worst" in capsys.readouterr().err


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield opened
        opened.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_it_is_readable_quiet_and_asks_for_nothing(page: Path, browser: Any, width: int) -> None:
    view = browser.new_page(viewport={"width": width, "height": 900})
    messages: list[str] = []
    asked: list[str] = []
    view.on("console", lambda message: messages.append(message.text))
    view.on("pageerror", lambda error: messages.append(str(error)))
    view.on("request", lambda request: asked.append(request.url))
    view.goto(page.as_uri())
    view.wait_for_load_state("networkidle")
    assert messages == []
    assert [url for url in asked if not url.startswith("data:")] == [page.as_uri()]
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    broken = (
        "[...document.images].filter(image => getComputedStyle(image).display != 'none' && !image.naturalWidth).length"
    )
    assert view.evaluate(broken) == 0
    compare = view.locator(".compare").first
    assert "road" in compare.locator(".legend").inner_text()
    assert (
        compare.locator(".legend i").first.evaluate("e => getComputedStyle(e).backgroundColor") == "rgb(128, 64, 128)"
    )
    right = compare.locator("img.right")
    assert right.get_attribute("alt").endswith(": after")
    compare.locator(".slider").fill("80")
    assert "80%" in right.evaluate("image => getComputedStyle(image).clipPath")
    compare.locator("select").nth(1).select_option(label="labels")
    assert compare.locator("img.right").get_attribute("alt").endswith(": labels")
    assert compare.locator("img.left").count() == 1
    compare.locator("select").nth(0).select_option(label="labels")  # the same on both sides
    assert compare.locator("img.left").get_attribute("alt").endswith(": labels")
    view.locator("summary").first.click()
    assert view.locator("pre").first.is_visible()
    view.close()


@pytest.mark.parametrize("width", [1280, 390])
def test_a_wide_table_scrolls_under_its_first_column_and_says_so(table_page: Path, browser: Any, width: int) -> None:
    view = browser.new_page(viewport={"width": width, "height": 900})
    view.goto(table_page.as_uri())
    wide = view.locator("#table-0 .wide").nth(1)  # the classes
    hint = wide.locator("xpath=preceding-sibling::p[1]")
    assert "scroll the table sideways" in hint.inner_text()
    assert hint.is_visible()
    wide.scroll_into_view_if_needed()
    place = wide.bounding_box()
    hidden = wide.evaluate("element => element.scrollWidth - element.clientWidth")
    assert hidden > 50
    assert "more" in wide.get_attribute("class")
    wide.evaluate("element => element.scrollLeft = 1e6")
    view.wait_for_function("() => !document.querySelectorAll('#table-0 .wide')[1].classList.contains('more')")
    first, last = wide.locator("tbody tr").first.locator("td").first, wide.locator("thead th").last
    assert first.inner_text() == "source-only"
    name, column = first.bounding_box(), last.bounding_box()
    assert abs(name["x"] - place["x"]) < 2  # it stayed
    assert 50 < name["width"] < 0.5 * place["width"]
    assert column["x"] + column["width"] <= place["x"] + place["width"] + 2  # all of the last column is seen
    over = "([x, y]) => document.elementFromPoint(x, y).innerText"
    assert view.evaluate(over, [name["x"] + 5, name["y"] + name["height"] / 2]) == "source-only"  # nothing covers it
    assert view.evaluate("document.documentElement.scrollWidth") <= width
    small = view.locator("#configuration .wide, #environment .wide, #table-0-worst .wide")
    assert small.count() == 0
    view.close()


def test_the_name_of_a_run_is_shown_as_itself(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    names = ("$x", "_$\\frac{$", "<b>\x1b[31m&amp;", "a\nb\u202e")
    assert run([*(f"{name}={runs / 'adapted'}" for name in names), "--out", str(file)]) == 0
    text = file.read_text(encoding="utf-8")
    for shown in ("$x", "_$\\frac{$", "&lt;b&gt;\\x1b[31m&amp;amp;", "a\\nb\\u202e"):
        assert f'<th scope="col">{shown}</th>' in text
    assert all(line.isprintable() for line in text.split("\n"))
