"""Normalises decoded frames to network input: channel order, scale, mean and standard deviation.

The numbers belong to the weights a network started from, so they travel in its checkpoint.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Normalization:
    """The normalisation of the levels 0..255 of a frame: `(level * scale - mean) / std` in `channel_order`.

    Args:
        channel_order: `rgb` or `bgr`, the order of the network's input channels and of `mean` and `std`.
        scale: factor of the levels, above 0.
        mean: subtracted from the scaled levels.
        std: divides the rest, above 0.

    Raises:
        ValueError: a value is out of range or does not have three entries.
    """

    channel_order: Literal["rgb", "bgr"]
    scale: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if self.channel_order not in ("rgb", "bgr"):
            raise ValueError(f"channel_order is {self.channel_order!r}; allowed: rgb, bgr")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError(f"mean {self.mean} and std {self.std} must have three entries each")
        if not self.scale > 0 or not all(value > 0 for value in self.std):
            raise ValueError(f"scale {self.scale} and std {self.std} must be above 0")

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain JSON data."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}


NORMALIZATIONS: Mapping[str, Normalization] = {
    # torchvision's published weights
    "imagenet-rgb": Normalization(
        channel_order="rgb", scale=1 / 255, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
    ),
    # Caffe's line, AdaptSegNet's and the authors' checkpoints among it
    "caffe-bgr": Normalization(
        channel_order="bgr", scale=1.0, mean=(104.00699, 116.66877, 122.67891), std=(1.0, 1.0, 1.0)
    ),
}


class Normalize(nn.Module):
    """Turns BGR frames into network input."""

    factor: Tensor
    offset: Tensor

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        self.normalization = normalization
        self._swap = normalization.channel_order == "rgb"
        mean = torch.tensor(normalization.mean, dtype=torch.float64)
        std = torch.tensor(normalization.std, dtype=torch.float64)
        # Not persistent: the numbers are in the checkpoint's metadata, and weights keep torchvision's keys.
        self.register_buffer("factor", (normalization.scale / std).float(), persistent=False)
        self.register_buffer("offset", (-mean / std).float(), persistent=False)

    def forward(self, frames: Tensor) -> Tensor:
        """Normalise frames [B,H,W,3] of BGR levels 0..255, uint8 or floating.

        Returns:
            The image [B,3,H,W] in float32, laid out channels-last as the frames are (no copy is made to reorder it).
        """
        if frames.ndim != 4 or frames.shape[-1] != 3:
            raise ValueError(f"frames have shape {tuple(frames.shape)}; [B,H,W,3] is needed")
        levels = frames.float()
        if self._swap:
            levels = levels.flip(-1)
        return (levels * self.factor + self.offset).permute(0, 3, 1, 2)  # [B,3,H,W]

    def levels(self, image: Tensor) -> Tensor:
        """Undo `forward`: return BGR levels [B,H,W,3] in float32, a view where no channel has to move."""
        levels = (image.permute(0, 2, 3, 1) - self.offset) / self.factor
        return levels.flip(-1) if self._swap else levels
