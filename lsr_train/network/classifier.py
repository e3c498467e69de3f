"""DeepLabV2's classifier: parallel dilated 3x3 convolutions whose outputs are summed."""

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["DilatedClassifier"]


class DilatedClassifier(nn.Module):
    """Features [B,K,h,w] to logits [B,C,h,w]: the sum of one 3x3 convolution a dilation (DeepLabV2's ASPP-L).

    Args:
        channels: K.
        num_classes: C.
        dilations: one branch each.
    """

    def __init__(self, channels: int, num_classes: int, dilations: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Conv2d(channels, num_classes, 3, padding=dilation, dilation=dilation) for dilation in dilations
        )
        for branch in self.branches:
            nn.init.normal_(branch.get_parameter("weight"), std=0.01)
            nn.init.zeros_(branch.get_parameter("bias"))

    def forward(self, features: Tensor) -> Tensor:
        """Return the summed logits, in the type the convolutions give."""
        first, *others = self.branches
        logits: Tensor = first(features)
        for branch in others:
            logits = logits + branch(features)
        return logits
