"""Defines the sections of the configuration about the network, its training, loss terms and teachers."""

import re
from dataclasses import dataclass, field, fields
from math import inf
from typing import Literal, get_args

from lsr_infer.errors import UsageError
from lsr_train.config.fields import ABOVE_0, check_fields, one_of

_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
Backbone = Literal["resnet18", "resnet34", "resnet50", "resnet101", "efficientnet-lite0", "efficientnet-lite2"]
BACKBONE_NAMES: tuple[str, ...] = get_args(Backbone)


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """DeepLabV2 and how its batch-norm behaves.

    Args:
        backbone: which ResNet or EfficientNet-Lite.
        width: channel factor of a ResNet; 0.5 is the half-width network. An EfficientNet-Lite has the one of its name.
        output_stride: image pixels per feature cell, 8 or 16.
        stem: `caffe` has the stride in the first 1x1 of a stage and a ceil-mode max-pool (AdaptSegNet's
            line of checkpoints); `torchvision` has it in the 3x3 and pads. An EfficientNet-Lite takes `torchvision`.
        dilations: dilation of each branch of the classifier; their outputs are summed.
        normalization: `caffe-bgr` is BGR 0..255 minus a mean; `imagenet-rgb` is RGB 0..1 minus mean, divided by std;
            `lite-rgb` is RGB (level - 127) / 128, which EfficientNet-Lite's weights were trained with.
        weights: `imagenet` (torchvision's published file, fetched with its hash; an EfficientNet-Lite's from the
            installed package), `none` (random), a file, or, for a student as deep as its teacher, `teacher`: those of
            the teacher's channels that carry most.
        batch_norm: `train` (statistics of each batch), `frozen` (those of the starting weights), `target`
            (re-estimated once on unlabelled target frames, then frozen).
        batch_norm_frames: how many target frames `target` uses.
        forward: `separate` runs source and target one after the other, `joint` as one batch.
    """

    backbone: Backbone = "resnet101"
    width: float = 1.0
    output_stride: int = 8
    stem: Literal["torchvision", "caffe"] = "torchvision"
    dilations: tuple[int, ...] = (6, 12, 18, 24)
    normalization: Literal["imagenet-rgb", "caffe-bgr", "lite-rgb"] = "imagenet-rgb"
    weights: str = "imagenet"
    batch_norm: Literal["train", "frozen", "target"] = "train"
    batch_norm_frames: int = 160
    forward: Literal["separate", "joint"] = "separate"

    def __post_init__(self) -> None:
        check_fields(self, "network", width=(0.0625, 2), batch_norm_frames=(1, inf))
        one_of("network.output_stride", self.output_stride, (8, 16))
        if self.backbone not in _RESNETS:
            for name, only in (("width", 1), ("stem", "torchvision")):
                if getattr(self, name) != only:
                    raise UsageError(
                        f"network.{name} is {getattr(self, name)}, which is for ResNets. Set --network.{name} {only} "
                        f"with {self.backbone}."
                    )
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
        check_fields(self, "optim.lr_multipliers", stem=(0, inf), backbone=(0, inf), head=(0, inf))


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
        check_fields(
            self, "optim", lr=(ABOVE_0, 10), momentum=(0, 0.9999), weight_decay=(0, 1), poly_power=(0, 10),
            poly_steps=(0, inf), warmup_steps=(0, inf), clip_norm=(0, inf),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The loop.

    Args:
        steps: optimiser steps.
        precision: `bf16`, `fp16` (with loss scaling; needs CUDA), `fp32`, or `auto`: bf16 where the device is faster
            with it, else fp32. A run folder keeps what was taken.
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
        positive = dict.fromkeys(("steps", "accumulate", "checkpoint_every", "keep"), (1, inf))
        check_fields(self, "train", **positive, threads=(0, 1024))
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
        check_fields(self, "histogram", threshold=(ABOVE_0, 1))


@dataclass(frozen=True, kw_only=True)
class PseudoLabelsConfig:
    """Labels of target cells (paper, Sec. 3).

    Args:
        confidence: T_p, in [0, 1]. A cell keeps its label if the mean of its pixels' peak probability is above it; at
            1 none does.
    """

    confidence: float = 0.5

    def __post_init__(self) -> None:
        check_fields(self, "pseudo_labels", confidence=(0, 1))


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
        check_fields(self, "prototypes", decay=(0, 0.999999))


@dataclass(frozen=True, kw_only=True)
class NormConfig:
    """L_N (paper, Eq. 7 and 8).

    Args:
        delta: the enhancement step, in units of the norm.
    """

    delta: float = 0.002

    def __post_init__(self) -> None:
        check_fields(self, "norm", delta=(0, inf))


@dataclass(frozen=True, kw_only=True)
class WeightsConfig:
    """Weights of the loss terms; cross-entropy has weight 1 (paper, Eq. 4). 0 leaves a term out altogether.

    Args:
        cluster: lambda_C, of source and target clustering each; of OCE both together.
        perpendicularity: lambda_P.
        norm: lambda_N, of source and target each.
        entropy: lambda_EM.
        entropy_ratio: alpha of the image-wise weighting of MaxSquare.
        prototype: of the prototype cross-entropy of source and target each (`latent.form cosine` alone).
        self_training: of the cross-entropy on mixed images with the teacher's labels.
        masked: of the cross-entropy on target images with hidden blocks.
        distance: of the feature distance to the starting backbone.
        distill: of the divergence from the teacher's predictions, of source and target each.
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
        ranges = dict.fromkeys((item.name for item in fields(self)), (0, inf))
        check_fields(self, "weights", **(ranges | {"entropy_ratio": (0, 1)}))


@dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """The optimiser of a method's critic.

    Args:
        lr: base learning rate of its Adam; it decays as that of the network, without warm-up.
    """

    lr: float = 1e-4

    def __post_init__(self) -> None:
        check_fields(self, "critic", lr=(ABOVE_0, 1))


@dataclass(frozen=True, kw_only=True)
class SelfTrainingConfig:
    """The teacher and its labels (mean teacher, DACS, ReMixMatch, ProDA, MIC; each part by itself).

    Args:
        decay: alpha of the teacher's moving average; rises to it from 1/2 over the first steps.
        threshold: a pixel is confident where the teacher's peak probability is above it.
        weighting: `fraction` gives every target pixel the share of the confident ones in the batch (DACS, DAFormer),
            `confident` 1 to the confident ones alone, `all` 1 to all.
        mix: `class` pastes half of a source image's classes onto the target image, `none` trains on the target alone.
        alignment: how far the teacher's class frequencies are held to those of the source batches (which have rare
            classes more often where `augment.rare_class_temperature` says so), over the places that count, 0 to 1.
        alignment_of: which frequencies, those of its `probabilities` (ReMixMatch) or those of its `labels`, which are
            what the student learns.
        alignment_decay: of the running frequencies.
        alignment_guard: whether the labels' alignment weakens where the source's frequencies and those that the teacher
            begins with differ, and then holds the labels to the latter.
        rectify: temperature of the prototype rectification of the teacher's labels; 0 switches it off.
        rectify_decay: of its prototypes.
        rectify_from: step from which labels are rectified; prototypes are gathered before.
        mask_block: side of the hidden blocks of masked consistency, in pixels.
        mask_ratio: share of the blocks that are hidden.
        keep: which network is evaluated and saved, `student` or `teacher`.
    """

    decay: float = 0.99
    threshold: float = 0.968
    weighting: Literal["fraction", "confident", "all"] = "fraction"
    mix: Literal["class", "none"] = "class"
    alignment: float = 1.0
    alignment_of: Literal["probabilities", "labels"] = "probabilities"
    alignment_decay: float = 0.99
    alignment_guard: bool = False
    rectify: float = 0.0
    rectify_decay: float = 0.99
    rectify_from: int = 50
    mask_block: int = 32
    mask_ratio: float = 0.7
    keep: Literal["student", "teacher"] = "student"

    def __post_init__(self) -> None:
        decays = dict.fromkeys(("decay", "alignment_decay", "rectify_decay"), (0, 0.999999))
        check_fields(
            self, "self_training", **decays, threshold=(0, 1), alignment=(0, 1), mask_ratio=(0, 1), rectify=(0, 10),
            rectify_from=(0, inf), mask_block=(1, 8192),
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StrongConfig:
    """What the student's mixed images go through beside what the loader does. 0 switches a part off.

    Args:
        probability: of the colour changes, for each image.
        brightness: factor 1 + U(-v, v).
        contrast: factor 1 + U(-v, v) about the image's grey mean.
        saturation: factor 1 + U(-v, v) of the distance from grey.
        hue: turn of the hue by U(-v, v) degrees.
        blur: probability of a Gaussian blur.
        blur_sigma: its largest standard deviation, in pixels.
    """

    probability: float = 0.8
    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.25
    hue: float = 18.0
    blur: float = 0.5
    blur_sigma: float = 1.15

    def __post_init__(self) -> None:
        shares = dict.fromkeys(("probability", "brightness", "contrast", "saturation", "blur"), (0, 1))
        check_fields(self, "strong", **shares, hue=(0, 180), blur_sigma=(0, 20))


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """The finished network that teaches a student. Its labels are those of `self_training`.

    Args:
        teacher: run folder, checkpoint folder or model file; a run's config.yaml names the very file.
        sha256: of the teacher's file; empty takes it from the file, and a run's config.yaml holds it.
        temperature: divides the logits of both before they are compared.
        teacher_size: size at which the teacher sees images, the `student`'s or its `own` of training.
        teacher_dilations: of the classifier of a teacher that is a published .pth, whose names do not tell them; empty
            takes those of AdaptSegNet's code.
    """

    teacher: str = ""
    sha256: str = ""
    temperature: float = 1.0
    teacher_size: Literal["own", "student"] = "student"
    teacher_dilations: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_fields(self, "distill", temperature=(ABOVE_0, 100))
        if self.sha256 and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            allowed = "64 hexadecimal digits in lower case, or nothing"
            raise UsageError(f"distill.sha256 is {self.sha256!r}; allowed: {allowed}. Set --distill.sha256.")


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """Form and place of LSR's constraints beside self-training; `distill` knows the defaults of the first three alone.

    Args:
        form: `paper` has the paper's equations, `cosine` the same on directions (`lsr_train.latent.directional`).
        labels: whose labels the target's features get, the `teacher`'s or the `student`'s own.
        image: which features the target's terms see, those of the `mixed` image that is trained on anyway, or of the
            `target` image, which costs one more forward and backward.
        temperature: of the prototype cross-entropy.
    """

    form: Literal["paper", "cosine"] = "cosine"
    labels: Literal["teacher", "student"] = "teacher"
    image: Literal["mixed", "target"] = "mixed"
    temperature: float = 0.1

    def __post_init__(self) -> None:
        check_fields(self, "latent", temperature=(ABOVE_0, 10))
