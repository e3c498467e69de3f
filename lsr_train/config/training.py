"""Defines the sections about the network, its optimiser and the training loop."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from lsr_infer.errors import UsageError
from lsr_train.config.checks import in_range, one_of

__all__ = ["BACKBONES", "LrMultipliers", "NetworkConfig", "OptimConfig", "TrainConfig"]

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
        batch_norm_frames: how many target frames `target` uses.
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
