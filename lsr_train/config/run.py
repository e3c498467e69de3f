"""Defines the configuration of a run, a tree of frozen dataclasses that check themselves, and what each method reads.

It knows methods, layouts and recipes by name only and imports no torch, so that the command line answers at once. What
runs is always the resolved tree; it is changed through `dataclasses.replace`, which checks again. Numbers of the paper
live in the recipes, not here.
"""

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import entry_points
from math import inf
from pathlib import Path
from typing import Any, Literal

from lsr_infer.errors import UsageError
from lsr_train.config import training
from lsr_train.config.data import AugmentConfig, DataConfig, SourceConfig, TargetConfig, check_one_size
from lsr_train.config.fields import at_default, check_fields, fields_of, hint, in_range, with_fields

__all__ = [
    "ENTRY_POINTS", "METHOD_SPECS", "WEIGHT_NAMES", "Config", "LogConfig", "MethodSpec", "SelectionConfig",
    "check_name", "command_of", "is_about_terms", "is_foreign", "is_of_all_stages", "is_read", "with_method",
]  # fmt: skip


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

_OPTION_SECTIONS = {option.partition(".")[0] for spec in METHOD_SPECS.values() for option in spec.options}
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
    """Raise unless there is a method, entry point or file of this name; whether it can be loaded shows when it is."""
    if not is_foreign(name):
        return
    file, colon, attribute = name.rpartition(":")
    if colon and file.endswith(".py") and attribute.isidentifier():
        if not Path(file).is_file():
            raise UsageError(f"method is {name!r}, and there is no file {file}. Set --method.")
        _check_holds(Path(file), attribute)
        return
    others = sorted(point.name for point in entry_points(group=ENTRY_POINTS))
    if name not in others:
        raise UsageError(
            f"method is {name!r}.{hint(name, (*METHOD_SPECS, *others))} Allowed: "
            f"{', '.join((*METHOD_SPECS, *others))}, or FILE.py:CLASS for your own. Set --method."
        )


