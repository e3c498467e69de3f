"""The methods by name: which fields of the configuration each reads, and which command runs it."""

from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from lsr_infer.errors import UsageError
from lsr_train.config.checks import at_default
from lsr_train.config.data import check_one_size

if TYPE_CHECKING:
    from lsr_train.config.run import Config

__all__ = [
    "ADAPTING_METHODS",
    "COMMAND_METHODS",
    "ENTRY_POINTS",
    "METHOD_NAMES",
    "METHOD_SECTIONS",
    "METHOD_WEIGHTS",
    "SUPERVISED_METHODS",
    "WEIGHT_NAMES",
    "check_method",
    "check_name",
    "is_foreign",
]

METHOD_WEIGHTS: Mapping[str, tuple[str, ...]] = {
    "source-only": (),
    "target-only": (),
    "adaptsegnet-feat": ("adversarial",),
    "minent": ("entropy",),
    "sapnet": ("adversarial",),
    "maxsquare-iw": ("entropy",),
    "oce": ("cluster", "orthogonality", "sparsity", "entropy"),
    "lsr": ("cluster", "perpendicularity", "norm"),
    "lsr-em": ("cluster", "perpendicularity", "norm", "entropy"),
    "self-training": ("self_training", "masked", "distance"),
    "lsr-st": ("cluster", "perpendicularity", "norm", "prototype", "self_training", "masked", "distance"),
    "distill": ("distill", "self_training", "cluster", "perpendicularity", "prototype"),
}
"""Which fields of `weights` each method reads. The names are those of `lsr_train.methods.METHODS`; a test holds them
together, since this module cannot import what imports torch."""

_PRINTED = ("histogram", "pseudo_labels", "prototypes", "clustering", "norm")

METHOD_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "source-only": (),
    "target-only": (),
    "adaptsegnet-feat": ("critic",),
    "minent": (),
    "sapnet": ("critic",),
    "maxsquare-iw": (),
    "oce": (),
    "lsr": _PRINTED,
    "lsr-em": _PRINTED,
    "self-training": ("histogram", "pseudo_labels", "self_training", "strong"),
    "lsr-st": (*_PRINTED, "self_training", "strong", "latent"),
    "distill": ("histogram", "pseudo_labels", "prototypes", "self_training", "strong", "latent", "distill"),
}
"""Which sections about terms each method reads; those of all others stay at their defaults."""

METHOD_NAMES = tuple(METHOD_WEIGHTS)

WEIGHT_NAMES = tuple(sorted({name for names in METHOD_WEIGHTS.values() for name in names}))

_PRINTED_ALONE = ("histogram.mode", "prototypes.init", "clustering.distance", "norm.variant", "norm.delta")
"""What only the constraints as the paper prints them read."""

_OWN_TEACHER_ALONE = tuple(
    f"self_training.{name}"
    for name in (
        "decay", "alignment", "alignment_of", "alignment_decay", "rectify", "rectify_decay", "rectify_from",
        "mask_block", "mask_ratio", "keep",
    )
)  # fmt: skip
"""What only self-training reads, whose teacher follows the student."""

SUPERVISED_METHODS = ("source-only", "target-only")
"""Those that learn from labels alone."""

ADAPTING_METHODS = tuple(name for name in METHOD_NAMES if name not in (*SUPERVISED_METHODS, "distill"))
"""Those that learn from unlabelled frames alone what the target is like, so that a class can die unseen."""

ENTRY_POINTS = "lsr_train.methods"
"""The group of entry points by which installed packages bring methods of their own."""


def is_foreign(name: str) -> bool:
    """Whether a method is none of this package's: FILE.py:CLASS, or an entry point. It may read the whole tree."""
    return name not in METHOD_NAMES


def check_name(name: str) -> None:
    """Raise unless a method of this name can be looked for; whether it can be loaded shows when it is.

    Raises:
        UsageError: there is no such method, entry point or file.
    """
    if not is_foreign(name):
        return
    file, colon, attribute = name.rpartition(":")
    if colon and file.endswith(".py") and attribute.isidentifier():
        if not Path(file).is_file():
            raise UsageError(f"method is {name!r}, and there is no file {file}. Set --method.")
        return
    others = sorted(point.name for point in entry_points(group=ENTRY_POINTS))
    if name not in others:
        raise UsageError(
            f"method is {name!r}; allowed: {', '.join((*METHOD_NAMES, *others))}, or FILE.py:CLASS for your own. Set "
            "--method."
        )


