"""The folder `demo/` as a Gradio Space: what its head says, and that it runs with nothing beside it but the wheel."""

import shutil
import subprocess
import sys
import tomllib
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
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wheel = f"./{project['name'].replace('-', '_')}-{project['version']}-py3-none-any.whl"  # never a name for an index
    assert wanted == [*project["optional-dependencies"]["demo"], wheel]


def test_the_readme_names_every_limit() -> None:
    from dataclasses import fields

    from settings import Limits

    text = (DEMO / "README.md").read_text(encoding="utf-8")
    missing = [one.name for one in fields(Limits) if f"--{one.name.replace('_', '-')}" not in text]
    assert missing == ["shown_width"]


@pytest.mark.slow
def test_the_folder_runs_in_a_fresh_environment_with_the_wheel_alone(tmp_path: Path) -> None:
    space = Path(shutil.copytree(DEMO, tmp_path / "space", ignore=shutil.ignore_patterns("__pycache__")))
    wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(space), str(REPOSITORY)]
    subprocess.run(wheel, check=True)
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
    python = str(tmp_path / "venv" / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--requirement", "requirements.txt"]
    subprocess.run(install, check=True, cwd=space)
    (tmp_path / "own").mkdir()
    with running_page(tmp_path / "own", command=(python, str(space / "app.py"))) as page:
        assert page.status() == 200
        assert len(page.client().predict(api_name="/models")) == 2
    installed = subprocess.run([python, "-m", "pip", "list"], capture_output=True, text=True, check=True).stdout
    assert "torch" not in installed
