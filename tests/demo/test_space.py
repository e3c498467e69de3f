"""The folder `demo/` as a Gradio Space: what its head says, and that it runs with nothing beside it but the wheel."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.demo.conftest import REPOSITORY, running_page

DEMO = REPOSITORY / "demo"


def test_the_folder_has_what_a_space_needs() -> None:
    head = yaml.safe_load((DEMO / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert {"title", "emoji", "colorFrom", "colorTo", "sdk_version"} <= head.keys()
    assert (head["sdk"], head["app_file"]) == ("gradio", "app.py")
    assert len(head["short_description"]) <= 60
    wanted = (DEMO / "requirements.txt").read_text(encoding="utf-8").split()
    assert {re.split("[<>=]", name)[0] for name in wanted} == {"gradio", "lsr-road"}


def test_the_readme_names_every_limit() -> None:
    from dataclasses import fields

    from settings import Limits

    text = (DEMO / "README.md").read_text(encoding="utf-8")
    missing = [one.name for one in fields(Limits) if f"--{one.name.replace('_', '-')}" not in text]
    assert missing == ["shown_width"]


@pytest.mark.slow
def test_the_folder_runs_in_a_fresh_environment_with_the_wheel_alone(tmp_path: Path) -> None:
    wheel = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(tmp_path),
        str(REPOSITORY),
    ]
    subprocess.run(wheel, check=True)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    space = Path(shutil.copytree(DEMO, tmp_path / "space", ignore=shutil.ignore_patterns("__pycache__")))
    install = [python, "-m", "pip", "install", "--quiet", "--find-links", str(tmp_path)]
    subprocess.run([*install, "--requirement", str(space / "requirements.txt")], check=True)
    (tmp_path / "own").mkdir()
    with running_page(tmp_path / "own", command=(python, str(space / "app.py"))) as page:
        assert page.status() == 200
        assert len(page.client().predict(api_name="/models")) == 2
    installed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert "torch" not in installed
