"""Fits what a recipe says about loss terms to the method that the command line names.

A recipe is written for its own method. Beside another one, what that one does not read falls away, and what it needs
and the recipe was not written for is its own (`method_weights.yaml`). What the command line sets is never touched.
"""

from collections.abc import Mapping, Set
from functools import cache
from importlib import resources
from typing import Any

import yaml

from lsr_train.config.fields import fields_of
from lsr_train.config.run import METHOD_SPECS, Config, is_about_terms, is_foreign, is_read

__all__ = ["fitted", "own_weights"]

_KIN = (("source-only", "target-only"), ("lsr", "lsr-em"), ("self-training", "lsr-st"))
"""Methods whose terms are the same where both have them, so that one's weights are right for the other."""
_CROP = ("augment.crop_height", "augment.crop_width")


def own_weights(method: str, form: str) -> Mapping[str, Any]:
    """Return the fields that a method takes by itself in a `latent.form`, by dotted name."""
    known = _own_weights()
    return known.get(f"{method} {form}") or known.get(method, {})


@cache
def _own_weights() -> Mapping[str, Mapping[str, Any]]:
    file = resources.files("lsr_train") / "config" / "method_weights.yaml"
    document: dict[str, dict[str, Any]] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return document


def fitted(values: Mapping[str, Any], recipe: Mapping[str, Any], flags: Set[str]) -> dict[str, Any]:
    """Return the fields that change where the command line names a method or a form of the constraints.

    Args:
        values: every field of the configuration by dotted name, as recipe and command line have it.
        recipe: what the recipe states, by dotted name.
        flags: dotted names that the command line sets.
    """
    method, form = values["method"], values["latent.form"]
    if not flags & {"method", "latent.form"} or method not in METHOD_SPECS:
        return {}
    written_for, defaults, own = recipe.get("method"), dict(fields_of(Config())), own_weights(method, form)
    changes: dict[str, Any] = {}

    def stands(name: str) -> bool:
        """Whether the recipe was written for this weight, too."""
        if written_for is None or is_foreign(written_for):
            return name in recipe
        kin = written_for == method or any(written_for in group and method in group for group in _KIN)
        return kin and (written_for == method or is_read(name, written_for, recipe.get("latent.form", "cosine")))

    for name in sorted(filter(is_about_terms, defaults.keys() - flags)):
        if not is_read(name, method, form):
            changes[name] = defaults[name]
        elif (name in own or name.startswith("weights.")) and name != "weights.entropy_ratio" and not stands(name):
            changes[name] = own.get(name, defaults[name])
    if values["network.weights"] == "teacher" and method != "distill" and "network.weights" not in flags:
        changes["network.weights"] = defaults["network.weights"]
    if "self_training" in METHOD_SPECS[method].weights and not flags & {*_CROP}:
        changes |= _common_crop({**values, **changes})
    return {name: value for name, value in changes.items() if values[name] != value}


def _common_crop(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the largest crop that images of both domains have, where they are mixed, uncropped and of two sizes."""
    if values["self_training.mix"] != "class" or any(values[name] for name in _CROP):
        return {}
    sides = [(values[f"data.source.{side}"], values[f"data.target.{side}"]) for side in ("height", "width")]
    if all(source == target for source, target in sides):
        return {}
    return {name: int(min(side) * values["augment.scale_min"]) for name, side in zip(_CROP, sides, strict=True)}
