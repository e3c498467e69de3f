"""How a command ends."""

import importlib
import sys

import pytest

from lsr_infer.errors import DeviceError, exit_status


@pytest.mark.parametrize(
    ("package", "needs", "advice"),
    [
        ("yaml", "export", "Install lsr-road[export] "), ("yaml", "", "Install it. "),
        ("sklearn", "train", "Install lsr-road[analysis] "), ("optuna", "train", "Install lsr-road[analysis] "),
    ],
)  # fmt: skip
def test_a_package_that_is_not_installed_is_told_in_one_line(
    package: str, needs: str, advice: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert exit_status(lambda: importlib.import_module(package) and None, needs=needs) == DeviceError.exit_code
    error = capsys.readouterr().err
    assert error.startswith(f"error: {package} is not installed in this Python ({sys.prefix}). {advice}")
    assert error.count("\n") == 1


def test_a_missing_module_of_ours_is_a_fault_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert exit_status(lambda: importlib.import_module("lsr_infer.nothing") and None) == 1
    assert "Traceback" in capsys.readouterr().err
