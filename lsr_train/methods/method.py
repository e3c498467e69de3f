"""Defines a method: named loss terms, their weights, and state that lives in buffers.

The engine weights the terms, sums them, calls `backward` once and steps every optimiser. A method never does, and it
knows nothing of files, devices, schedules or logs.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lsr_train.config.run import Config
from lsr_train.data.samples import LabelledBatch, UnlabelledBatch
from lsr_train.device import autocast
from lsr_train.losses.pixel import cross_entropy, upsample
from lsr_train.network import SegOutput
from lsr_train.selftraining import FrozenTeacher


class Network(Protocol):
    """Anything that maps an image [B,3,H,W] to logits and features at feature size."""

    def __call__(self, image: Tensor) -> SegOutput:
        """Run the network."""


class DomainOutputs(NamedTuple):
    """What both domains gave, the logits at image size (of masked pixels, too), the features [B,K,h,w]."""

    source_logits: Tensor
    source_features: Tensor
    target_logits: Tensor
    target_features: Tensor


class Method(nn.Module):
    """Base of all methods. A subclass defines `terms`, and overrides what else differs.

    Args:
        config: the resolved configuration.
        num_classes: C.
        channels: K, channels of the encoder's features.
    """

    uses_target: ClassVar[bool] = False
    """Whether `terms` reads the target batch; without it none is loaded."""
    labelled: LabelledBatch | None = None
    """Labelled frames of the target in this micro-batch, which the engine sets; None where a run has none."""

    def __init__(self, config: Config, num_classes: int, channels: int) -> None:
        super().__init__()
        self.config = config
        self.num_classes = num_classes
        self.channels = channels

    def terms(self, network: Network, source: LabelledBatch, target: UnlabelledBatch | None) -> dict[str, Tensor]:
        """Compute the unweighted loss terms of one micro-batch.

        Args:
            network: the network in training mode.
            source: labelled images.
            target: unlabelled images; None where `uses_target` is false.

        Returns:
            One scalar a term, differentiable; the keys are the columns of the log and never change within a run.
        """
        raise NotImplementedError

    def labelled_terms(self, network: Network) -> dict[str, Tensor]:
        """Compute the unweighted term of the target's labelled frames, their cross-entropy; none where there are none.

        The engine adds it to the `terms` of every method, weighted by `DataConfig.labelled_share`. The frames belong to
        the target, so they go through the network by themselves, whatever `network.forward` says: in training mode
        batch-norm sees no source image beside them, and frozen statistics are the target's. Nothing that aligns source
        with target (prototypes, norms, critics, entropies) counts them as either domain.
        """
        if self.labelled is None:
            return {}
        image, labels = self.labelled.image, self.labelled.labels
        logits = upsample(network(image).logits, labels.shape[-2:])  # [B,C,H,W]
        return {"labelled": cross_entropy(logits, labels)}

    def term_weights(self) -> dict[str, float]:
        """Return the weight of each term; a term that is not named has weight 1."""
        return {}

    def diagnostics(self) -> dict[str, Tensor]:
        """Return detached scalars of the last micro-batch for the log; the keys never change within a run."""
        return {}

    def remark(self, names: Sequence[str]) -> str:
        """Return what the log says of the method's state at an evaluation; `names` are those of the classes."""
        return ""

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the method's parameters that the main optimiser trains, by group name."""
        return {}

    def optimizers(self) -> dict[str, Optimizer]:
        """Return the method's optimisers (critics), by name; the engine steps, saves and resumes them."""
        return {}

    def after_step(self, network: nn.Module, step: int) -> None:
        """Do what follows an optimiser step, such as moving a teacher. `step` counts the steps done."""

    def start(self, network: nn.Module) -> None:
        """Take what is needed of the bare network that training starts from, such as a copy of it; called once."""

    def take_teacher(self, teacher: FrozenTeacher) -> None:
        """Take the finished network that the configuration names as teacher; called once, where it names one."""

    def begin(self, step: int, sample: int) -> None:
        """Learn which micro-batch comes next.

        Args:
            step: optimiser steps done.
            sample: number of its first image on this process; random numbers that are drawn by it are the same after
                resuming, and on however many processes.
        """

    def result(self, network: nn.Module) -> nn.Module:
        """Return the network that is evaluated and saved: `network`, or another of the same architecture."""
        return network

    def in_precision(self, image: Tensor) -> AbstractContextManager[Any]:
        """Return the block in which further networks compute in the precision of the one that trains."""
        precision = self.config.train.precision
        assert precision != "auto"  # the command has chosen
        return autocast(image.device, precision)

    def both_images(self, network: Network, source: Tensor, target: Tensor) -> tuple[SegOutput, SegOutput]:
        """Run the network on an image of each domain [B,3,H,W], as `network.forward` says."""
        if self.config.network.forward == "separate":
            return network(source), network(target)
        joint = network(torch.cat([source, target]))
        parts = (torch.split(part, [source.shape[0], target.shape[0]]) for part in joint)
        source_output, target_output = map(SegOutput._make, zip(*parts, strict=True))
        return source_output, target_output

    def both_domains(self, network: Network, source: LabelledBatch, target: UnlabelledBatch) -> DomainOutputs:
        """Run the network on both domains, as `network.forward` says, and upsample the logits to image size."""
        source_output, target_output = self.both_images(network, source.image, target.image)
        return DomainOutputs(
            upsample(source_output.logits, source.labels.shape[-2:]),
            source_output.features,
            upsample(target_output.logits, target.image.shape[-2:]),
            target_output.features,
        )
