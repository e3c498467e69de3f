"""The configuration of a run: a tree of frozen dataclasses that check themselves.

It knows methods, layouts and recipes by name only and imports no torch, so that the command line answers at once. What
runs is always the resolved tree; it is changed through `dataclasses.replace`, which checks again. Numbers of the paper
live in the recipes, not here.
"""

from dataclasses import dataclass, field
from typing import Literal

from lsr_infer.errors import UsageError
from lsr_train.config.checks import in_range, one_of
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
from lsr_train.config.methods import (
    ADAPTING_METHODS,
    COMMAND_METHODS,
    METHOD_NAMES,
    METHOD_WEIGHTS,
    SUPERVISED_METHODS,
    WEIGHT_NAMES,
    check_method,
    check_name,
    is_foreign,
)
from lsr_train.config.selftraining import DistillConfig, LatentConfig, SelfTrainingConfig, StrongConfig
from lsr_train.config.terms import (
    ClusteringConfig,
    CriticConfig,
    HistogramConfig,
    NormConfig,
    PrototypesConfig,
    PseudoLabelsConfig,
    WeightsConfig,
)
from lsr_train.config.training import BACKBONES, LrMultipliers, NetworkConfig, OptimConfig, TrainConfig

__all__ = [
    "ADAPTING_METHODS",
    "BACKBONES",
    "COMMAND_METHODS",
    "LAYOUTS",
    "METHOD_NAMES",
    "METHOD_WEIGHTS",
    "SUPERVISED_METHODS",
    "TARGET_LAYOUTS",
    "WEIGHT_NAMES",
    "AugmentConfig",
    "ClusteringConfig",
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
    "is_foreign",
]


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Which checkpoint is called the best, without a target label.

    Args:
        signal: `flip` (mIoU between the prediction and that of the mirrored frame), `scale` (agreement over scales),
            `source` (mIoU on held-out source images), `entropy` (negative mean entropy) or `none` (the last one).
        every: steps between two looks; 0 looks only at the end.
        frames: how many unlabelled target frames a look uses.
        patience: stop after so many looks without a better one; 0 never stops early.
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
        every: steps between two rows of metrics.csv.
        tensorboard: write TensorBoard events too.
        gradients: steps between two rows of gradients.csv, the norm of each unweighted term's gradient on stem and
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
        clustering: form of L_C.
        norm: form of L_N.
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
    clustering: ClusteringConfig = field(default_factory=ClusteringConfig)
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
        check_method(self)

    def needs_target(self) -> str | None:
        """Return what in this configuration cannot do without unlabelled target frames, None where nothing is."""
        needs = {
            f"method {self.method}": self.method not in SUPERVISED_METHODS,
            "augment.lab_transfer": self.augment.lab_transfer > 0,
            "network.batch_norm target": self.network.batch_norm == "target",
        }
        return next((what for what, needed in needs.items() if needed), None)
