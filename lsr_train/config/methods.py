"""The methods by name: which fields of the configuration each reads, and which command runs it."""

from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

from lsr_infer.errors import UsageError

__all__ = [
    "ADAPTING_METHODS",
    "COMMAND_METHODS",
    "ENTRY_POINTS",
    "METHOD_NAMES",
    "METHOD_SECTIONS",
    "METHOD_WEIGHTS",
    "OWN_TEACHER_ALONE",
    "PRINTED_ALONE",
    "SUPERVISED_METHODS",
    "WEIGHT_NAMES",
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

PRINTED_ALONE = ("histogram.mode", "prototypes.init", "clustering.distance", "norm.variant", "norm.delta")
"""What only the constraints as the paper prints them read."""

OWN_TEACHER_ALONE = tuple(
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
