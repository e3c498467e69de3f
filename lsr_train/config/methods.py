"""Describes every training method: its class, its command, and the fields of the configuration that it reads.

Nothing here imports torch or the configuration, so that the command line answers at once. `lsr_train.methods` loads the
classes. Whatever a method does not read has to stay at its default, and `Config` checks that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from lsr_infer.errors import UsageError

__all__ = ["ENTRY_POINTS", "METHOD_SPECS", "WEIGHT_NAMES", "MethodSpec", "check_name", "command_of", "is_foreign"]


@dataclass(frozen=True)
class MethodSpec:
    """A method of this package.

    Args:
        implementation: MODULE:CLASS within `lsr_train.methods`.
        command: which one runs it. `pretrain` learns from labels alone, `adapt` from unlabelled target frames, too,
            and `distill` from a finished network.
        weights: fields of `weights` that it reads.
        options: further sections (`strong`) and fields (`prototypes.decay`) about loss terms that it reads.
    """

    implementation: str
    command: str
    weights: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


_LATENT = ("cluster", "perpendicularity", "norm")
_TEACHER = ("self_training", "masked", "distance")
_PAPER = ("histogram", "pseudo_labels", "prototypes", "norm")
_LABELS = ("self_training.threshold", "self_training.weighting", "self_training.mix")

METHOD_SPECS: Mapping[str, MethodSpec] = {
    "source-only": MethodSpec("source_only:SourceOnly", "pretrain"),
    # its source is the labelled split of the target: the upper bound of mASR (Eq. 9)
    "target-only": MethodSpec("source_only:SourceOnly", "pretrain"),
    "adaptsegnet-feat": MethodSpec("adversarial:AdaptSegNetFeat", "adapt", ("adversarial",), ("critic",)),
    "minent": MethodSpec("entropy:MinEnt", "adapt", ("entropy",)),
    "sapnet": MethodSpec("adversarial:SAPNet", "adapt", ("adversarial",), ("critic",)),
    "maxsquare-iw": MethodSpec("entropy:MaxSquareIW", "adapt", ("entropy",)),
    "oce": MethodSpec("oce:OCE", "adapt", ("cluster", "orthogonality", "sparsity", "entropy")),
    "lsr": MethodSpec("lsr:LSR", "adapt", _LATENT, _PAPER),
    "lsr-em": MethodSpec("lsr:LSREM", "adapt", (*_LATENT, "entropy"), _PAPER),
    "self-training": MethodSpec(
        "self_training:SelfTraining", "adapt", _TEACHER,
        ("histogram.threshold", "pseudo_labels", "self_training", "strong"),
    ),
    "lsr-st": MethodSpec(
        "self_training:LSRSelfTraining", "adapt", (*_LATENT, "prototype", *_TEACHER),
        (*_PAPER, "self_training", "strong", "latent"),
    ),
    "distill": MethodSpec(
        "distill:Distill", "distill", ("distill", "self_training", "cluster", "perpendicularity", "prototype"),
        ("histogram.threshold", "pseudo_labels", "prototypes.decay", *_LABELS, "strong", "latent", "distill"),
    ),
}  # fmt: skip
"""The methods by name. A new one is a line here and a file in `lsr_train/methods`."""

WEIGHT_NAMES = tuple(sorted({name for spec in METHOD_SPECS.values() for name in spec.weights}))

ENTRY_POINTS = "lsr_train.methods"
"""The group of entry points by which installed packages bring methods of their own."""


def is_foreign(name: str) -> bool:
    """Whether a method is none of this package's: FILE.py:CLASS, or an entry point. It may read the whole tree."""
    return name not in METHOD_SPECS


def command_of(name: str) -> str:
    """Return the command that runs a method; `adapt` for one of another package."""
    return "adapt" if is_foreign(name) else METHOD_SPECS[name].command


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
            f"method is {name!r}; allowed: {', '.join((*METHOD_SPECS, *others))}, or FILE.py:CLASS for your own. Set "
            "--method."
        )
