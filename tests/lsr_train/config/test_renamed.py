"""An old name or value works and is answered by one warning; a field that is gone is dropped or refused."""

import logging
from pathlib import Path

import pytest
import yaml

from lsr_infer.errors import InputError, UsageError
from lsr_train.commands import dispatch
from lsr_train.comparison.spec import read_comparison
from lsr_train.config import renamed
from lsr_train.config.command_line import resolve
from lsr_train.config.fields import field_of
from lsr_train.config.recipes import config_from_text, to_yaml
from lsr_train.config.renamed import current_argv, current_document
from lsr_train.config.run import Config


@pytest.fixture(autouse=True)
def tables(monkeypatch: pytest.MonkeyPatch) -> None:
    """A renamed value, two fields that are gone, and a renamed option."""
    monkeypatch.setattr(renamed, "RENAMED_VALUES", {("selection.signal", "mirror"): "flip"})
    monkeypatch.setattr(renamed, "REMOVED", {"optim.nesterov": (False,), "kernel.name": ("l2", "none")})
    monkeypatch.setattr(renamed, "RENAMED_OPTIONS", {("ablate", "row"): "run"})


@pytest.mark.parametrize(
    ("argv", "now"),
    [
        (["--source_stage.selection.signal", "mirror", "-x"], ["--source_stage.selection.signal=flip", "-x"]),
        (["--selection.signal=mirror"], ["--selection.signal=flip"]),
        (["--optim.nesterov", "false", "--seed", "1"], ["--seed", "1"]),
        (["--kernel.name=none"], []),
        (["--sweep", "selection.signal=mirror,scale"], ["--sweep=selection.signal=flip,scale"]),
        (["--row", "lsr"], ["--run", "lsr"]),
        (
            ["selection.signal", "--seed=mirror", "--", "--sweep"],
            ["selection.signal", "--seed=mirror", "--", "--sweep"],
        ),
    ],
)
def test_an_old_word_becomes_the_new_one(argv: list[str], now: list[str]) -> None:
    assert current_argv("ablate", argv) == now
    assert current_argv("ablate", now) == now


@pytest.mark.parametrize("argv", [["--optim.nesterov", "true"], ["--kernel.name=l1"], ["--sweep", "kernel.name=l2"]])
def test_a_field_that_is_gone_is_refused_at_a_value_that_meant_something(argv: list[str]) -> None:
    with pytest.raises(UsageError, match=r"(optim\.nesterov|kernel\.name).*\. Leave it out") as caught:
        current_argv("ablate", argv)
    assert "only an earlier version had" in str(caught.value).lower()
    assert len(str(caught.value).splitlines()) == 1


def test_one_warning_names_the_new_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "old.yaml").write_text("selection: {signal: mirror}\n")
    resolve("pretrain", current_argv("pretrain", ["--recipe", str(tmp_path / "old.yaml")]), None)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        f"{tmp_path}/old.yaml: selection.signal mirror is now called flip; the old name will go in a later version."
    ]


def test_a_recipe_with_old_names_is_read(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text("optim: {lr: 0.5, nesterov: false}\nselection: {signal: mirror}\nkernel: {name: l2}\n")
    request = resolve("pretrain", ["--recipe", str(file)], None)
    assert (request.config.optim.lr, request.config.selection.signal) == (0.5, "flip")
    assert request.stated >= {"optim.lr", "selection.signal"}


def test_a_comparison_with_old_names_is_read(tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(
        "source: toytown_source\nbase: toytown_lsr\nevaluate: {layout: toytown-camera}\n"
        "rows: {mine: {method: lsr, set: {optim.lr: 0.5, selection.signal: mirror, kernel.name: l2}}}\n"
    )
    (run,) = read_comparison(str(file)).runs
    assert run.set == {"optim.lr": 0.5, "selection.signal": "flip"}


def test_a_document_is_not_changed_and_nonsense_comes_back() -> None:
    document = {"selection": {"signal": "mirror"}, "kernel": {"name": "l2"}}
    assert current_document(document, "") == {"selection": {"signal": "flip"}}
    assert document == {"selection": {"signal": "mirror"}, "kernel": {"name": "l2"}}
    for nonsense in (None, 3, [1], {"optim": 3}, {"selection": 3, "kernel": []}):
        assert current_document(nonsense, "") == nonsense


def old_text(**changes: object) -> str:
    """Return a config.yaml as version 0.1.0 would have written it, with the names of this module's tables."""
    document = yaml.safe_load(to_yaml(Config()))
    document["selection"]["signal"] = "mirror"
    document["kernel"] = {"name": "l2"}
    document["log"] = document.pop("log")
    for name, value in changes.items():
        section, _, field = name.partition("_")
        document[section][field] = value
    return yaml.safe_dump(document, sort_keys=False)


def test_an_old_run_goes_on_where_nothing_special_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    assert config_from_text(old_text(), "config.yaml") == Config()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    with pytest.raises(InputError, match=r"config\.yaml: kernel\.name is l1\. Only an earlier .*again\.$") as caught:
        config_from_text(old_text(kernel_name="l1"), "config.yaml")
    assert len(str(caught.value).splitlines()) == 1
    assert config_from_text(old_text(kernel_name="l1"), "config.yaml", lenient=True) == Config()


def test_a_field_that_an_old_run_lacks_has_its_default() -> None:
    document = yaml.safe_load(old_text())
    del document["optim"]["clip_norm"], document["latent"]
    assert config_from_text(yaml.safe_dump(document, sort_keys=False), "config.yaml") == Config()


@pytest.mark.parametrize("text", [to_yaml(Config()), old_text()], ids=["now", "0.1.0"])
def test_a_configuration_that_breaks_off_is_refused(text: str) -> None:
    lines = text.splitlines(keepends=True)
    for kept in range(4, len(lines)):
        with pytest.raises(InputError, match=r"breaks off|no configuration"):
            config_from_text("".join(lines[:kept]), "config.yaml")


def test_a_configuration_of_a_later_version_is_refused() -> None:
    text = to_yaml(Config()).replace("format 2", "format 3")
    with pytest.raises(InputError, match="a later version"):
        config_from_text(text, "config.yaml")


def test_the_command_line_passes_through(capsys: pytest.CaptureFixture[str]) -> None:
    assert dispatch.run(["pretrain", "--selection.signal", "mirror", "--print_config"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["selection"]["signal"] == "flip"


def test_the_real_tables_name_fields_that_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    for field, _ in renamed.RENAMED_VALUES:
        field_of(Config(), field)
    for gone in renamed.REMOVED:
        with pytest.raises(AttributeError):
            field_of(Config(), gone)
