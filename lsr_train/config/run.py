"""Defines the configuration of a run, a tree of frozen dataclasses that check themselves.

It knows methods, layouts and recipes by name only and imports no torch, so that the command line answers at once. What
runs is always the resolved tree; it is changed through `dataclasses.replace`, which checks again. Numbers of the paper
live in the recipes, not here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Literal

from lsr_infer.errors import UsageError
from lsr_train.config.checks import at_default, in_range, one_of
from lsr_train.config.data import (
    LAYOUTS,
    TARGET_LAYOUTS,
    AugmentConfig,
    DataConfig,
    Layout,
    SourceConfig,
    TargetConfig,
    TargetLayout,
    check_one_size,
)
from lsr_train.config.methods import METHOD_SPECS, WEIGHT_NAMES, check_name, command_of, is_foreign
from lsr_train.config.selftraining import DistillConfig, LatentConfig, SelfTrainingConfig, StrongConfig
from lsr_train.config.terms import (
    CriticConfig,
    HistogramConfig,
    NormConfig,
    PrototypesConfig,
    PseudoLabelsConfig,
    WeightsConfig,
)
from lsr_train.config.training import LrMultipliers, NetworkConfig, OptimConfig, TrainConfig

__all__ = [
    "LAYOUTS",
    "TARGET_LAYOUTS",
    "AugmentConfig",
    "Config",
    "CriticConfig",
    "DataConfig",
    "DistillConfig",
    "HistogramConfig",
    "LatentConfig",
    "Layout",
    "LogConfig",
    "LrMultipliers",
    "NetworkConfig",
    "NormConfig",
    "OptimConfig",
    "PrototypesConfig",
    "PseudoLabelsConfig",
    "SelectionConfig",
    "SelfTrainingConfig",
    "SourceConfig",
    "StrongConfig",
    "TargetConfig",
    "TargetLayout",
    "TrainConfig",
    "WeightsConfig",
]


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Which checkpoint is called the best, without a target label.

    Args:
        signal: `flip` (mIoU between the prediction and that of the mirrored frame), `scale` (agreement over scales),
            `source` (mIoU on held-out source images), `entropy` (negative mean entropy) or `none` (the last one).
        every: steps between two evaluations; 0 evaluates only at the end.
        frames: how many unlabelled target frames an evaluation uses.
        patience: stop after so many evaluations without a better one; 0 never stops early.
        source_split: split of the source that `source` holds out; empty leaves that column out.
    """

    signal: Literal["flip", "scale", "source", "entropy", "none"] = "flip"
    every: int = 0
    frames: int = 60
    patience: int = 0
    source_split: str = ""

    def __post_init__(self) -> None:
        one_of("selection.signal", self.signal, ("flip", "scale", "source", "entropy", "none"))
        in_range("selection.every", self.every, 0)
        in_range("selection.frames", self.frames, 1)
        in_range("selection.patience", self.patience, 0)
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
        in_range("log.every", self.every, 1)
        in_range("log.gradients", self.gradients, 0)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides what a run computes.

    Args:
        method: source-only, target-only, one of the adapting ones (see the README) or distill; an entry point of the
            group `lsr_train.methods`, or FILE.py:CLASS.
        label_space: `cityscapes19`, `synthia16`, `synthia13`, `camvid11`, a YAML file, or `auto` (the source folder's
            classes.yaml, else cityscapes19).
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
    network: NetworkConfig = field(default_factory=NetworkConfig)
    data: DataConfig = field(default_factory=DataConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    histogram: HistogramConfig = field(default_factory=HistogramConfig)
    pseudo_labels: PseudoLabelsConfig = field(default_factory=PseudoLabelsConfig)
    prototypes: PrototypesConfig = field(default_factory=PrototypesConfig)
    norm: NormConfig = field(default_factory=NormConfig)
    self_training: SelfTrainingConfig = field(default_factory=SelfTrainingConfig)
    strong: StrongConfig = field(default_factory=StrongConfig)
    latent: LatentConfig = field(default_factory=LatentConfig)
    distill: DistillConfig = field(default_factory=DistillConfig)
    critic: CriticConfig = field(default_factory=CriticConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)
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
        crop_height, crop_width = self.augment.crop_height, self.augment.crop_width
        domains: dict[str, SourceConfig | TargetConfig] = {"source": self.data.source}
        if self.data.target.given:
            domains["target"] = self.data.target
        if self.network.forward == "joint":
            check_one_size(self.data, self.augment, "network.forward joint puts images of both domains into one batch")
        for name, domain in domains.items():
            smallest = (domain.height * self.augment.scale_min, domain.width * self.augment.scale_min)
            if crop_height > smallest[0] or crop_width > smallest[1]:
                raise UsageError(
                    f"the crop of {crop_width}x{crop_height} leaves the {name} image of "
                    f"{smallest[1]:.0f}x{smallest[0]:.0f}. "
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
    reader, spec = f"method {config.method}", METHOD_SPECS[config.method]
    at_default(config, _not_among(spec.options, config), reader)
    if config.method == "lsr-st" and config.latent.form == "cosine":
        at_default(config, ("histogram.mode", "prototypes.init", "norm.delta"), "latent.form cosine")
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


def _not_among(options: tuple[str, ...], config: Config) -> Iterator[str]:
    """Yield the fields of the sections about loss terms that are not among some sections and fields."""
    sections = {option.partition(".")[0] for spec in METHOD_SPECS.values() for option in spec.options}
    for section in sorted(sections - set(options)):
        for item in fields(getattr(config, section)):
            if f"{section}.{item.name}" not in options:
                yield f"{section}.{item.name}"


def _check_start_from_teacher(config: Config) -> None:
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
    foreign = {"cosine": "norm", "paper": "prototype"}[form]
    if getattr(weights, foreign):
        raise UsageError(
            f"weights.{foreign} is {getattr(weights, foreign)}, and latent.form {form} has no such "
            f"term. Set --weights.{foreign} 0, or another --latent.form."
        )
