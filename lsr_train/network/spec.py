"""Describes a network as plain data that a checkpoint carries."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lsr_train.network.normalization import NORMALIZATIONS


@dataclass(frozen=True)
class BackboneShape:
    """The numbers in which ResNets differ: residual blocks in each stage, of two 3x3 or of 1x1, 3x3 and 1x1."""

    blocks: tuple[int, int, int, int]
    bottleneck: bool

    @property
    def expansion(self) -> int:
        """Output channels of a block as a multiple of its inner ones."""
        return 4 if self.bottleneck else 1


BACKBONES: Mapping[str, BackboneShape] = {
    "resnet18": BackboneShape((2, 2, 2, 2), bottleneck=False),
    "resnet34": BackboneShape((3, 4, 6, 3), bottleneck=False),
    "resnet50": BackboneShape((3, 4, 6, 3), bottleneck=True),
    "resnet101": BackboneShape((3, 4, 23, 3), bottleneck=True),
}
STEMS = ("torchvision", "caffe")
OUTPUT_STRIDES = (8, 16, 32)


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """DeepLabV2 on a ResNet.

    Args:
        backbone: a key of `BACKBONES`.
        num_classes: C, 1..255.
        width: channels of the four stages as a multiple of the ResNet's, in (0, 4]; the first convolution keeps its 64.
        output_stride: image pixels per feature cell: 8 as in the paper, 16 or 32 for speed.
        stem: `torchvision` (stride in the 3x3 of a bottleneck, max-pool without ceil) or `caffe` (stride in its first
            1x1, ceil-mode max-pool: H // 8 + 1 cells at stride 8, whose centres bilinear upsampling with
            align_corners=True puts where they belong).
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
        if not 1 <= len(self.dilations) <= 8 or not all(type(item) is int and item >= 1 for item in self.dilations):
            raise ValueError(f"dilations are {self.dilations}; allowed: 1 to 8 numbers of at least 1")

    @property
    def shape(self) -> BackboneShape:
        """The ResNet's numbers."""
        return BACKBONES[self.backbone]

    @property
    def stage_channels(self) -> tuple[int, int, int, int]:
        """Inner channels of the four stages."""
        first, second, third, fourth = (max(1, round(64 * 2**stage * self.width)) for stage in range(4))
        return first, second, third, fourth

    @property
    def feature_channels(self) -> int:
        """K, channels of the encoder's output."""
        return self.stage_channels[3] * self.shape.expansion

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain JSON data."""
        return {**dataclasses.asdict(self), "dilations": list(self.dilations)}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "NetworkSpec":
        """Read a spec back from `to_dict`; ValueError where a key is missing, unknown, or its value not allowed."""
        names = {field.name for field in dataclasses.fields(cls)}
        if not isinstance(document, Mapping) or set(document) != names:
            raise ValueError(f"a network is described by {', '.join(sorted(names))}; found {document!r}")
        if not isinstance(document["dilations"], list | tuple):
            raise ValueError(f"dilations are {document['dilations']!r}; a list is needed")
        return cls(**document)
