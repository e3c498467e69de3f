"""Defines ResNet encoders with torchvision's parameter names, dilated in their last stages.

A stage that gives up its stride multiplies the dilation of what follows instead, so that every convolution sees the
same pixels as in the strided network: pretrained weights keep their meaning (the a trous rule).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lsr_train.network.spec import NetworkSpec

_STEM_CHANNELS = 64
_FEW_CHANNELS = 16
"""torch 2.13 writes outside its memory in the backward pass of a strided 1x1 convolution of fewer channels, in
channels_last on a CPU ("double free or corruption", or a segmentation fault)."""


def normalised(convolution: nn.Conv2d, norm: nn.BatchNorm2d, image: Tensor) -> Tensor:
    """Convolution and batch-norm; with fixed statistics both are one convolution with scaled weights.

    That saves two passes over the activations forward and three backward, and the memory of one more copy. Scale and
    shift keep their gradient. A compiler or exporter is shown the plain modules, it folds by itself.
    """
    mean, variance, stride = norm.running_mean, norm.running_var, convolution.stride
    few = convolution.kernel_size == (1, 1) and stride != (1, 1) and convolution.in_channels < _FEW_CHANNELS
    if few and image.requires_grad and not torch.compiler.is_compiling():
        image, stride = image[:, :, :: stride[0], :: stride[1]], (1, 1)  # the pixels that it sees
    if norm.training or mean is None or variance is None or torch.compiler.is_compiling():
        result: Tensor = norm(_convolve(image, convolution.weight, convolution.bias, stride, convolution))
        return result
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    shift = norm.bias - mean * scale
    weight = convolution.weight * scale.view(-1, 1, 1, 1)
    return _convolve(image, weight, shift, stride, convolution)


def _convolve(image: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...], like: nn.Conv2d) -> Tensor:
    return functional.conv2d(image, weight, bias, stride, like.padding, like.dilation, like.groups)


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or a 3x3 between two 1x1 (a bottleneck), beside a shortcut."""

    def __init__(
        self, spec: NetworkSpec, inputs: int, channels: int, *, stride: int, entry: int, dilation: int
    ) -> None:
        super().__init__()
        outputs = channels * spec.shape.expansion
        if not spec.shape.bottleneck:
            layers = [(channels, 3, stride, entry), (outputs, 3, 1, dilation)]
        elif spec.stem == "caffe":
            # its first 1x1 drops the pixels, so the 3x3 already works on the coarse grid
            layers = [(channels, 1, stride, 1), (channels, 3, 1, dilation), (outputs, 1, 1, 1)]
        else:  # torchvision's 3x3 drops them and still reads the fine grid
            layers = [(channels, 1, 1, 1), (channels, 3, stride, entry), (outputs, 1, 1, 1)]
        self.depth, width = len(layers), inputs
        for place, (wide, side, step, apart) in enumerate(layers, start=1):
            padding = apart * (side // 2)
            convolution = nn.Conv2d(width, wide, side, stride=step, padding=padding, dilation=apart, bias=False)
            self.add_module(f"conv{place}", convolution)
            self.add_module(f"bn{place}", nn.BatchNorm2d(wide))
            width = wide
        self.relu = nn.ReLU(inplace=True)
        self.downsample: Any = None
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, image: Tensor) -> Tensor:
        shortcut = image if self.downsample is None else normalised(self.downsample[0], self.downsample[1], image)
        for place in range(1, self.depth + 1):
            image = normalised(getattr(self, f"conv{place}"), getattr(self, f"bn{place}"), image)
            image = self.relu(image if place < self.depth else image.add_(shortcut))
        return image


class ResNet(nn.Module):
    """The encoder: image [B,3,H,W] to features [B,K,h,w]."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _STEM_CHANNELS, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=spec.stem == "caffe")
        inputs, reached, dilation = _STEM_CHANNELS, 4, 1
        for stage, (count, channels) in enumerate(zip(spec.shape.blocks, spec.stage_channels, strict=True)):
            stride, entry = (1 if stage == 0 else 2), dilation
            if stride == 2 and reached == spec.output_stride:
                stride, dilation = 1, 2 * dilation
            reached *= stride
            blocks = nn.Sequential()
            for index in range(count):
                strides = {"stride": 1, "entry": dilation} if index else {"stride": stride, "entry": entry}
                blocks.append(_ResidualBlock(spec, inputs, channels, **strides, dilation=dilation))
                inputs = channels * spec.shape.expansion
            self.add_module(f"layer{stage + 1}", blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        """Return the last stage's activations [B,K,h,w], all >= 0."""
        out: Tensor = self.maxpool(self.relu(normalised(self.conv1, self.bn1, image)))
        for stage in range(1, 5):
            out = self.get_submodule(f"layer{stage}")(out)
        return out
