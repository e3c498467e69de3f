"""Measures on unlabelled frames where a network's views of a frame disagree, and what the frames are like.

The views are the frame as it is, its mirror image, the frame at other scales and, where there is one, what the run's
other network (teacher or student) says. Everything is measured on feature cells.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lsr_train.data.samples import UnlabelledBatch
from lsr_train.device import Precision, autocast
from lsr_train.evaluation.scores import in_eval_mode, logits_of
from lsr_train.evaluation.signals import AGREEMENT_SCALES
from lsr_train.latent.cells import cell_sums
from lsr_train.losses.pixel import upsample
from lsr_train.network import DeepLabV2

__all__ = ["FootageViews", "ViewNetworks", "disagreement", "measure_views"]


@dataclass(frozen=True, kw_only=True)
class ViewNetworks:
    """The network that is asked, the teacher of its run if it is a student (or the reverse), and the precision."""

    network: DeepLabV2
    other: DeepLabV2 | None = None
    precision: Precision = "fp32"


def disagreement(views: Sequence[Tensor]) -> Tensor:
    """Return how far predictions are from one another: the Jensen-Shannon divergence of all (Lin 1991).

    It is the entropy of the mean prediction minus the mean entropy: 0 where all views say the same, be it unsurely, and
    log V where each of V views is sure of something else. What is merely hard is not counted, what is inconsistent is.

    Args:
        views: logits [B,C,h,w] each, float32, two at least.

    Returns:
        [B,h,w], divided by log V: in [0, 1].
    """
    logs = torch.stack([view.log_softmax(dim=1) for view in views])  # [V,B,C,h,w]
    mean = logs.exp().mean(dim=0)  # [B,C,h,w]
    whole = -(mean * mean.clamp(min=1e-30).log()).sum(dim=1)
    each = -(logs.exp() * logs).sum(dim=2).mean(dim=0)
    return ((whole - each) / math.log(len(views))).clamp(min=0, max=1)


@dataclass(frozen=True, kw_only=True)
class FootageViews:
    """What was measured of N frames.

    Args:
        doubt: summed disagreement [N,C] float64 of a frame's cells, by the class that the views give together.
        cells: the number of these cells [N,C] float64; masked ones do not count.
        features: mean feature of each frame [N,K] float32, in units of the mean spread of features within a frame, so
            that distances mean the same whatever network it is.
    """

    doubt: NDArray[np.float64]
    cells: NDArray[np.float64]
    features: NDArray[np.float32]

    LEAST_SHARE = 0.01
    """A class with a smaller share of the cells counts as if it had this one: it may be a mere mistake. Ours."""

    @property
    def disagreement(self) -> NDArray[np.float64]:
        """Mean disagreement of each frame's cells [N], in [0, 1]."""
        return np.asarray(self.doubt.sum(axis=1) / np.maximum(self.cells.sum(axis=1), 1))

    @property
    def scores(self) -> NDArray[np.float64]:
        """The same with every class of the footage counting alike, as in mean IoU, [N] >= 0.

        A cell's weight is 1 / (classes there are x share of its class among all cells).
        """
        shares = self.cells.sum(axis=0) / max(self.cells.sum(), 1)
        weights = np.where(shares > 0, 1 / np.maximum(shares, self.LEAST_SHARE), 0) / max((shares > 0).sum(), 1)
        return np.asarray((self.doubt * weights).sum(axis=1) / np.maximum(self.cells.sum(axis=1), 1))


def view_logits(networks: ViewNetworks, image: Tensor) -> tuple[list[Tensor], Tensor]:
    """Return the logits of all views of a normalised image [B,3,H,W], each [B,C,h,w], and its features [B,K,h,w]."""
    network, precision = networks.network, networks.precision
    with autocast(image.device, precision):
        plain = network(image)
    size = (plain.logits.shape[2], plain.logits.shape[3])
    views = [plain.logits.float(), logits_of(network, image.flip(-1), precision).flip(-1)]
    for scale in AGREEMENT_SCALES:
        smaller = (max(1, round(image.shape[2] * scale)), max(1, round(image.shape[3] * scale)))
        resized = functional.interpolate(image, size=smaller, mode="bilinear", antialias=scale < 1)
        views.append(upsample(logits_of(network, resized, precision), size))
    if networks.other is not None:
        views.append(logits_of(networks.other, image, precision))
    return views, plain.features.float()


def measure_views(networks: ViewNetworks, batches: Iterable[UnlabelledBatch]) -> FootageViews:
    """Run all views of every frame, batch by batch, on the network's device; at least one frame is needed."""
    device = next(networks.network.parameters()).device
    parts: list[tuple[NDArray[Any], ...]] = []
    with in_eval_mode(networks.network):
        for raw in batches:
            batch = raw.on(device, networks.network.normalize)
            views, features = view_logits(networks, batch.image)
            found = disagreement(views).double().flatten(1)  # [B,h*w]
            size = (features.shape[2], features.shape[3])
            counted = torch.ones_like(found)
            if batch.mask is not None:  # a cell counts by the share of its pixels that do
                pixels = cell_sums(torch.ones_like(batch.mask[:1]), size)
                counted = (cell_sums(batch.mask, size) / pixels).double().flatten(1)
            classes = torch.stack([view.softmax(dim=1) for view in views]).mean(dim=0).max(dim=1).indices.flatten(1)
            empty = torch.zeros(len(classes), views[0].shape[1], dtype=torch.float64, device=device)
            parts.append((
                empty.scatter_add(1, classes, found * counted).cpu().numpy(),
                empty.scatter_add(1, classes, counted).cpu().numpy(),
                features.mean(dim=(2, 3)).cpu().numpy(),
                features.var(dim=(2, 3), correction=0).sum(dim=1).sqrt().cpu().numpy(),
            ))  # fmt: skip
    doubt, cells, pooled, spread = (np.concatenate(part) for part in zip(*parts, strict=True))
    scaled = np.asarray(pooled / max(float(spread.mean()), 1e-12), dtype=np.float32)
    return FootageViews(doubt=doubt, cells=cells, features=scaled)
