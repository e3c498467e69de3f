"""The source stage that `adapt` trains first: its configuration, from its own recipe and what both stages share."""

from dataclasses import dataclass
from typing import Any

from lsr_infer.errors import UsageError
from lsr_train.config.command_line import Request, resolve
from lsr_train.config.fields import field_of, fields_of, with_fields
from lsr_train.config.run import Config

__all__ = ["RECORD", "SOURCE_RECIPE", "SourceStage", "source_stage", "stages_wanted"]

SOURCE_RECIPE = "my_footage_source"
RECORD = "stages.json"
"""In the run folder of an adaptation that has a source stage: what was chosen, and what it is."""

_SHARED = (
    "label_space", "seed", "network.backbone", "network.width", "network.output_stride", "network.stem",
    "network.dilations", "network.normalization", "network.weights", "data.", "augment.crop_height",
    "augment.crop_width", "train.device", "train.precision", "train.threads", "train.channels_last", "train.compile",
    "selection.frames", "log.",
)  # fmt: skip
"""Fields, and with a dot at the end sections, in which the source stage follows the adaptation."""
_ONE_PROCESS = ("train.device", "train.precision")
"""Those of them that a process settles once, for both stages."""


def stages_wanted(request: Request) -> bool:
    """Whether the source stage is to be trained first.

    Raises:
        UsageError: something is said about it, and there is none.
    """
    if request.resume is not None:
        return False
    if not request.config.init:
        if request.budget is not None and "train.steps" in request.flags:
            raise UsageError("--budget and --train.steps both set the length of the adaptation. Take one of them.")
        return True
    if request.budget is not None:
        raise UsageError("--budget divides its time between two stages, and --init leaves one. Set --train.steps.")
    if request.source_stage:
        raise UsageError("--source_stage is about a stage that --init replaces. Leave one of them out.")
    return False


@dataclass(frozen=True, kw_only=True)
class SourceStage:
    """What is to be trained before the adaptation.

    Args:
        own: as its recipe and the words about it have it.
        flags: dotted names that those words set, and that stay.
        stated: those, and what a recipe among them sets, which gives way to what both stages share.
    """

    own: Config
    flags: frozenset[str]
    stated: frozenset[str]

    def beside(self, adapted: Config) -> Config:
        """Return the run that fits an adaptation: network, data, sizes and place are the same in both.

        Raises:
            UsageError: they do not fit together.
        """
        return with_fields(self.own, self._shared(adapted))

    def given_way(self, adapted: Config) -> list[str]:
        """Return the fields that a named recipe sets and that have the adaptation's values all the same."""
        shared = self._shared(adapted)
        return sorted(name for name in self.stated & shared.keys() if field_of(self.own, name) != shared[name])

    def _shared(self, adapted: Config) -> dict[str, Any]:
        """Return what is taken from an adaptation."""
        sections = tuple(name for name in _SHARED if name.endswith("."))
        shared = {n: value for n, value in fields_of(adapted) if n.startswith(sections) or n in _SHARED}
        return {name: value for name, value in shared.items() if name not in self.flags}


def source_stage(request: Request) -> SourceStage:
    """Return the source stage of a request.

    Raises:
        UsageError: a word about it is wrong, or it would be no source stage.
    """
    try:
        own = resolve("pretrain", list(request.source_stage), SOURCE_RECIPE)
    except UsageError as error:
        raise UsageError(f"the source stage (--source_stage): {error}") from error
    if own.resume is not None or own.config.init or "out" in own.flags:
        raise UsageError("--source_stage sets a recipe and fields; to start from a network that is there use --init.")
    if request.budget is not None and "train.steps" in own.flags:
        raise UsageError("--budget and --source_stage.train.steps both set its length. Take one of them.")
    for name in _ONE_PROCESS:
        if name in own.flags:
            raise UsageError(
                f"--source_stage sets {name}, and both stages run in one process that has one. Set --{name} for both, "
                "and what else --source_stage.train holds field by field."
            )
    if request.config.network.weights == "none" and "network.weights" not in request.flags | own.flags:
        raise UsageError(
            "this recipe has network.weights none, so that --init brings the weights, and there is no --init. Name a "
            "trained network with --init; or, to train a source stage first, say what it starts from with "
            "--network.weights imagenet, a file, or none for random ones."
        )
    if own.config.method != "source-only":
        raise UsageError(f"the source stage is {own.config.method}; it must be source-only. Set --source_stage.method.")
    stage = SourceStage(own=own.config, flags=own.flags, stated=own.stated)
    stage.beside(request.config)
    return stage
