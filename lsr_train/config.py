"""The configuration of a run: a tree of frozen dataclasses that check themselves.

It knows methods, layouts and recipes by name only and imports no torch, so that the command line answers at once. What
runs is always the resolved tree; it is changed through `dataclasses.replace`, which checks again. Numbers of the paper
live in the recipes, not here.
"""

from dataclasses import dataclass, field
from typing import Literal, get_args

from lsr_infer.errors import UsageError
from lsr_train.config_checks import in_range, one_of
from lsr_train.config_data import (
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
from lsr_train.config_methods import (
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
from lsr_train.config_selftraining import DistillConfig, LatentConfig, SelfTrainingConfig, StrongConfig

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

Backbone = Literal["resnet18", "resnet34", "resnet50", "resnet101"]
BACKBONES: tuple[str, ...] = get_args(Backbone)


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """DeepLabV2 and how its batch-norm behaves.

    Args:
        backbone: which ResNet.
        width: channel factor of the backbone; 0.5 is the half-width network.
        output_stride: image pixels per feature cell, 8 or 16.
        stem: `caffe` has the stride in the first 1x1 of a stage and a ceil-mode max-pool (AdaptSegNet's
            line of checkpoints); `torchvision` has it in the 3x3 and pads.
        dilations: dilation of each branch of the classifier; their outputs are summed.
        normalization: `caffe-bgr` is BGR 0..255 minus a mean; `imagenet-rgb` is RGB 0..1 minus mean, divided by std.
        weights: `imagenet` (torchvision's published file, fetched with its hash), `none` (random), a file, or, for a
            student as deep as its teacher, `teacher`: those of the teacher's channels that carry most.
        batch_norm: `train` (statistics of each batch), `frozen` (those of the starting weights), `target`
            (re-estimated once on unlabelled target frames, then frozen).
        batch_norm_frames: how many target frames `target` looks at.
        forward: `separate` runs source and target one after the other, `joint` as one batch.
    """

    backbone: Backbone = "resnet101"
    width: float = 1.0
    output_stride: int = 8
    stem: Literal["torchvision", "caffe"] = "torchvision"
    dilations: tuple[int, ...] = (6, 12, 18, 24)
    normalization: Literal["imagenet-rgb", "caffe-bgr"] = "imagenet-rgb"
    weights: str = "imagenet"
    batch_norm: Literal["train", "frozen", "target"] = "train"
    batch_norm_frames: int = 160
    forward: Literal["separate", "joint"] = "separate"

    def __post_init__(self) -> None:
        one_of("network.backbone", self.backbone, BACKBONES)
        in_range("network.width", self.width, 0.0625, 2)
        one_of("network.output_stride", self.output_stride, (8, 16))
        one_of("network.stem", self.stem, ("torchvision", "caffe"))
        one_of("network.normalization", self.normalization, ("imagenet-rgb", "caffe-bgr"))
        one_of("network.batch_norm", self.batch_norm, ("train", "frozen", "target"))
        one_of("network.forward", self.forward, ("separate", "joint"))
        in_range("network.batch_norm_frames", self.batch_norm_frames, 1)
        if not self.dilations or any(dilation < 1 for dilation in self.dilations):
            raise UsageError(f"network.dilations is {self.dilations}; allowed: one or more numbers of at least 1.")
        if not self.weights:
            raise UsageError("network.weights is empty; allowed: imagenet, none, a file, or teacher (distill).")


@dataclass(frozen=True, kw_only=True)
class LrMultipliers:
    """Learning rate of each parameter group as a multiple of `optim.lr`.

    Args:
        stem: first convolution and its batch-norm.
        backbone: the four stages.
        head: the classifier.
    """

    stem: float = 1.0
    backbone: float = 1.0
    head: float = 10.0

    def __post_init__(self) -> None:
        for name in ("stem", "backbone", "head"):
            in_range(f"optim.lr_multipliers.{name}", getattr(self, name), 0)


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """The optimiser and its schedule.

    Args:
        name: `sgd` (with momentum) or `adamw`.
        lr: base learning rate.
        lr_multipliers: per parameter group.
        momentum: of SGD.
        weight_decay: L2 penalty of SGD, decoupled decay of AdamW.
        poly_power: the rate is lr * (1 - step / poly_steps) ** poly_power.
        poly_steps: length of that decay; 0 means `train.steps`. The paper decays over 250k and stops earlier.
        warmup_steps: linear rise at the start.
        clip_norm: largest L2 norm of the whole gradient; 0 does not clip.
    """

    name: Literal["sgd", "adamw"] = "sgd"
    lr: float = 2.5e-4
    lr_multipliers: LrMultipliers = field(default_factory=LrMultipliers)
    momentum: float = 0.9
    weight_decay: float = 5e-4
    poly_power: float = 0.9
    poly_steps: int = 0
    warmup_steps: int = 0
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        one_of("optim.name", self.name, ("sgd", "adamw"))
        in_range("optim.lr", self.lr, 0, 10, open_low=True)
        in_range("optim.momentum", self.momentum, 0, 0.9999)
        in_range("optim.weight_decay", self.weight_decay, 0, 1)
        in_range("optim.poly_power", self.poly_power, 0, 10)
        in_range("optim.poly_steps", self.poly_steps, 0)
        in_range("optim.warmup_steps", self.warmup_steps, 0)
        in_range("optim.clip_norm", self.clip_norm, 0)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop.

    Args:
        steps: optimiser steps.
        precision: `bf16`, `fp16` (with loss scaling; needs CUDA), `fp32`, or `auto`: bf16 where the device computes it
            itself, else fp32. A run folder keeps what was taken.
        accumulate: micro-batches a step; each is a step of the prototypes (Eq. 3) and of the norm reference (Eq. 7).
        channels_last: memory format of images and weights; faster on CPUs with bf16 and on tensor cores.
        device: `auto` takes CUDA where there is one and says so; a named device that is absent ends with exit code 3.
        threads: CPU threads of a process; 0 leaves torch's choice.
        compile: run the network through torch.compile.
        checkpoint_every: steps between checkpoints.
        keep: how many checkpoints stay besides the selected one.
    """

    steps: int = 1000
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    accumulate: int = 1
    channels_last: bool = True
    device: str = "auto"
    threads: int = 0
    compile: bool = False
    checkpoint_every: int = 500
    keep: int = 2

    def __post_init__(self) -> None:
        in_range("train.steps", self.steps, 1)
        one_of("train.precision", self.precision, ("auto", "fp32", "bf16", "fp16"))
        in_range("train.accumulate", self.accumulate, 1)
        in_range("train.threads", self.threads, 0, 1024)
        in_range("train.checkpoint_every", self.checkpoint_every, 1)
        in_range("train.keep", self.keep, 1)
        if self.device not in ("auto", "cpu") and not self.device.startswith("cuda"):
            raise UsageError(f"train.device is {self.device!r}; allowed: auto, cpu, cuda, cuda:N. Set --train.device.")


@dataclass(frozen=True, kw_only=True)
class HistogramConfig:
    """Labels on the feature grid (paper, Sec. 3).

    Args:
        threshold: T_h, in (0, 1]. A cell is labelled if its second count is below this share of its first.
        mode: `histogram` (the paper's) or `nearest` (the plain subsampling of its ablation).
    """

    threshold: float = 0.5
    mode: Literal["histogram", "nearest"] = "histogram"

    def __post_init__(self) -> None:
        in_range("histogram.threshold", self.threshold, 0, 1, open_low=True)
        one_of("histogram.mode", self.mode, ("histogram", "nearest"))


@dataclass(frozen=True, kw_only=True)
class PseudoLabelsConfig:
    """Labels of target cells (paper, Sec. 3).

    Args:
        confidence: T_p, in [0, 1). A cell keeps its label if the mean of its pixels' peak probability is above it.
    """

    confidence: float = 0.5

    def __post_init__(self) -> None:
        in_range("pseudo_labels.confidence", self.confidence, 0, 1)


@dataclass(frozen=True, kw_only=True)
class PrototypesConfig:
    """Smoothed class means (paper, Eq. 2 and 3).

    Args:
        decay: eta, share of the previous estimate.
        init: `zero` (the paper) or `first` (the first observation replaces the zero).
    """

    decay: float = 0.8
    init: Literal["first", "zero"] = "first"

    def __post_init__(self) -> None:
        in_range("prototypes.decay", self.decay, 0, 0.999999)
        one_of("prototypes.init", self.init, ("first", "zero"))


@dataclass(frozen=True, kw_only=True)
class ClusteringConfig:
    """L_C (paper, Eq. 5).

    Args:
        distance: `l2` is the paper's squared norm; `l1` the mean absolute error of the released code, to which its
            published weights belong.
    """

    distance: Literal["l2", "l1"] = "l2"

    def __post_init__(self) -> None:
        one_of("clustering.distance", self.distance, ("l2", "l1"))


@dataclass(frozen=True, kw_only=True)
class NormConfig:
    """L_N (paper, Eq. 7 and 8).

    Args:
        delta: the enhancement step; in norm units for `absolute`, a share of the reference for `relative`.
        variant: `absolute` is the paper's; `relative` the released code's, to which its published weights belong.
    """

    delta: float = 0.002
    variant: Literal["absolute", "relative"] = "absolute"

    def __post_init__(self) -> None:
        in_range("norm.delta", self.delta, 0)
        one_of("norm.variant", self.variant, ("absolute", "relative"))


@dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """Weights of the loss terms; cross-entropy has weight 1 (paper, Eq. 4). 0 leaves a term out altogether.

    Args:
        cluster: lambda_C, of source and target clustering each; of OCE both together.
        perpendicularity: lambda_P.
        norm: lambda_N, of source and target each.
        entropy: lambda_EM.
        entropy_ratio: alpha of the image-wise weighting of MaxSquare.
        prototype: of the prototype cross-entropy of source and target each (`latent.form scale-free` alone).
        self_training: of the cross-entropy on mixed images with the teacher's labels.
        masked: of the cross-entropy on target images with hidden blocks.
        distance: of the feature distance to the starting backbone.
        distill: of the divergence from the teacher's opinion, of source and target each.
        adversarial: of what trains the encoder against a critic.
        orthogonality: of OCE's entropy of dot products.
        sparsity: of OCE's two-valued channels.
    """

    cluster: float = 0.0
    perpendicularity: float = 0.0
    norm: float = 0.0
    entropy: float = 0.0
    entropy_ratio: float = 0.2
    prototype: float = 0.0
    self_training: float = 0.0
    masked: float = 0.0
    distance: float = 0.0
    distill: float = 0.0
    adversarial: float = 0.0
    orthogonality: float = 0.0
    sparsity: float = 0.0

    def __post_init__(self) -> None:
        for name in WEIGHT_NAMES:
            in_range(f"weights.{name}", getattr(self, name), 0)
        in_range("weights.entropy_ratio", self.entropy_ratio, 0, 1)


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """The optimiser of a method's critic.

    Args:
        lr: base learning rate of its Adam; it decays as that of the network, without warm-up.
    """

    lr: float = 1e-4

    def __post_init__(self) -> None:
        in_range("critic.lr", self.lr, 0, 1, open_low=True)


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
    """

    every: int = 20
    tensorboard: bool = True

    def __post_init__(self) -> None:
        in_range("log.every", self.every, 1)


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
