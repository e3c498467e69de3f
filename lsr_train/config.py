"""The configuration of a run: a tree of frozen dataclasses that check themselves.

It knows methods, layouts and recipes by name only and imports no torch, so that the command line answers at once. What
runs is always the resolved tree; it is changed through `dataclasses.replace`, which checks again. Numbers of the paper
live in the recipes, not here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

from lsr_infer.errors import UsageError
from lsr_train.config_checks import at_default, in_range, one_of
from lsr_train.config_selftraining import DistillConfig, LatentConfig, SelfTrainingConfig, StrongConfig

__all__ = [
    "BACKBONES",
    "COMMAND_METHODS",
    "LAYOUTS",
    "METHOD_NAMES",
    "METHOD_WEIGHTS",
    "OWN_LABEL_METHODS",
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
    "TrainConfig",
    "WeightsConfig",
]

METHOD_WEIGHTS: Mapping[str, tuple[str, ...]] = {
    "source-only": (),
    "target-only": (),
    "lsr": ("cluster", "perpendicularity", "norm"),
    "lsr-em": ("cluster", "perpendicularity", "norm", "entropy"),
    "self-training": ("self_training", "masked", "distance"),
    "lsr-st": ("cluster", "perpendicularity", "norm", "prototype", "self_training", "masked", "distance"),
    "distill": ("distill", "self_training", "cluster", "perpendicularity", "prototype"),
}
"""Which fields of `weights` each method reads. The names are those of `lsr_train.methods.METHODS`; a test holds them
together, since this module cannot import what imports torch."""

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

OWN_LABEL_METHODS = ("lsr", "lsr-em", "self-training", "lsr-st")
"""Those that learn from what they say of the target themselves, so that a class can die unseen."""

COMMAND_METHODS: Mapping[str, tuple[str, ...]] = {
    "pretrain": SUPERVISED_METHODS,
    "adapt": OWN_LABEL_METHODS,
    "distill": ("distill",),
}
"""Which command runs which methods."""

Backbone = Literal["resnet18", "resnet34", "resnet50", "resnet101"]
BACKBONES: tuple[str, ...] = get_args(Backbone)
Layout = Literal["gta5", "synthia", "cityscapes", "camvid", "folder", "toytown-game", "toytown-camera"]
LAYOUTS: tuple[str, ...] = get_args(Layout)
TargetLayout = Literal["frames", "gta5", "synthia", "cityscapes", "camvid", "folder", "toytown-game", "toytown-camera"]
TARGET_LAYOUTS: tuple[str, ...] = get_args(TargetLayout)


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
        weights: `imagenet` (torchvision's published file, fetched with its hash), `none` (random), or a file.
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
            raise UsageError("network.weights is empty; allowed: imagenet, none or a file.")


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """The labelled data set.

    Args:
        layout: how the folder is arranged. `folder` is images/ and labels/ matched by stem, with a classes.yaml.
        root: the folder. Toytown needs none.
        split: a split by the layout's own name (`train`, `val`); empty means everything there is.
        ids: what the label files hold: `auto` (what the layout's publisher wrote), `cityscapes-id`,
            `cityscapes-trainid`, `synthia-id`, or `classes` (as classes.yaml or the label space has them).
        height: training height in pixels, before any crop.
        width: training width in pixels, before any crop.
        limit: use only the first so many images in name order; 0 means all. For Toytown: how many scenes there are.
        ignore_mask: PNG whose non-zero pixels count as void in every image, resized to each; empty means none.
    """

    layout: Layout = "folder"
    root: str = ""
    split: str = ""
    ids: Literal["auto", "cityscapes-id", "cityscapes-trainid", "synthia-id", "classes"] = "auto"
    height: int = 512
    width: int = 1024
    limit: int = 0
    ignore_mask: str = ""

    def __post_init__(self) -> None:
        one_of("data.source.layout", self.layout, LAYOUTS)
        one_of("data.source.ids", self.ids, ("auto", "cityscapes-id", "cityscapes-trainid", "synthia-id", "classes"))
        in_range("data.source.height", self.height, 32, 8192)
        in_range("data.source.width", self.width, 32, 8192)
        in_range("data.source.limit", self.limit, 0)


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """The unlabelled frames of the camera the network is for. There is no label field.

    Args:
        layout: `frames` is a folder (searched below), a glob or a video; the others find a data set's images.
        root: the folder, glob or video. Empty means no target (plain source-only training). Toytown needs none.
        split: a split by the layout's own name; empty means everything there is.
        height: training height in pixels, before any crop.
        width: training width in pixels, before any crop.
        limit: use only so many frames, evenly spread; 0 means all. For Toytown: how many scenes there are.
        seconds: spacing of the frames that are taken from a video, in seconds.
        static: frames of a video whose mean absolute grey difference from the last kept one is below this many of 255
            levels are left out, so that a standing car does not fill the set; 0 keeps all.
    """

    layout: TargetLayout = "frames"
    root: str = ""
    split: str = ""
    height: int = 512
    width: int = 1024
    limit: int = 0
    seconds: float = 0.5
    static: float = 2.0

    def __post_init__(self) -> None:
        one_of("data.target.layout", self.layout, TARGET_LAYOUTS)
        in_range("data.target.height", self.height, 32, 8192)
        in_range("data.target.width", self.width, 32, 8192)
        in_range("data.target.limit", self.limit, 0)
        in_range("data.target.seconds", self.seconds, 0)
        in_range("data.target.static", self.static, 0, 255)

    @property
    def given(self) -> bool:
        """True where there are target frames at all."""
        return bool(self.root) or self.layout.startswith("toytown")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read, and how.

    Args:
        source: the labelled simulator.
        target: the unlabelled footage.
        batch_size: images of each domain in a step, over all processes.
        workers: loader processes for each domain; 0 loads in the training process. No result depends on it.
        on_bad: `stop` lists every unusable file and ends with exit code 4; `skip` leaves them out, counts and says so.
        ignore_mask: PNG whose non-zero pixels of the target camera never count (the car's own hood, burnt-in text).
    """

    source: SourceConfig = field(default_factory=SourceConfig)
    target: TargetConfig = field(default_factory=TargetConfig)
    batch_size: int = 1
    workers: int = 2
    on_bad: Literal["stop", "skip"] = "stop"
    ignore_mask: str = ""

    def __post_init__(self) -> None:
        in_range("data.batch_size", self.batch_size, 1)
        in_range("data.workers", self.workers, 0, 256)
        one_of("data.on_bad", self.on_bad, ("stop", "skip"))


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What happens to an image between the file and the batch. 0 switches a part off.

    Args:
        crop_height: height of the random crop that is trained on; 0 means the whole image.
        crop_width: width of the random crop; 0 means the whole image.
        flip: probability of a left-right flip.
        scale_min: smallest factor of random resizing; a crop always stays inside the image.
        scale_max: largest factor of random resizing.
        white_point: each channel's white point moves by U(-v, v) levels (paper, Sec. 5: 75).
        jitter: each channel is shifted by U(-v, v) levels (paper, Sec. 5: 25).
        brightness: factor 1 + U(-v, v).
        contrast: factor 1 + U(-v, v) about the image's mean.
        saturation: factor 1 + U(-v, v) of the distance from grey.
        hue: turn of the hue by U(-v, v) degrees.
        blur: probability of a Gaussian blur.
        blur_sigma: largest standard deviation of the blur, in pixels.
        noise: largest standard deviation of Gaussian noise, in levels.
        target_colors: whether colours, blur and noise change target images too; self-training wants them as they are
            for its teacher, and changes what its student sees by `strong`.
        lab_transfer: probability that a source image takes mean and spread of its LAB channels from a random
            unlabelled target frame.
        rare_class_temperature: source images are drawn by class with probability softmax((1 - frequency) / T); 0 draws
            them evenly.
    """

    crop_height: int = 0
    crop_width: int = 0
    flip: float = 0.5
    scale_min: float = 1.0
    scale_max: float = 1.0
    white_point: float = 0.0
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    blur: float = 0.0
    blur_sigma: float = 1.0
    noise: float = 0.0
    target_colors: bool = True
    lab_transfer: float = 0.0
    rare_class_temperature: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip", "blur", "lab_transfer", "brightness", "contrast", "saturation"):
            in_range(f"augment.{name}", getattr(self, name), 0, 1)
        for name in ("white_point", "jitter", "noise"):
            in_range(f"augment.{name}", getattr(self, name), 0, 255)
        in_range("augment.hue", self.hue, 0, 180)
        in_range("augment.blur_sigma", self.blur_sigma, 0, 20)
        in_range("augment.rare_class_temperature", self.rare_class_temperature, 0)
        in_range("augment.scale_min", self.scale_min, 0.1, 10)
        in_range("augment.scale_max", self.scale_max, self.scale_min, 10)
        in_range("augment.crop_height", self.crop_height, 0, 8192)
        in_range("augment.crop_width", self.crop_width, 0, 8192)
        if bool(self.crop_height) != bool(self.crop_width):
            raise UsageError("augment.crop_height and augment.crop_width go together; set both or neither.")
        if self.scale_max != self.scale_min and not self.crop_height:
            raise UsageError("augment.scale_min/scale_max give images of several sizes; set augment.crop_height too.")

    def without_colors(self) -> "AugmentConfig":
        """Return what is left of it without colours, blur and noise: flip, scale and crop."""
        return replace(
            self,
            white_point=0.0,
            jitter=0.0,
            brightness=0.0,
            contrast=0.0,
            saturation=0.0,
            hue=0.0,
            blur=0.0,
            noise=0.0,
        )


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
        cluster: lambda_C, of source and target clustering each.
        perpendicularity: lambda_P.
        norm: lambda_N, of source and target each.
        entropy: lambda_EM.
        entropy_ratio: alpha of the image-wise weighting of MaxSquare.
        prototype: of the prototype cross-entropy of source and target each (`latent.form scale-free` alone).
        self_training: of the cross-entropy on mixed images with the teacher's labels.
        masked: of the cross-entropy on target images with hidden blocks.
        distance: of the feature distance to the starting backbone.
        distill: of the divergence from the teacher's opinion, of source and target each.
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

    def __post_init__(self) -> None:
        for name in WEIGHT_NAMES:
            in_range(f"weights.{name}", getattr(self, name), 0)
        in_range("weights.entropy_ratio", self.entropy_ratio, 0, 1)


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
        method: one of `METHOD_NAMES`.
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
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    log: LogConfig = field(default_factory=LogConfig)

    def __post_init__(self) -> None:
        one_of("method", self.method, METHOD_NAMES)
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
        sizes = {(domain.height, domain.width) for domain in domains.values()}
        if self.network.forward == "joint" and len(sizes) > 1 and not (crop_height and crop_width):
            raise UsageError(
                "network.forward joint puts both images into one batch, and they are of two sizes. Set the same "
                "--data.source.height and .width as --data.target.height and .width, or a crop by "
                "--augment.crop_height and --augment.crop_width."
            )
        for name, domain in domains.items():
            smallest = (domain.height * self.augment.scale_min, domain.width * self.augment.scale_min)
            if crop_height > smallest[0] or crop_width > smallest[1]:
                raise UsageError(
                    f"the crop of {crop_width}x{crop_height} leaves the {name} image of "
                    f"{smallest[1]:.0f}x{smallest[0]:.0f}. "
                    f"Set --augment.crop_width/--augment.crop_height or --data.{name}.width/--data.{name}.height."
                )
        if self.distill.teacher and self.method != "distill":
            raise UsageError(
                f"distill.teacher is {self.distill.teacher}, and method {self.method} has no such teacher. Set "
                "--distill.teacher '', or --method distill."
            )
        if METHOD_WEIGHTS[self.method].count("self_training"):
            self._check_self_training(sizes)
        for name in sorted(set(WEIGHT_NAMES) - set(METHOD_WEIGHTS[self.method])):
            if getattr(self.weights, name):
                users = ", ".join(method for method, names in METHOD_WEIGHTS.items() if name in names)
                raise UsageError(
                    f"weights.{name} is {getattr(self.weights, name)}, and method {self.method} has no such term "
                    f"({users} have). Set --weights.{name} 0, or another --method."
                )

    def _check_self_training(self, sizes: set[tuple[int, int]]) -> None:
        """Raise unless the images of both domains can be mixed and the weights fit the form of the constraints."""
        mixes = self.method != "distill" or self.self_training.mix == "class"
        if mixes and len(sizes) > 1 and not self.augment.crop_height:
            raise UsageError(
                f"method {self.method} mixes source and target images, and they are of two sizes. Set the same "
                "--data.source.height and .width as --data.target.height and .width, or a crop by "
                "--augment.crop_height and --augment.crop_width."
            )
        if self.method == "distill":
            at_default(self, (*_OWN_TEACHER_ALONE, *_PRINTED_ALONE), "method distill")
        elif self.method == "self-training":
            at_default(self, _PRINTED_ALONE, "method self-training")
        elif self.latent.form == "scale-free":
            at_default(self, _PRINTED_ALONE, "latent.form scale-free")
        latent = (self.latent.form, self.latent.labels, self.latent.image)
        latent_weights = (self.weights.cluster, self.weights.perpendicularity, self.weights.prototype)
        if self.method == "distill" and any(latent_weights) and latent != ("scale-free", "teacher", "mixed"):
            raise UsageError(
                f"latent is form {latent[0]}, labels {latent[1]}, image {latent[2]}; method distill has the scale-free "
                "constraints with the teacher's labels on the images it trains on. Set --latent.form scale-free, "
                "--latent.labels teacher and --latent.image mixed."
            )
        other = {"scale-free": ("norm",), "printed": ("prototype",)}[self.latent.form]
        for name in other:
            if getattr(self.weights, name):
                raise UsageError(
                    f"weights.{name} is {getattr(self.weights, name)}, and latent.form {self.latent.form} has no such "
                    f"term. Set --weights.{name} 0, or another --latent.form."
                )

    def needs_target(self) -> str | None:
        """Return what in this configuration cannot do without unlabelled target frames, None where nothing is."""
        needs = {
            f"method {self.method}": self.method not in SUPERVISED_METHODS,
            "augment.lab_transfer": self.augment.lab_transfer > 0,
            "network.batch_norm target": self.network.batch_norm == "target",
        }
        return next((what for what, needed in needs.items() if needed), None)