def _check_holds(file: Path, attribute: str) -> None:
    """Raise where a Python file plainly has no such name, before anything slow; a doubtful one is left to loading."""
    try:
        nodes = list(ast.walk(ast.parse(file.read_bytes())))
    except (OSError, SyntaxError, ValueError):
        return
    names = {getattr(node, "name", None) for node in nodes} | {getattr(node, "id", None) for node in nodes}
    names |= {getattr(node, "asname", None) for node in nodes}
    if attribute in names or names & {"*", "__getattr__", "globals", "exec"}:
        return
    classes = [node.name for node in nodes if isinstance(node, ast.ClassDef)]
    raise UsageError(
        f"{file} holds no method {attribute}.{hint(attribute, classes)} Classes in it: "
        f"{', '.join(classes) or 'none'}. Set --method."
    )


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Which checkpoint is called the best, without a target label.

    Args:
        signal: `flip` (mIoU between the prediction and that of the mirrored frame), `scale` (agreement over scales),
            `source` (mIoU on held-out source images), `entropy` (negative mean entropy) or `none` (the last one).
        every: steps between two evaluations; 0 evaluates only at the end.
        frames: how many unlabelled target frames an evaluation uses.
        patience: stop after so many evaluations without a better one; 0 never stops early.
        source_split: split of `data.source` that `source` holds out; empty leaves that column out.
    """

    signal: Literal["flip", "scale", "source", "entropy", "none"] = "flip"
    every: int = 0
    frames: int = 60
    patience: int = 0
    source_split: str = ""

    def __post_init__(self) -> None:
        check_fields(self, "selection", every=(0, inf), frames=(1, inf), patience=(0, inf))
        if self.signal == "source" and not self.source_split:
            raise UsageError("selection.signal is source; name the split it holds out with --selection.source_split.")


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """What is written while it runs.

    Args:
        every: steps between two lines of metrics.csv.
        tensorboard: write TensorBoard events too.
        gradients: steps between two lines of gradients.csv, the norm of each unweighted term's gradient on stem and
            backbone; 0 measures none. Such a step goes backward once more for each term; the run is the same.
    """

    every: int = 20
    tensorboard: bool = True
    gradients: int = 0

    def __post_init__(self) -> None:
        check_fields(self, "log", every=(1, inf), gradients=(0, inf))


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides what a run computes.

    Args:
        method: source-only, target-only, one of the adapting ones (docs/methods.md) or distill; an entry point of the
            group `lsr_train.methods`, or FILE.py:CLASS.
        label_space: `cityscapes19`, `synthia16`, `synthia13`, `camvid11`, a YAML file, or `auto` (the source folder's
            classes.yaml, else cityscapes19; of several sources all classes by name).
        seed: of everything random.
        init: checkpoint (or run folder) whose weights are the start; empty starts from `network.weights`.
        network: the segmentation network.
        data: source, target and how they are read.
        augment: augmentation.
        optim: optimiser and schedule.
        train: the loop.
        histogram: labels on the feature grid.
        pseudo_labels: labels of target cells.
        prototypes: smoothed class means.
        norm: L_N.
        self_training: the teacher and its labels.
        strong: what the student's images go through.
        latent: form and place of the constraints beside self-training.
        distill: the finished network that teaches a student.
        critic: what a method trains against.
        weights: of the loss terms.
        selection: the label-free choice of the best checkpoint.
        log: what is written.
    """

    method: str = "source-only"
    label_space: str = "auto"
    seed: int = 0
    init: str = ""
    network: training.NetworkConfig = field(default_factory=training.NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: training.OptimConfig = field(default_factory=training.OptimConfig)
    train: training.TrainConfig = field(default_factory=training.TrainConfig)
    histogram: training.HistogramConfig = field(default_factory=training.HistogramConfig)
    pseudo_labels: training.PseudoLabelsConfig = field(default_factory=training.PseudoLabelsConfig)
    prototypes: training.PrototypesConfig = field(default_factory=training.PrototypesConfig)
    norm: training.NormConfig = field(default_factory=training.NormConfig)
    self_training: training.SelfTrainingConfig = field(default_factory=training.SelfTrainingConfig)
    strong: training.StrongConfig = field(default_factory=training.StrongConfig)
    latent: training.LatentConfig = field(default_factory=training.LatentConfig)
    distill: training.DistillConfig = field(default_factory=training.DistillConfig)
    critic: training.CriticConfig = field(default_factory=training.CriticConfig)
    weights: training.WeightsConfig = field(default_factory=training.WeightsConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        check_name(self.method)
        in_range("seed", self.seed, 0, 2**31)
        if self.optim.poly_steps and self.optim.poly_steps < self.train.steps:
            raise UsageError(
                f"optim.poly_steps is {self.optim.poly_steps} and train.steps {self.train.steps}: the rate would "
                "reach 0 before the end. Set --optim.poly_steps 0 or a longer one."
            )
        if self.network.forward == "joint":
            check_one_size(self.data, self.augment, "network.forward joint puts images of both domains into one batch")
        crop_height, crop_width = self.augment.crop_height, self.augment.crop_width
        sources = self.data.sources
        if len({(source.height, source.width) for source in sources}) > 1 and not crop_height:
            raise UsageError(
                "the sources are of several sizes. Leave height and width of data.more_sources out, or set a crop by "
                "--augment.crop_height and --augment.crop_width."
            )
        domains: list[tuple[str, SourceConfig | TargetConfig]] = [("source", source) for source in sources]
        domains += [] if (few := self.data.labelled_frames) is None else [("labelled", few)]
        for name, domain in [*domains, ("target", self.data.target)] if self.data.target.given else domains:
            height, width = domain.height * self.augment.scale_min, domain.width * self.augment.scale_min
            if crop_height > height or crop_width > width:
                raise UsageError(
                    f"the crop of {crop_width}x{crop_height} leaves the {name} image of {width:.0f}x{height:.0f}. "
                    f"Set --augment.crop_width/--augment.crop_height or --data.{name}.width/--data.{name}.height."
                )
        _check_method(self)

    def needs_target(self) -> str | None:
        """Return what in this configuration cannot do without unlabelled target frames, None where nothing is."""
        needs = {
            f"method {self.method}": command_of(self.method) != "pretrain",
            "augment.lab_transfer": self.augment.lab_transfer > 0,
            "network.batch_norm target": self.network.batch_norm == "target",
        }
        return next((what for what, needed in needs.items() if needed), None)


def _check_method(config: Config) -> None:
    """Raise unless what a configuration sets is what its method reads."""
    if is_foreign(config.method):
        return
    if config.distill.teacher and config.method != "distill":
        raise UsageError(
            f"distill.teacher is {config.distill.teacher}, and method {config.method} has no such teacher. Set "
            "--distill.teacher '', or --method distill."
        )
    if config.network.weights == "teacher":
        _check_start_from_teacher(config)
    reader, spec, form = f"method {config.method}", METHOD_SPECS[config.method], config.latent.form
    names = [f"{part}.{item.name}" for part in sorted(_OPTION_SECTIONS) for item in fields(getattr(config, part))]
    of_method = [name for name in names if {name, name.partition(".")[0]} & set(spec.options)]
    at_default(config, (name for name in names if name not in of_method), reader)
    at_default(config, (name for name in of_method if not is_read(name, config.method, form)), f"latent.form {form}")
    if "self_training" in spec.weights:
        _check_teaching(config)
        _check_constraints(config)
    for name in sorted(set(WEIGHT_NAMES) - set(spec.weights)):
        if getattr(config.weights, name):
            users = ", ".join(method for method, other in METHOD_SPECS.items() if name in other.weights)
            raise UsageError(
                f"weights.{name} is {getattr(config.weights, name)}, and {reader} has no such term "
                f"({users} have). Set --weights.{name} 0, or another --method."
            )


def _check_start_from_teacher(config: Config) -> None:
    """Raise unless a student may start from its teacher's channels."""
    if config.method != "distill":
        raise UsageError(
            f"network.weights is teacher, and method {config.method} has none. Set --network.weights imagenet, none or "
            "a file, or --method distill."
        )
    if config.init:
        raise UsageError(f"network.weights is teacher and init {config.init}; a student has one start. Leave one out.")
    if config.network.batch_norm == "frozen":
        raise UsageError(
            "network.batch_norm is frozen, and network.weights teacher gives a student the statistics of a wider "
            "network. Set --network.batch_norm train or target."
        )


def _check_teaching(config: Config) -> None:
    """Raise unless what the teacher says has a weight, and the images of both domains can be mixed."""
    weights, distills = config.weights, config.method == "distill"
    if not (weights.self_training or (distills and weights.distill)):
        needed = "--weights.distill or --weights.self_training" if distills else "--weights.self_training"
        raise UsageError(f"method {config.method} would learn nothing from its teacher. Set {needed} above 0.")
    if not distills or config.self_training.mix == "class":
        check_one_size(config.data, config.augment, f"method {config.method} mixes source and target images")


def _check_constraints(config: Config) -> None:
    """Raise unless the weights fit the form of the constraints."""
    form, labels, image = config.latent.form, config.latent.labels, config.latent.image
    weights = config.weights
    constrained = weights.cluster or weights.perpendicularity or weights.prototype
    if config.method == "distill" and constrained and (form, labels, image) != ("cosine", "teacher", "mixed"):
        raise UsageError(
            f"latent is form {form}, labels {labels}, image {image}; method distill has the cosine constraints with "
            "the teacher's labels on the images it trains on. Set --latent.form cosine, --latent.labels teacher and "
            "--latent.image mixed."
        )
    foreign = next(name.removeprefix("weights.") for name in _NOT_OF_FORM[form] if name.startswith("weights."))
    if getattr(weights, foreign):
        raise UsageError(
            f"weights.{foreign} is {getattr(weights, foreign)}, and latent.form {form} has no such "
            f"term. Set --weights.{foreign} 0, or another --latent.form."
        )


_OF_ALL_STAGES = frozenset({
    "label_space", "network.backbone", "network.width", "network.output_stride", "network.stem", "network.dilations",
    "network.normalization", "network.weights", "augment.crop_height", "augment.crop_width", "train.device",
    "train.precision", "train.threads", "train.channels_last", "train.compile",
})  # fmt: skip


def is_of_all_stages(name: str) -> bool:
    """Whether a field, by its dotted name, is the same in the source stage and in what starts from it.

    A few labels of the target are for the adaptation alone: a source stage that is there serves with and without them.
    """
    return name in _OF_ALL_STAGES or (name.startswith(("data.", "log.")) and not name.startswith("data.labelled"))


def is_about_terms(name: str) -> bool:
    """Whether a field, by its dotted name, belongs to the loss terms of methods: their weights and their options."""
    return name.partition(".")[0] in {"weights", *_OPTION_SECTIONS}


_NOT_OF_FORM = {
    "cosine": ("histogram.mode", "prototypes.init", "norm.delta", "weights.norm"),
    "paper": ("weights.prototype",),
}
"""For each form of the constraints beside a teacher, what only the other one reads."""


def is_read(name: str, method: str, form: str) -> bool:
    """Whether a method of this package reads a field about loss terms, by its dotted name, in a `latent.form`."""
    spec = METHOD_SPECS[method]
    section, _, field = name.partition(".")
    if "self_training" in spec.weights and name in _NOT_OF_FORM[form]:
        return False
    if section == "weights":
        return field in spec.weights or field not in WEIGHT_NAMES
    return bool({name, section} & set(spec.options))


def with_method(config: Config, method: str, values: Mapping[str, Any]) -> Config:
    """Return a configuration with another method, and with `values` by dotted name; raises as `with_fields`.

    Every weight and option of terms that is not among the values goes back to its default, but for a foreign method,
    since only it knows which of them it reads.
    """
    fresh = {} if is_foreign(method) else {n: value for n, value in fields_of(Config()) if is_about_terms(n)}
    return with_fields(config, {**fresh, "method": method, **values})
