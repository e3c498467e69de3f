"""Turns an observation into the figures' numbers: norms, angles, calibration, IoU near borders, pseudo-labels."""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsr_train.analysis.observation import BANDS, BINS, Observation
from lsr_train.metrics import iou, mean_iou

__all__ = [
    "FEWEST_TO_EMBED", "Polar", "band_iou", "embed", "inter_prototype_angles", "polar", "pseudo_accuracy",
    "pseudo_coverage", "reliability", "share", "summary",
]  # fmt: skip

_COMPONENTS = 50
"""Principal components that t-SNE sees (van der Maaten and Hinton 2008 took 30; scikit-learn advises up to 50)."""
FEWEST_TO_EMBED = 3


def embed(features: Tensor, seed: int = 0) -> NDArray[np.float32]:
    """Embed 3 or more feature vectors [N,K] in the plane [N,2] by their directions, without norms (Fig. 7)."""
    if len(features) < FEWEST_TO_EMBED:
        raise ValueError(f"{len(features)} vectors are too few for an embedding")
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    directions = (features / features.norm(dim=1, keepdim=True).clamp(min=1e-12)).numpy()
    components = min(_COMPONENTS, *directions.shape)
    reduced = PCA(components, random_state=seed).fit_transform(directions)
    perplexity = min(30.0, (len(directions) - 1) / 3)
    points = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return np.asarray(points, np.float32)


class Polar:
    """Norms [N] of feature vectors, their angles [N] to their classes' prototypes in degrees, and classes [N] (Fig. 5).

    `median`, and the band from `low` to `high` that holds 95 % of the norms, are attributes.
    """

    def __init__(self, norms: Tensor, angles: Tensor, labels: Tensor) -> None:
        self.norms, self.angles, self.labels = norms, angles, labels
        quantiles = torch.tensor([0.025, 0.5, 0.975], dtype=norms.dtype)
        band: list[float] = torch.quantile(norms, quantiles).tolist() if len(norms) else [math.nan] * 3
        self.low, self.median, self.high = band


def _unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors.double(), dim=1)


def _degrees(cosines: Tensor) -> Tensor:
    return torch.rad2deg(torch.arccos(cosines.clamp(-1, 1)))


def polar(observed: Observation) -> Polar:
    """Return norms and angles of the sample; a prototype is the mean over all labelled cells of its class."""
    if not len(observed.features):
        return Polar(torch.empty(0), torch.empty(0), observed.feature_labels)
    prototypes = _unit(observed.sums)[observed.feature_labels]
    angles = _degrees((_unit(observed.features) * prototypes).sum(dim=1))
    return Polar(observed.features.double().norm(dim=1), angles, observed.feature_labels)


def inter_prototype_angles(observed: Observation) -> Tensor:
    """Return each prototype's mean angle to every other [C], in degrees; NaN where a class has no cell (Fig. 6)."""
    present = observed.cells > 0
    angles = _degrees(_unit(observed.sums) @ _unit(observed.sums).T)
    pairs = present[:, None] & present[None, :] & ~torch.eye(len(present), dtype=torch.bool)
    return torch.where(pairs, angles, 0).sum(dim=1) / pairs.sum(dim=1)  # 0 / 0 is NaN


def share(counts: Tensor) -> Tensor:
    """Return counts as shares of their sum, float64; zeros where there is none."""
    return counts.double() / counts.sum().clamp(min=1)


def pseudo_accuracy(observed: Observation) -> Tensor:
    """Return the share of right ones among the cells that the network gave each class [C] float64; NaN without one."""
    return observed.pseudo_right.double() / observed.pseudo


def pseudo_coverage(observed: Observation) -> Tensor:
    """Return the share of each class's cells that the network gave any class [C] float64; NaN without one."""
    return observed.covered.double() / observed.cells


def reliability(observed: Observation) -> tuple[Tensor, Tensor]:
    """Return mean confidence and accuracy of each bin [BINS] float64; NaN where it is empty."""
    return observed.bin_confidence / observed.bin_count, observed.bin_right.double() / observed.bin_count


def band_iou(observed: Observation) -> Tensor:
    """Return the mean IoU within each band of distance from a border [D] float64; NaN where a band is empty."""
    return torch.tensor([mean_iou(iou(confusion)) if confusion.sum() else math.nan for confusion in observed.confusion])


def _plain(values: Tensor) -> list[float | None]:
    return [None if math.isnan(value) else round(value, 6) for value in values.tolist()]


def summary(observed: Observation) -> dict[str, Any]:
    """Return everything the figures show of a network as plain JSON data; shares of 1, angles in degrees."""
    names, spread = observed.space.names, polar(observed)
    angles = inter_prototype_angles(observed)
    confidence, accuracy = reliability(observed)

    def by_class(values: Tensor) -> dict[str, float | None]:
        return dict(zip(names, _plain(values), strict=True))

    known = angles[~angles.isnan()]
    return {
        "frames": observed.frames,
        "miou": _plain(torch.tensor([mean_iou(observed.iou)]))[0],
        "iou": by_class(observed.iou),
        "share_of_pixels": by_class(share(observed.pixels)),
        "share_of_cells": {
            "nearest": by_class(share(observed.nearest[:-1])), "histogram": by_class(share(observed.cells)),
            "void_nearest": _plain(share(observed.nearest))[-1],
            "void_histogram": _plain(share(observed.histogram))[-1],
        },
        "norms": {key: _plain(torch.tensor([getattr(spread, key)]))[0] for key in ("low", "median", "high")},
        "angle_to_prototype": by_class(torch.stack([
            spread.angles[spread.labels == index].double().mean() for index in range(len(names))
        ])),
        "angle_between_prototypes": {
            "mean": _plain(known.mean().view(1))[0], "by_class": by_class(angles),
        },
        "pseudo_labels": {
            "accuracy": by_class(pseudo_accuracy(observed)),
            "coverage": by_class(pseudo_coverage(observed)),
            "accuracy_of_all": _plain((observed.pseudo_right.sum().double() / observed.pseudo.sum()).view(1))[0],
            "coverage_of_all": _plain((observed.covered.sum().double() / observed.cells.sum()).view(1))[0],
        },
        "calibration": {
            "ece": _plain(torch.tensor([observed.expected_calibration_error]))[0], "bins": BINS,
            "share": _plain(share(observed.bin_count)), "confidence": _plain(confidence), "accuracy": _plain(accuracy),
        },
        "borders": {"pixels_up_to": [*BANDS, None], "miou": _plain(band_iou(observed)),
                    "share": _plain(share(observed.confusion.sum(dim=(1, 2))))},
    }  # fmt: skip
