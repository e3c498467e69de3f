"""`--method` works with every recipe: what the recipe says and the method does not read falls away, and only that."""

import logging
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from lsr_infer.errors import UsageError
from lsr_train.config.command_line import resolve
from lsr_train.config.fields import field_of, fields_of, with_fields
from lsr_train.config.method_values import fitted, own_weights
from lsr_train.config.recipes import flat, read_document, recipe_names, recipe_path
from lsr_train.config.run import METHOD_SPECS, WEIGHT_NAMES, Config, command_of
from tests.lsr_train.training_runs import REPOSITORY

PLACES = ["--source", "s", "--target", "t"]


@cache
def recipe_config(name: str) -> tuple[Config, dict[str, Any]]:
    """Return what a recipe resolves to, and what it states, without a command line's parser, which takes its time."""
    document = flat(read_document(recipe_path(name)))
    places = {"data.source.root": "s", "data.target.root": "t"}
    return with_fields(
        Config(), document | places | {"network.dilations": tuple(document["network.dilations"])}
    ), document


def with_method(recipe: str, method: str, **values: Any) -> Config:
    """Return what `--recipe RECIPE --method METHOD` and further flags resolve to."""
    config, document = recipe_config(recipe)
    given = {"method": method, **values}
    wanted = dict(fields_of(config)) | given
    return with_fields(config, given | fitted(wanted, document, set(given)))


@pytest.mark.parametrize("method", METHOD_SPECS)
def test_every_method_works_with_every_recipe(method: str) -> None:
    terms = set(METHOD_SPECS[method].weights)
    for recipe in recipe_names():
        config = with_method(recipe, method)
        assert config.method == method
        positive = {name for name in WEIGHT_NAMES if getattr(config.weights, name)}
        assert positive <= terms, f"{recipe}: {positive - terms}"
        assert bool(positive) == bool(terms), f"{recipe}: {method} has no term"


