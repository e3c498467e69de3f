"""Checks of what a caller of the latent functions passed: shapes, types and devices, never values.

A look at a value would wait for the device.
"""

import torch
from torch import Tensor

__all__ = ["check_cells", "check_features", "check_prototyped"]


def check_features(features: Tensor, channels: int | None = None) -> None:
    """Raise ValueError unless `features` are floating [B,K,h,w], with K channels where that is given."""
    if features.ndim != 4 or not features.is_floating_point():
        raise ValueError(f"features are {features.dtype} {tuple(features.shape)}; needed: floating [B,K,h,w]")
    if channels is not None and features.shape[1] != channels:
        raise ValueError(f"features have {features.shape[1]} channels, the prototypes {channels}")


def check_cells(features: Tensor, labels: Tensor, channels: int | None = None) -> None:
    """Raise ValueError unless `features` and cell labels [B,h,w] int64 belong together."""
    check_features(features, channels)
    if labels.dtype != torch.int64:
        raise ValueError(f"cell labels are {labels.dtype}; needed: torch.int64")
    if labels.shape != features[:, 0].shape:
        raise ValueError(
            f"cell labels are {tuple(labels.shape)}; features {tuple(features.shape)} need [B,h,w] of them"
        )
    if labels.device != features.device:
        raise ValueError(f"cell labels are on {labels.device}, features on {features.device}")


def check_prototyped(features: Tensor, labels: Tensor, prototypes: Tensor, seen: Tensor | None) -> None:
    """Raise ValueError unless features, cell labels, prototypes [C,K] and the classes seen [C] belong together."""
    if prototypes.ndim != 2:
        raise ValueError(f"prototypes are {tuple(prototypes.shape)}; needed: [C,K]")
    check_cells(features, labels, prototypes.shape[1])
    if prototypes.device != features.device:
        raise ValueError(f"prototypes are on {prototypes.device}, features on {features.device}")
    if seen is not None and (seen.shape != prototypes.shape[:1] or seen.dtype != torch.bool):
        raise ValueError(f"seen is {seen.dtype} {tuple(seen.shape)}; needed: bool [{prototypes.shape[0]}]")
