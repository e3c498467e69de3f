"""Networks of a few lines with the contract of the real one: `normalize`, and an output with logits at feature size."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class FakeOutput(NamedTuple):
    logits: Tensor
    features: Tensor


class FakeNormalize(nn.Module):
    def forward(self, frames: Tensor) -> Tensor:
        return frames.permute(0, 3, 1, 2) / 255 - 0.5

    def levels(self, image: Tensor) -> Tensor:
        return (image + 0.5).permute(0, 2, 3, 1) * 255


class ConvNetwork(nn.Module):
    """One strided convolution to features, one to logits; random but seeded."""

    def __init__(self, classes: int = 4, stride: int = 4, seed: int = 0) -> None:
        super().__init__()
        self.normalize = FakeNormalize()
        generator = torch.Generator().manual_seed(seed)
        self.encoder = nn.Conv2d(3, 8, 5, stride=stride, padding=2)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Conv2d(8, classes, 1)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    def forward(self, image: Tensor) -> FakeOutput:
        features = self.norm(self.encoder(image)).relu()
        return FakeOutput(self.head(features), features)


class PixelNetwork(nn.Module):
    """Its logits at feature size = image size depend on each pixel alone: channel c is high where blue equals c."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.normalize = FakeNormalize()
        self.sharpness = nn.Parameter(torch.tensor(100.0))
        self.classes = classes

    def forward(self, image: Tensor) -> FakeOutput:
        blue = (image[:, :1] + 0.5) * 255  # [B,1,H,W]
        centres = torch.arange(self.classes, dtype=image.dtype).view(1, -1, 1, 1)
        return FakeOutput(-self.sharpness * (blue - centres).abs(), image)


class ConstantNetwork(nn.Module):
    """The same logits for every cell of a feature map of an eighth of the image."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.normalize = FakeNormalize()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, image: Tensor) -> FakeOutput:
        features = functional.avg_pool2d(image, 8)
        logits = self.logits.view(1, -1, 1, 1).expand(len(image), -1, *features.shape[2:])
        return FakeOutput(logits, features)
