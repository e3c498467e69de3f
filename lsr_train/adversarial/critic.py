"""The fully convolutional critic of AdaptSegNet, on encoder features."""

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FeatureCritic"]

_WIDTHS = (64, 128, 256, 512)
_LEAST = 32
"""Cells a side that five halvings need."""


class FeatureCritic(nn.Module):
    """Five 4x4 convolutions of stride 2, each but the last followed by a leaky ReLU (Tsai et al. 2018, Sec. 4).

    Args:
        channels: K, of the features.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in _WIDTHS:
            layers += [nn.Conv2d(channels, width, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
            channels = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, kernel_size=4, stride=2, padding=1))

    def forward(self, features: Tensor) -> Tensor:
        """Judge features.

        Args:
            features: [B,K,h,w]; a side of less than 32 cells is brought to 32 by bilinear interpolation, since nothing
                of it would be left.

        Returns:
            Scores [B,1,h',w'], above 0 for the target.
        """
        height, width = features.shape[-2:]
        if min(height, width) < _LEAST:
            size = (max(height, _LEAST), max(width, _LEAST))
            features = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
        scores: Tensor = self.layers(features)
        return scores
