"""DeepLabV2: a dilated ResNet and a classifier of summed dilated convolutions (paper, Sec. 5; reference DeepLabV2).

It knows tensors only: no configuration, file or device.
"""

from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from lsr_train.network.classifier import DilatedClassifier
from lsr_train.network.normalization import NORMALIZATIONS, Normalize
from lsr_train.network.resnet import ResNet
from lsr_train.network.spec import NetworkSpec

__all__ = ["BatchNormMode", "DeepLabV2", "SegOutput"]

BatchNormMode = Literal["train", "frozen"]


class SegOutput(NamedTuple):
    """What the network gives, at feature size.

    Args:
        logits: [B,C,h,w].
        features: the encoder's output [B,K,h,w], all >= 0.
    """

    logits: Tensor
    features: Tensor


class DeepLabV2(nn.Module):
    """The segmentation network. Its encoder carries torchvision's parameter names under `backbone.`.

    Args:
        spec: what it looks like. Weights start random, from torch's global generator.
    """

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        self.spec = spec
        self.normalize = Normalize(NORMALIZATIONS[spec.normalization])
        self.backbone = ResNet(spec)
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
        """Run the network.

        Args:
            image: normalised input [B,3,H,W] (see `normalize`), in the type of the weights, or any under autocast.

        Raises:
            ValueError: the shape is another.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"the image has shape {tuple(image.shape)}; [B,3,H,W] is needed")
        features = self.backbone(image)  # [B,K,h,w]
        return SegOutput(self.head(features), features)

    def set_batch_norm(self, mode: BatchNormMode) -> None:
        """Choose what batch-norm does in training mode; holds across later calls of `train` and `eval`.

        Args:
            mode: `train` normalises by each batch's statistics and updates the running ones; `frozen` uses the running
                ones and leaves them. Scale and shift are trained in both.

        Raises:
            ValueError: the mode is another.
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
