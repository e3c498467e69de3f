"""Builds the segmentation network: DeepLabV2 on dilated ResNets, its normalisation and starting weights."""

from lsr_train.network.deeplab import DeepLabV2, SegOutput, reestimate_batch_norm
from lsr_train.network.spec import NORMALIZATIONS, NetworkSpec, Normalization, Normalize

__all__ = [
    "NORMALIZATIONS",
    "DeepLabV2",
    "NetworkSpec",
    "Normalization",
    "Normalize",
    "SegOutput",
    "reestimate_batch_norm",
]
