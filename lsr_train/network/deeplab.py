"""Defines DeepLabV2: a dilated encoder and a classifier of summed dilated convolutions (paper, Sec. 5).

It knows tensors only: no configuration, file or device.
"""

import itertools
from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from lsr_train.network.efficientnet import EfficientNetLite
from lsr_train.network.resnet import ResNet
from lsr_train.network.spec import LITES, NORMALIZATIONS, NetworkSpec, Normalize


class DilatedClassifier(nn.Module):
    """Features [B,K,h,w] to logits [B,C,h,w]: the sum of one 3x3 convolution a dilation (DeepLabV2's ASPP-L).

    With gradients it is computed as one 1x1 convolution with an output a tap and class, whose maps are shifted and
    added: few outputs make the weight gradient of a dilated convolution slow (on a CPU 9-11 GFLOP/s against 70). Taps
    that fall outside the map everywhere are left out. Both ways are the same sum in another order.
    """

    def __init__(self, channels: int, num_classes: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, num_classes, 3, padding=dilation, dilation=dilation) for dilation in dilations
        )
        self._dilations = tuple(dilations)
        for branch in self.branches:
            nn.init.normal_(branch.get_parameter("weight"), std=0.01)
            nn.init.zeros_(branch.get_parameter("bias"))

    def forward(self, features: Tensor) -> Tensor:
        """Return the summed logits; under autocast with gradients float32, else in the type the convolutions give."""
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return self._shifted_sum(features)
        logits: Tensor = reduce(torch.add, (branch(features) for branch in self.branches))
        return logits

    def _shifted_sum(self, features: Tensor) -> Tensor:
        h, w = features.shape[-2:]
        weights, biases = (tuple(branch.get_parameter(name) for branch in self.branches) for name in ("weight", "bias"))
        offsets = [(0, 0)]
        taps = [torch.stack([weight[:, :, 1, 1] for weight in weights]).sum(dim=0)]  # all centres see the same cell
        for weight, dilation in zip(weights, self._dilations, strict=True):
            for row, column in itertools.product((-1, 0, 1), repeat=2):
                down, right = row * dilation, column * dilation
                if (row or column) and abs(down) < h and abs(right) < w:
                    offsets.append((down, right))
                    taps.append(weight[:, :, row + 1, column + 1])
        maps = functional.conv2d(features, torch.cat(taps)[:, :, None, None])  # [B,T*C,h,w]
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))
        logits = torch.stack(biases).sum(dim=0).view(1, -1, 1, 1)
        for (down, right), tap in zip(offsets, torch.split(maps, self.num_classes, dim=1), strict=True):
            logits = logits + functional.pad(tap, (-right, right, -down, down))  # cell (y, x) takes (y+down, x+right)
        return logits.to(torch.promote_types(features.dtype, weights[0].dtype))


BatchNormMode = Literal["train", "frozen"]


class SegOutput(NamedTuple):
    """What the network gives, at feature size: logits [B,C,h,w], and the encoder's features [B,K,h,w], all >= 0."""

    logits: Tensor
    features: Tensor


class DeepLabV2(nn.Module):
    """The segmentation network. Its encoder is under `backbone.`, a ResNet's parameters by torchvision's names.

    Weights start random, from torch's global generator.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.normalize = Normalize(NORMALIZATIONS[spec.normalization])
        self.backbone: EfficientNetLite | ResNet = EfficientNetLite(spec) if spec.backbone in LITES else ResNet(spec)
        self.head = DilatedClassifier(spec.feature_channels, spec.num_classes, spec.dilations)
        self._batch_norm: BatchNormMode = "train"

    @property
    def feature_channels(self) -> int:
        """K."""
        return self.spec.feature_channels

    @property
    def batch_norm(self) -> BatchNormMode:
        """How batch-norm behaves in training mode."""
        return self._batch_norm

    def forward(self, image: Tensor) -> SegOutput:
        """Run the network on a normalised image [B,3,H,W] in the type of the weights, or any under autocast."""
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"the image has shape {tuple(image.shape)}; [B,3,H,W] is needed")
        features = self.backbone(image)  # [B,K,h,w]
        return SegOutput(self.head(features), features)

    def set_batch_norm(self, mode: BatchNormMode) -> None:
        """Choose what batch-norm does in training mode; holds across later calls of `train` and `eval`.

        `train` normalises by each batch's statistics and updates the running ones; `frozen` uses the running ones and
        leaves them. Scale and shift are trained in both.
        """
        if mode not in ("train", "frozen"):
            raise ValueError(f"batch-norm mode is {mode!r}; allowed: train, frozen")
        self._batch_norm = mode
        self.train(self.training)

    def train(self, mode: bool = True) -> "DeepLabV2":
        """Set training or evaluation mode; frozen batch-norm stays in evaluation mode."""
        super().train(mode)
        if self._batch_norm == "frozen":
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def parameter_groups(self) -> dict[str, list[nn.Parameter]]:
        """Return every parameter once: `stem` (first convolution and its batch-norm), `backbone`, `head`."""
        stem = [*self.backbone.conv1.parameters(), *self.backbone.bn1.parameters()]
        in_stem = {id(parameter) for parameter in stem}
        return {
            "stem": stem,
            "backbone": [item for item in self.backbone.parameters() if id(item) not in in_stem],
            "head": list(self.head.parameters()),
        }


def reestimate_batch_norm(network: DeepLabV2, images: Iterable[Tensor]) -> None:
    """Replace the running statistics by the plain average over `images`, and freeze them.

    Every batch counts the same whatever its size, so let them be of one size. Weights do not move, no gradient is
    computed, and the network keeps its training or evaluation mode. An autocast around the call applies.
    The images are batches [B,3,H,W] of normalised input; without any it is a ValueError and nothing has changed.
    """
    modules = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [module.momentum for module in modules]
    training = network.training
    network.eval()
    count = 0
    try:
        with torch.no_grad():
            for image in images:
                if count == 0:
                    for module in modules:
                        module.reset_running_stats()
                        module.momentum = None  # torch's cumulative average
                        module.train()
                network.backbone(image)
                count += 1
    finally:
        for module, momentum in zip(modules, momenta, strict=True):
            module.momentum = momentum
        network.train(training)
    if count == 0:
        raise ValueError("batch-norm cannot be re-estimated on no images")
    network.set_batch_norm("frozen")
