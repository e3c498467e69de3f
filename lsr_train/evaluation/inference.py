"""A network on frames as decoders deliver them: what is asked of both, and the forward of scoring and signals."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from lsr_train.data.frames import TargetFrames
from lsr_train.device import Precision, autocast
from lsr_train.losses.pixel import upsample
from lsr_train.network import DeepLabV2, reestimate_batch_norm

__all__ = [
    "LOOK_BATCH",
    "FrameBatch",
    "Frames",
    "SegmentationNetwork",
    "classes_of",
    "in_eval_mode",
    "logits_of",
    "peak",
    "take_target_statistics",
]

LOOK_BATCH = 8
"""Frames a forward in looks and statistics; ours, no result depends on it but the last bits."""


class SegmentationNetwork(Protocol):
    """What is asked of a network: normalisation, and an output that has `logits`."""

    @property
    def normalize(self) -> Callable[[Tensor], Tensor]:
        """Frames uint8 [B,H,W,3] to image [B,3,H,W]."""
        ...

    def __call__(self, image: Tensor) -> Any:
        """Return an object with `logits` [B,C,h,w]."""
        ...

    def parameters(self) -> Iterator[nn.Parameter]:
        """Return the weights, whose device is the one to compute on."""
        ...

    def modules(self) -> Iterator[nn.Module]:
        """Return the network and every part of it."""
        ...


class Frames(Protocol):
    """Unlabelled frames of one size: `FrameBatch`, and the loader's unlabelled batches."""

    @property
    def frames(self) -> Tensor:
        """Uint8 [B,H,W,3], BGR."""
        ...

    @property
    def mask(self) -> Tensor | None:
        """Bool [B,H,W], true where a pixel counts; None means everywhere."""
        ...


class FrameBatch(NamedTuple):
    """The plain form of `Frames`."""

    frames: Tensor
    mask: Tensor | None = None


@contextmanager
def in_eval_mode(network: SegmentationNetwork) -> Iterator[None]:
    """Run a block with every part of the network in evaluation mode and without gradients; put each mode back after."""
    modes = [(module, module.training) for module in network.modules()]
    try:
        for module, _ in modes:
            module.training = False
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def logits_of(network: SegmentationNetwork, image: Tensor, precision: Precision) -> Tensor:
    """Return the logits of an image as float32 [B,C,h,w]."""
    with autocast(image.device, precision):
        logits: Tensor = network(image).logits
    return logits.float()


def classes_of(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the class map [B,H,W] of logits [B,C,h,w]."""
    return peak(upsample(logits, size))


def peak(logits: Tensor) -> Tensor:
    """Return the class of every pixel; on a CPU argmax takes five to eight times as long for the same."""
    return logits.max(dim=1).indices


def take_target_statistics(network: DeepLabV2, frames: TargetFrames) -> str:
    """Give a network the batch-norm statistics of unlabelled target frames (AdaBN).

    Returns:
        A phrase that says so.
    """
    device = next(network.parameters()).device
    batches = frames.batches(LOOK_BATCH, whole=True)
    images: Iterator[Tensor] = (network.normalize(batch.to(device)) for batch, _ in batches)  # [B,3,H,W] each
    reestimate_batch_norm(network, images)
    return f"batch-norm re-estimated on {len(frames)} unlabelled target frames"
