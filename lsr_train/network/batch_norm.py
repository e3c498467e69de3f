"""Batch-norm statistics of another domain (AdaBN): re-estimated on its unlabelled images, then frozen."""

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from lsr_train.network.deeplab import DeepLabV2

__all__ = ["reestimate_batch_norm"]


def reestimate_batch_norm(network: DeepLabV2, images: Iterable[Tensor]) -> None:
    """Replace the running statistics by the plain average over `images`, and freeze them.

    Every batch counts the same whatever its size, so let them be of one size. Weights do not move, no gradient is
    computed, and the network keeps its training or evaluation mode. An autocast around the call applies.

    Args:
        network: changed in place; afterwards `network.batch_norm` is `frozen`.
        images: batches [B,3,H,W] of normalised input on the network's device.

    Raises:
        ValueError: there are no images; the statistics are then what they were.
    """
    modules = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [module.momentum for module in modules]
    training = network.training
    network.eval()
    count = 0
    try:
        with torch.no_grad():
            for image in images:
                if count == 0:
                    for module in modules:
                        module.reset_running_stats()
                        module.momentum = None  # torch's cumulative average
                        module.train()
                network.backbone(image)
                count += 1
    finally:
        for module, momentum in zip(modules, momenta, strict=True):
            module.momentum = momentum
        network.train(training)
    if count == 0:
        raise ValueError("batch-norm cannot be re-estimated on no images")
    network.set_batch_norm("frozen")
