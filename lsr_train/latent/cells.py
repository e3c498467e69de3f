"""Which pixels belong to which feature cell, and sums over the pixels of a cell.

DeepLabV2's logits are upsampled with `align_corners=True`, so pixel `y` of `H` lies at feature row `y*(h-1)/(H-1)` of
`h`, and each pixel belongs to its nearest cell. This one partition of the image serves label histograms and confidence.
"""

import torch
from torch import Tensor

__all__ = ["cell_indices", "cell_sums", "pixel_cells", "pixel_indices"]


def cell_indices(pixels: int, cells: int, *, device: torch.device) -> Tensor:
    """Return the cell of each pixel along one side: floor(y * (cells-1) / (pixels-1) + 1/2), [pixels] int64."""
    positions = torch.arange(pixels, device=device)
    span = max(pixels - 1, 1)
    return (2 * positions * (cells - 1) + span).div(2 * span, rounding_mode="floor")  # whole numbers: exact


def pixel_indices(pixels: int, cells: int, *, device: torch.device) -> Tensor:
    """Return the pixel nearest to each cell's centre along one side, [cells] int64: `cell_indices` turned round."""
    return cell_indices(cells, pixels, device=device)


def pixel_cells(image_size: tuple[int, int], size: tuple[int, int], *, device: torch.device) -> Tensor:
    """Return the cell of each pixel, rows first: [H,W] int64 in 0..h*w-1."""
    rows = cell_indices(image_size[0], size[0], device=device)
    columns = cell_indices(image_size[1], size[1], device=device)
    return rows[:, None] * size[1] + columns  # [H,W]


def cell_sums(values: Tensor, size: tuple[int, int]) -> Tensor:
    """Sum a map over the pixels of each cell, in float64.

    Args:
        values: [B,H,W], any real type.
        size: (h, w).

    Returns:
        [B,h,w] float64. Two products with 0/1 matrices: no scatter, so the order of summation is fixed on every device.
    """
    (height, width), device = values.shape[-2:], values.device
    rows = cell_indices(height, size[0], device=device) == torch.arange(size[0], device=device)[:, None]  # [h,H]
    columns = cell_indices(width, size[1], device=device) == torch.arange(size[1], device=device)[:, None]  # [w,W]
    return rows.double() @ (values.double() @ columns.double().T)  # [B,h,w]
