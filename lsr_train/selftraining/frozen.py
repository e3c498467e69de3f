"""A finished network that labels for another, without a graph."""

import torch
from torch import Tensor
from torch.nn import functional

from lsr_train.network import DeepLabV2, SegOutput

__all__ = ["FrozenTeacher"]


class FrozenTeacher:
    """A network that never trains. It is no `nn.Module`, so that no checkpoint of a method takes it in.

    Args:
        network: put in evaluation mode.
        scale: factors of height and width between the frames it is given and those it looks at.
    """

    def __init__(self, network: DeepLabV2, scale: tuple[float, float] = (1.0, 1.0)) -> None:
        self.network = network.requires_grad_(False).eval()
        self.scale = scale

    @torch.no_grad()
    def logits(self, levels: Tensor) -> Tensor:
        """Run it.

        Args:
            levels: BGR levels 0..255 [B,H,W,3]; the teacher normalises them as it was trained.

        Returns:
            [B,C,h,w] in float32, at the size of its own features. An autocast around the call applies.
        """
        if self.scale != (1.0, 1.0):
            H, W = (round(side * factor) for side, factor in zip(levels.shape[1:3], self.scale, strict=True))
            planes = levels.permute(0, 3, 1, 2)
            planes = functional.interpolate(planes, size=(H, W), mode="bilinear", antialias=min(self.scale) < 1)
            levels = planes.permute(0, 2, 3, 1)
        output: SegOutput = self.network(self.network.normalize(levels))
        return output.logits.float()
