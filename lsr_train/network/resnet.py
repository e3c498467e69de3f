"""Defines ResNet encoders with torchvision's parameter names, dilated in their last stages.

A stage that gives up its stride multiplies the dilation of what follows instead, so that every convolution sees the
same pixels as in the strided network: pretrained weights keep their meaning (the a trous rule).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from lsr_train.network.spec import NetworkSpec

__all__ = ["ResNet"]

_STEM_CHANNELS = 64


def _conv3x3(inputs: int, outputs: int, *, stride: int, dilation: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=dilation, dilation=dilation, bias=False)


def _shortcut(inputs: int, outputs: int, *, stride: int) -> nn.Sequential | None:
    """The projection beside a block, where its output has another shape than its input."""
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))


def _normalised(convolution: nn.Conv2d, norm: nn.Module, image: Tensor) -> Tensor:
    """Convolution and batch-norm; with fixed statistics both are one convolution with scaled weights.

    That saves two passes over the activations forward and three backward, and the memory of one more copy. Scale and
    shift keep their gradient. A compiler or exporter is shown the plain modules, it folds by itself.
    """
    assert isinstance(norm, _BatchNorm)
    mean, variance = norm.running_mean, norm.running_var
    if norm.training or mean is None or variance is None or torch.compiler.is_compiling():
        result: Tensor = norm(convolution(image))
        return result
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    shift = norm.bias - mean * scale
    weight = convolution.weight * scale.view(-1, 1, 1, 1)
    stride, padding, dilation = convolution.stride, convolution.padding, convolution.dilation
    return functional.conv2d(image, weight, shift, stride, padding, dilation)


def _projected(shortcut: nn.Sequential | None, image: Tensor) -> Tensor:
    """The shortcut of a block."""
    if shortcut is None:
        return image
    convolution, norm = shortcut
    assert isinstance(convolution, nn.Conv2d)
    return _normalised(convolution, norm, image)


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, channels: int, *, stride: int, entry: int, dilation: int, stem: str) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inputs, channels, stride=stride, dilation=entry)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels, stride=1, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, channels, stride=stride)

    def forward(self, image: Tensor) -> Tensor:
        shortcut = _projected(self.downsample, image)
        out = self.relu(_normalised(self.conv1, self.bn1, image))
        out = _normalised(self.conv2, self.bn2, out)
        result: Tensor = self.relu(out.add_(shortcut))
        return result


class _Bottleneck(nn.Module):
    """A 3x3 convolution between two 1x1, beside a shortcut."""

    def __init__(self, inputs: int, channels: int, *, stride: int, entry: int, dilation: int, stem: str) -> None:
        super().__init__()
        outputs = 4 * channels
        # The first 1x1 of the caffe stem drops the pixels, so its 3x3 already works on the coarse grid; torchvision's
        # 3x3 is the one that drops them and still reads the fine one.
        first, second = (stride, 1) if stem == "caffe" else (1, stride)
        middle = dilation if stem == "caffe" else entry
        self.conv1 = nn.Conv2d(inputs, channels, 1, stride=first, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels, stride=second, dilation=middle)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(inputs, outputs, stride=stride)

    def forward(self, image: Tensor) -> Tensor:
        shortcut = _projected(self.downsample, image)
        out = self.relu(_normalised(self.conv1, self.bn1, image))
        out = self.relu(_normalised(self.conv2, self.bn2, out))
        out = _normalised(self.conv3, self.bn3, out)
        result: Tensor = self.relu(out.add_(shortcut))
        return result


class ResNet(nn.Module):
    """The encoder: image [B,3,H,W] to features [B,K,h,w].

    Args:
        spec: which ResNet, its width, stride and stem.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, _STEM_CHANNELS, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM_CHANNELS)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=spec.stem == "caffe")
        block = _Bottleneck if spec.shape.bottleneck else _BasicBlock
        inputs, reached, dilation = _STEM_CHANNELS, 4, 1
        for stage, (count, channels) in enumerate(zip(spec.shape.blocks, spec.stage_channels, strict=True)):
            stride, entry = (1 if stage == 0 else 2), dilation
            if stride == 2 and reached == spec.output_stride:
                stride, dilation = 1, 2 * dilation
            reached *= stride
            blocks = nn.Sequential()
            for index in range(count):
                first = index == 0
                strides = {"stride": stride, "entry": entry} if first else {"stride": 1, "entry": dilation}
                blocks.append(block(inputs, channels, **strides, dilation=dilation, stem=spec.stem))
                inputs = channels * spec.shape.expansion
            self.add_module(f"layer{stage + 1}", blocks)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        """Return the last stage's activations [B,K,h,w], all >= 0."""
        out: Tensor = self.maxpool(self.relu(_normalised(self.conv1, self.bn1, image)))
        for stage in range(1, 5):
            out = self.get_submodule(f"layer{stage}")(out)
        return out