COMMAND_METHODS: Mapping[str, tuple[str, ...]] = {
    "pretrain": SUPERVISED_METHODS,
    "adapt": ADAPTING_METHODS,
    "distill": ("distill",),
}
"""Which command runs which methods."""


def check_method(config: "Config") -> None:
    """Raise unless what a configuration sets is what its method reads.

    Raises:
        UsageError: names the field, the method and the flag.
    """
    if is_foreign(config.method):
        return
    if config.distill.teacher and config.method != "distill":
        raise UsageError(
            f"distill.teacher is {config.distill.teacher}, and method {config.method} has no such teacher. Set "
            "--distill.teacher '', or --method distill."
        )
    if config.network.weights == "teacher":
        _check_start_from_teacher(config)
    _check_sections(config)
    if "self_training" in METHOD_WEIGHTS[config.method]:
        _check_teaching(config)
        _check_mixing(config)
        _check_constraints(config)
    for name in sorted(set(WEIGHT_NAMES) - set(METHOD_WEIGHTS[config.method])):
        if getattr(config.weights, name):
            users = ", ".join(method for method, names in METHOD_WEIGHTS.items() if name in names)
            raise UsageError(
                f"weights.{name} is {getattr(config.weights, name)}, and method {config.method} has no such term "
                f"({users} have). Set --weights.{name} 0, or another --method."
            )


def _check_start_from_teacher(config: "Config") -> None:
    """Raise unless a student may start from its teacher's channels."""
    if config.method != "distill":
        raise UsageError(
            f"network.weights is teacher, and method {config.method} has none. Set --network.weights imagenet, none or "
            "a file, or --method distill."
        )
    if config.init:
        raise UsageError(
            f"network.weights is teacher and init {config.init}: a student starts from one of them. Leave one out."
        )
    if config.network.batch_norm == "frozen":
        raise UsageError(
            "network.batch_norm is frozen, and network.weights teacher gives a student the statistics of a wider "
            "network. Set --network.batch_norm train or target."
        )


def _check_sections(config: "Config") -> None:
    """Raise unless every section that the method does not read is as it is by default."""
    for section in sorted({name for names in METHOD_SECTIONS.values() for name in names}):
        if section not in METHOD_SECTIONS[config.method]:
            names = (f"{section}.{item.name}" for item in fields(getattr(config, section)))
            at_default(config, names, f"method {config.method}")


def _check_teaching(config: "Config") -> None:
    """Raise unless what the teacher says has a weight."""
    weights = config.weights
    if not (weights.self_training or (config.method == "distill" and weights.distill)):
        needed = (
            "--weights.distill or --weights.self_training" if config.method == "distill" else "--weights.self_training"
        )
        raise UsageError(f"method {config.method} would learn nothing from its teacher. Set {needed} above 0.")


def _check_mixing(config: "Config") -> None:
    """Raise unless the images of both domains can be mixed."""
    if config.method != "distill" or config.self_training.mix == "class":
        check_one_size(config.data, config.augment, f"method {config.method} mixes source and target images")


def _check_constraints(config: "Config") -> None:
    """Raise unless the weights fit the form of the constraints, and nothing is set that the method does not read."""
    form, labels, image = config.latent.form, config.latent.labels, config.latent.image
    if config.method == "distill":
        at_default(config, (*_OWN_TEACHER_ALONE, *_PRINTED_ALONE), "method distill")
    elif config.method == "self-training":
        at_default(config, _PRINTED_ALONE, "method self-training")
    elif form == "scale-free":
        at_default(config, _PRINTED_ALONE, "latent.form scale-free")
    weights = config.weights
    constrained = weights.cluster or weights.perpendicularity or weights.prototype
    if config.method == "distill" and constrained and (form, labels, image) != ("scale-free", "teacher", "mixed"):
        raise UsageError(
            f"latent is form {form}, labels {labels}, image {image}; method distill has the scale-free "
            "constraints with the teacher's labels on the images it trains on. Set --latent.form scale-free, "
            "--latent.labels teacher and --latent.image mixed."
        )
    foreign = {"scale-free": "norm", "printed": "prototype"}[form]
    if getattr(weights, foreign):
        raise UsageError(
            f"weights.{foreign} is {getattr(weights, foreign)}, and latent.form {form} has no such "
            f"term. Set --weights.{foreign} 0, or another --latent.form."
        )
