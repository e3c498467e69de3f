"""Assigns pixels to the cells of the feature grid, sums over cells, and checks tensors that lie on the grid.

DeepLabV2's logits are upsampled with `align_corners=True`, so pixel `y` of `H` lies at feature row `y*(h-1)/(H-1)` of
`h`, and each pixel belongs to its nearest cell. This one partition of the image serves label histograms and confidence.
"""

import torch
from torch import Tensor


def cell_indices(pixels: int, cells: int, *, device: torch.device) -> Tensor:
    """Return the cell of each pixel along one side: floor(y * (cells-1) / (pixels-1) + 1/2), [pixels] int64."""
    positions = torch.arange(pixels, device=device)
    span = max(pixels - 1, 1)
    return (2 * positions * (cells - 1) + span).div(2 * span, rounding_mode="floor")  # whole numbers: exact


def cell_sums(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Sum a map [B,H,W] of any real type over the pixels of each of (h, w) cells, [B,h,w] float64.

    Two products with 0/1 matrices: no scatter, so the order of summation is fixed on every device.
    """
    (height, width), device = values.shape[-2:], values.device
    rows = cell_indices(height, size[0], device=device) == torch.arange(size[0], device=device)[:, None]  # [h,H]
    columns = cell_indices(width, size[1], device=device) == torch.arange(size[1], device=device)[:, None]  # [w,W]
    return rows.double() @ (values.double() @ columns.double().T)  # [B,h,w]


def void_last(labels: Tensor, num_classes: int) -> Tensor:
    """Return labels with everything that is no class as C."""
    return torch.where((labels >= 0) & (labels < num_classes), labels, num_classes)


def one_hot(labels: Tensor, num_classes: int, dtype: torch.dtype) -> Tensor:
    """Return [B,C,h,w], 1 where a cell of labels [B,h,w] has the class."""
    classes = torch.arange(num_classes, device=labels.device)
    return (labels[:, None] == classes[:, None, None]).to(dtype)


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the type that losses compute in: float32, or float64 for float64."""
    return torch.promote_types(dtype, torch.float32)


def check_logits(logits: Tensor, mask: Tensor | None = None) -> None:
    """Raise ValueError unless logits are floating [B,C,H,W] and the mask bool [B,H,W]."""
    if logits.ndim != 4 or not logits.is_floating_point():
        raise ValueError(f"logits are {logits.dtype} {tuple(logits.shape)}; needed: floating [B,C,H,W]")
    if mask is not None and (mask.shape != logits[:, 0].shape or mask.dtype != torch.bool):
        raise ValueError(f"mask is {mask.dtype} {tuple(mask.shape)}; needed: bool {tuple(logits[:, 0].shape)}")


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
        raise ValueError(f"cell labels are {tuple(labels.shape)}; needed: [B,h,w] of features {tuple(features.shape)}")
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
