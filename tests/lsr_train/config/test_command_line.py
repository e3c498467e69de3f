import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]

from lsr_infer.errors import InputError, LsrError, UsageError
from lsr_train.config.command_line import parse
from lsr_train.config.fields import nearest
from lsr_train.config.recipes import check_keys
from lsr_train.config.run import Config


def config_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="x", allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--recipe", action=ActionConfigFile)
    parser.add_argument("--out", type=str, default="")
    parser.add_class_arguments(Config, as_group=False)
    return parser


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--optim.lrr", "1"], "--optim.lr?"),
        (["--optim.l", "1"], "--optim.lr?"),
        (["--optm.lr=1"], "--optim.lr?"),
        (["--lr", "1"], "--optim.lr?"),
        (["--optim.lr_multipliers.hed", "3"], "--optim.lr_multipliers.head?"),
        (["--Out", "x"], "--out?"),
    ],
)
def test_unknown_flag_names_the_nearest(arguments: list[str], wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted.replace("?", r"\?")) as caught:
        parse(config_parser(), arguments)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["simulator", "drive.mp4"], "'simulator drive.mp4' belongs to no option. Write an option's name before"),
        (["--out", "a", "b"], "'b' belongs to no option"),
        (["-seed", "1"], "there is no option -seed. Did you mean --seed?"),
        (["--data.source.root", "--seed", "1"], "--data.source.root (--source) needs a value after it."),
        (["--out"], "--out needs a value after it."),
        (["--network.backbone", "resnet52"], "Did you mean resnet50?"),
        (["--data.source.layout", "gta"], "Did you mean gta5?"),
    ],
)
def test_a_mistake_is_named_as_it_was_typed_with_what_to_do(arguments: list[str], wanted: str) -> None:
    with pytest.raises(UsageError, match=re.escape(wanted)) as caught:
        parse(config_parser(), arguments)
    assert "\n" not in str(caught.value)


def test_hopeless_flag_names_nothing() -> None:
    with pytest.raises(UsageError, match="there is no option --qqq") as caught:
        parse(config_parser(), ["--qqq", "1"])
    assert "Did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--optim.lr"], "optim.lr"),
        (["--optim.lr", "abc"], "optim.lr is 'abc'; a number is needed"),
        (["--train.precision", "bf17"], "one of auto, fp32, bf16, fp16"),
        (["--train.channels_last", "maybe"], "true or false"),
        (["word"], "word"),
        (["-x"], "-x"),
        (["--optim", "3"], "optim"),
    ],
)
def test_wrong_values_are_one_line(arguments: list[str], wanted: str) -> None:
    with pytest.raises(UsageError, match=wanted) as caught:
        parse(config_parser(), arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind", "wanted"),
    [
        ("optim:\n  lrr: 1.0e-3\n", UsageError, "no field optim.lrr. Did you mean optim.lr"),
        ("optm:\n  lr: 1.0e-3\n", UsageError, "no field optm. Did you mean optim"),
        ("lr: 1.0e-3\n", UsageError, "Did you mean optim.lr"),
        ("optim:\n  lr_multipliers:\n    hed: 3\n", UsageError, "Did you mean optim.lr_multipliers.head"),
        ("optim: 3\n", UsageError, "optim holds '3'"),
        ("optim:\n", UsageError, "optim holds 'None'"),
        ("- a\n- b\n", UsageError, "no mapping"),
        ("", UsageError, "no mapping"),
        ("optim:\n  lr: abc\n", UsageError, "optim.lr is 'abc'"),
        ("network:\n  dilations: [6, x]\n", UsageError, "network.dilations"),
        ("optim: [1,\n", InputError, "no plain YAML"),
        ("!!python/object/apply:os.system ['true']\n", InputError, "no plain YAML"),
        ("optim: &a\n  lr: *b\n", InputError, "no plain YAML"),
        ("a: &a\n  b: *a\n", InputError, "within what it repeats"),
    ],
)
def test_bad_recipe(tmp_path: Path, text: str, kind: type[LsrError], wanted: str) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(text)
    with pytest.raises(kind, match=wanted) as caught:
        parse(config_parser(), ["--recipe", str(recipe)])
    assert "\n" not in str(caught.value)


def test_recipe_that_is_no_text_or_not_there(tmp_path: Path) -> None:
    binary = tmp_path / "r.yaml"
    binary.write_bytes(b"\xff\xfe\x00\x80")
    for path in (binary, tmp_path, tmp_path / "none.yaml"):
        with pytest.raises(InputError, match="cannot be read"):
            parse(config_parser(), [f"--recipe={path}"])


def test_good_words_pass(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("optim:\n  lr: 1.0e-3\n")
    namespace = parse(config_parser(), ["--recipe", str(recipe), "--optim.momentum", "0.5", "--seed=3"])
    assert (namespace.optim.lr, namespace.optim.momentum, namespace.seed) == (1e-3, 0.5, 3)


@pytest.mark.parametrize("name", ["lr", "optim.l", "optim.rl", "oprim.lr"])
def test_nearest(name: str) -> None:
    assert nearest(name, ["optim.lr", "optim.momentum", "log.every", "train.steps"]) == "optim.lr"


def test_nearest_of_nothing() -> None:
    assert nearest("a", []) is None


@settings(deadline=None, max_examples=60)
@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=8))  # fmt: skip
def test_noise_is_a_usage_error_or_fine(document: object) -> None:
    try:
        check_keys(document, ["a.b", "a.c.d", "e"], "noise")
    except UsageError:
        return
    assert isinstance(document, dict)