@pytest.mark.parametrize("method", METHOD_SPECS)
def test_the_default_recipe_takes_every_method_on_the_command_line(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        config = resolve(command_of(method), ["--method", method, *PLACES], "selftraining").config
    assert config == with_method("selftraining", method)
    assert ("with the recipe selftraining" in caplog.text) == (method != "lsr-st")
    for name, value in own_weights(method, "cosine").items():
        assert field_of(config, name) == value


def test_kin_keep_the_weights_that_their_recipe_was_written_for() -> None:
    lsr = with_method("gta5_cityscapes_lsr", "lsr")
    assert (lsr.weights.cluster, lsr.weights.norm, lsr.weights.entropy) == (3e-5, 1e-3, 0.0)
    assert lsr.prototypes.init == "zero"
    em = with_method("toytown_lsr", "lsr-em")
    assert (em.weights.cluster, em.weights.entropy) == (1e-4, 0.03)
    plain = with_method("gta5_cityscapes_selftrain", "self-training")
    assert (plain.weights.self_training, plain.weights.cluster, plain.self_training.decay) == (1.0, 0.0, 0.999)
    assert with_method("toytown_lsr", "oce").weights.cluster == 0.02, "another term of the same name"
    assert with_method("selftraining", "lsr").weights.cluster == 3e-5, "of the cosine form, and so of another size"


def test_the_recipes_own_method_changes_nothing() -> None:
    for recipe in recipe_names():
        config, document = recipe_config(recipe)
        assert fitted(dict(fields_of(config)), document, {"method"}) == {}


def test_a_form_of_the_constraints_drops_the_terms_of_the_other() -> None:
    words = ["--recipe", "toytown_lsr_st", "--latent.form", "paper", *PLACES]
    config = resolve("adapt", words, None).config
    assert (config.weights.prototype, config.latent.form) == (0.0, "paper")
    paper = with_method("selftraining", "lsr-st", **{"latent.form": "paper"})
    assert paper.weights.prototype == 0
    changed = with_method("gta5_cityscapes_lsr", "lsr-st", **{"latent.form": "paper"})
    assert (changed.weights.cluster, changed.weights.norm, changed.prototypes.init) == (1e-4, 1e-3, "zero")
    assert with_method("gta5_cityscapes_lsr", "lsr-st").prototypes.init == "first"


def test_images_of_two_sizes_get_the_crop_that_both_have_where_a_method_mixes_them() -> None:
    config = with_method("gta5_cityscapes_lsr", "lsr-st")
    assert (config.augment.crop_height, config.augment.crop_width) == (512, 1024)
    with pytest.raises(UsageError, match="mixes source and target"):
        with_method("gta5_cityscapes_lsr", "lsr-st", **{"augment.crop_height": 0, "augment.crop_width": 0})
    assert with_method("toytown_lsr", "lsr-st").augment.crop_height == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--method", "minent", "--weights.self_training", "0.5"],
            r"weights\.self_training is 0\.5, and method minent",
        ),
        (["--method", "minent", "--strong.hue", "3"], r"strong\.hue is 3\.0, and method minent does not read it"),
        (["--method", "lsr", "--self_training", "{rectify: 0.2}"], r"self_training\.rectify is 0\.2, and method lsr"),
        (["--method", "lsr-st", "--norm.delta", "0.1"], r"norm\.delta is 0\.1, and latent\.form cosine"),
        (["--method", "self-training", "--critic.lr=1e-3"], r"critic\.lr is 0\.001, and method self-training"),
        (["--method", "minent", "--weights.cluster=0.1"], r"weights\.cluster is 0\.1, and method minent"),
    ],
)
def test_what_stands_on_the_command_line_and_is_not_read_is_refused(words: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve("adapt", [*words, *PLACES], "selftraining")


def test_what_stands_on_the_command_line_is_taken() -> None:
    config = resolve("adapt", ["--method", "oce", "--weights.cluster", "0.5", *PLACES], "selftraining").config
    assert (config.weights.cluster, config.weights.orthogonality) == (0.5, 2.0)
    config = resolve("adapt", ["--method", "lsr", "--weights", "{cluster: 0.5}", *PLACES], "selftraining").config
    assert (config.weights.cluster, config.weights.norm) == (0.5, 1e-3), "a section says what it holds"


def test_a_recipe_without_a_method_stands_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    text = "network: {weights: teacher}\nweights: {entropy: 0.7, cluster: 0.2}\nstrong: {hue: 1.0}\n"
    file.write_text(text, encoding="utf-8")
    config = resolve("adapt", ["--recipe", str(file), "--method", "minent", *PLACES], None).config
    assert (config.weights.entropy, config.weights.cluster, config.strong.hue) == (0.7, 0.0, 18.0)
    assert config.network.weights == "imagenet"
    assert resolve("adapt", ["--recipe", str(file), "--method", "oce", *PLACES], None).config.weights.cluster == 0.2
    file.write_text(f"method: minent\n{text}", encoding="utf-8")
    with pytest.raises(UsageError, match="minent"):
        resolve("adapt", ["--recipe", str(file), *PLACES], None)


def test_a_method_of_ones_own_reads_the_whole_recipe() -> None:
    config = with_method("selftraining", f"{REPOSITORY}/examples/my_method.py:Mine")
    assert with_fields(config, {"method": "lsr-st"}) == recipe_config("selftraining")[0]


def test_the_weights_of_the_methods_are_those_of_the_comparison_and_of_the_real_pair() -> None:
    comparison = yaml.safe_load((REPOSITORY / "lsr_train/comparisons/toytown.yaml").read_text(encoding="utf-8"))
    pair = {
        "lsr": "lsr",
        "lsr-em": "lsr_em",
        "self-training": "self_training",
        "lsr-st": "lsr_st",
        "distill": "distill",
    }
    for method in METHOD_SPECS:
        own = own_weights(method, "cosine")
        assert bool(own) == (command_of(method) != "pretrain")
        stated = comparison["runs"].get(method, {}).get("set", {})
        if method in pair:
            stated = {
                name: value for name, value in recipe_config(f"streets_camvid_{pair[method]}")[1].items() if value
            }
        for name, value in own.items():
            assert stated[name] == value, f"{method}: {name}"
        assert not {name for name in stated if name.startswith("weights.")} - {*own, "weights.entropy_ratio"}, method
