"""DeepLabV2's classifier: parallel dilated 3x3 convolutions whose outputs are summed."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["DilatedClassifier"]


class DilatedClassifier(nn.Module):
    """Features [B,K,h,w] to logits [B,C,h,w]: the sum of one 3x3 convolution a dilation (DeepLabV2's ASPP-L).

    With gradients it is computed as one 1x1 convolution with an output a tap and class, whose maps are shifted and
    added: few outputs make the weight gradient of a dilated convolution slow (on a CPU 9-11 GFLOP/s against 70). Taps
    that fall outside the map everywhere are left out. Both ways are the same sum in another order.

    Args:
        channels: K.
        num_classes: C.
        dilations: one branch each.
    """

    def __init__(self, channels: int, num_classes: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, num_classes, 3, padding=dilation, dilation=dilation) for dilation in dilations
        )
        self._dilations = tuple(dilations)
        for weight, bias in self._parameters_of_branches():
            nn.init.normal_(weight, std=0.01)
            nn.init.zeros_(bias)

    def forward(self, features: Tensor) -> Tensor:
        """Return the summed logits; under autocast with gradients float32, else in the type the convolutions give."""
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            return self._shifted_sum(features)
        first, *others = self.branches
        logits: Tensor = first(features)
        for branch in others:
            logits = logits + branch(features)
        return logits

    def _parameters_of_branches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for branch in self.branches:
            yield branch.get_parameter("weight"), branch.get_parameter("bias")

    def _shifted_sum(self, features: Tensor) -> Tensor:
        h, w = features.shape[-2:]
        weights, biases = zip(*self._parameters_of_branches(), strict=True)
        offsets = [(0, 0)]
        taps = [torch.stack([weight[:, :, 1, 1] for weight in weights]).sum(dim=0)]  # all centres see the same cell
        for weight, dilation in zip(weights, self._dilations, strict=True):
            for row in (-1, 0, 1):
                for column in (-1, 0, 1):
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
