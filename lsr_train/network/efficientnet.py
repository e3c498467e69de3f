"""Defines EfficientNet-Lite encoders, dilated in their last stages (Tan and Le, "EfficientNet", 2019).

The Lite variants leave out squeeze-and-excitation and have ReLU6 for swish, so that INT8 runs well on a CPU. A stage
that gives up its stride multiplies the dilation of what follows instead, as in `resnet`. Stochastic depth is left out.
"""

from typing import NamedTuple

from torch import Tensor, nn

from lsr_train.network.resnet import normalised
from lsr_train.network.spec import LITE_FEATURES, LITES, NetworkSpec

_EPSILON = 1e-3  # of batch-norm, as the published weights were trained
_STEM_CHANNELS = 32


class _Stage(NamedTuple):
    """A row of the paper's Table 1 (EfficientNet-B0): `expansion` is of a block's input, `outputs` its channels."""

    expansion: int
    side: int
    stride: int
    outputs: int
    blocks: int


_STAGES = (
    _Stage(1, 3, 1, 16, 1), _Stage(6, 3, 2, 24, 2), _Stage(6, 5, 2, 40, 2), _Stage(6, 3, 2, 80, 3),
    _Stage(6, 5, 1, 112, 3), _Stage(6, 5, 2, 192, 4), _Stage(6, 3, 1, 320, 1),
)  # fmt: skip


class _InvertedResidual(nn.Module):
    """MBConv: 1x1 to more channels, a convolution of each alone, 1x1 to few without activation; a shortcut if it fits.

    The first 1x1 is missing where `expansion` is 1.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, side: int, *, stride: int, dilation: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand: nn.Conv2d | None = None
        if expansion != 1:
            self.expand = nn.Conv2d(inputs, inner, 1, bias=False)
            self.expand_norm = nn.BatchNorm2d(inner, eps=_EPSILON)
        padding = dilation * (side // 2)
        self.depthwise = nn.Conv2d(
            inner, inner, side, stride=stride, padding=padding, dilation=dilation, groups=inner, bias=False
        )
        self.depthwise_norm = nn.BatchNorm2d(inner, eps=_EPSILON)
        self.project = nn.Conv2d(inner, outputs, 1, bias=False)
        self.project_norm = nn.BatchNorm2d(outputs, eps=_EPSILON)
        self.relu = nn.ReLU6(inplace=True)
        self._shortcut = stride == 1 and inputs == outputs

    def forward(self, image: Tensor) -> Tensor:
        out = image
        if self.expand is not None:
            out = self.relu(normalised(self.expand, self.expand_norm, out))
        out = self.relu(normalised(self.depthwise, self.depthwise_norm, out))
        out = normalised(self.project, self.project_norm, out)
        return out.add_(image) if self._shortcut else out


class EfficientNetLite(nn.Module):
    """The encoder: image [B,3,H,W] to features [B,1280,h,w].

    The features are those of the 1x1 convolution behind the last block, after its ReLU6: a block's own output is linear
    and has negative values, which the paper's constraints and OCE's sparsity are not made for.

    The first convolution is padded by 2 pixels instead of 1. That gives one cell more along an even side (H // 8 + 1 at
    stride 8, as Caffe's stem), so that the outermost cells lie at the image's edges, where upsampling with
    align_corners=True puts them, and the sampled rows are the odd ones, as where the published weights were trained.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        shape = LITES[spec.backbone]
        self.conv1 = nn.Conv2d(3, _STEM_CHANNELS, 3, stride=2, padding=2, bias=False)
        self.bn1 = nn.BatchNorm2d(_STEM_CHANNELS, eps=_EPSILON)
        self.relu = nn.ReLU6(inplace=True)
        self.blocks = nn.Sequential()
        inputs, reached, dilation = _STEM_CHANNELS, 2, 1
        for number, stage in enumerate(_STAGES):
            stride, entry, outputs = stage.stride, dilation, shape.channels(stage.outputs)
            if stride == 2 and reached == spec.output_stride:
                stride, dilation = 1, 2 * dilation
            reached *= stride
            # the first and the last stage keep their one block
            for index in range(shape.blocks(stage.blocks) if 0 < number < len(_STAGES) - 1 else stage.blocks):
                apart = {"stride": 1, "dilation": dilation} if index else {"stride": stride, "dilation": entry}
                self.blocks.append(_InvertedResidual(inputs, outputs, stage.expansion, stage.side, **apart))
                inputs = outputs
        self.final = nn.Conv2d(inputs, LITE_FEATURES, 1, bias=False)
        self.final_norm = nn.BatchNorm2d(LITE_FEATURES, eps=_EPSILON)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: Tensor) -> Tensor:
        """Return the activations behind the last block [B,1280,h,w], all in 0..6."""
        out = self.relu(normalised(self.conv1, self.bn1, image))
        out = self.blocks(out)
        features: Tensor = self.relu(normalised(self.final, self.final_norm, out))
        return features
