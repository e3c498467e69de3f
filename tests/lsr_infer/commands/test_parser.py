"""Help of one screen, its sections, and what a mistyped option is told."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lsr_infer.commands.parser import ArgumentParser
from lsr_infer.errors import UsageError

ROOT = Path(__file__).resolve().parents[3]
INFER = ["-c", "import sys; from lsr_infer.cli import main; sys.exit(main())"]
EXPORT = [[name] for name in ("export/to_onnx.py", "export/to_trt.py") if (ROOT / name).is_file()]  # not in the wheel
COMMANDS = [INFER, [*INFER, "info"], [*INFER, "bench"], [*INFER, "serve-config"], *EXPORT]
ONE_SCREEN = 41


def shown(command: list[str], *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *command, "--help", *words], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout


def options(text: str) -> set[str]:
    return set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, flags=re.MULTILINE))


@pytest.mark.parametrize("command", COMMANDS, ids=lambda words: words[-1][-20:])
def test_help_is_one_screen_and_names_where_the_rest_is(command: list[str]) -> None:
    first, everything = shown(command), shown(command, "all")
    assert len(first.splitlines()) <= ONE_SCREEN
    assert "examples:" in first
    assert "Exit codes: 0 done, 2 usage" in first
    assert options(first) - {"--help"} <= options(everything)
    sections = re.findall(r"--help (\w+)[,.]", first.partition("More options: ")[2])
    more = set().union(*(options(shown(command, section)) for section in sections if section != "all"))
    assert options(first) | more == options(everything) | {"--help"}


def parser() -> ArgumentParser:
    made = ArgumentParser("tool", "[options]", "Do something.", examples=("tool --speed 2",), notes="Exit codes: 0.")
    add = made.section("motion")
    add("--speed", type=int, common=True, help="how fast (1)")
    add("--spread", help="how wide")
    made.section("other")("--sound", help="how loud")
    return made


def test_a_section_shows_its_options_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["--help", "motion"])
    text = capsys.readouterr().out
    assert options(text) == {"--speed", "--spread"}
    assert "examples" not in text


def test_the_first_screen_shows_the_common_options_and_help_last() -> None:
    text = parser().format_help()
    assert re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, flags=re.MULTILINE) == ["--speed", "--help"]
    assert text.rstrip().endswith("More options: --help all, or --help motion, --help other.")


def test_an_unknown_section_is_told_the_known_ones() -> None:
    with pytest.raises(UsageError, match="known: motion, other, all"):
        parser().parse_args(["--help", "colour"])


@pytest.mark.parametrize(("typed", "meant"), [("--spede", "--speed"), ("--spraed", "--spread"), ("--hlep", "--help")])
def test_a_mistyped_option_is_told_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(UsageError, match=f"Did you mean {meant}[?]"):
        parser().parse_args([typed, "3"])
