"""Regularises the latent space for domain adaptation in semantic segmentation (LSR), in any training loop.

One file per equation of the paper. `LatentRegularizer` keeps the state between steps and computes the same values in
one pass; with `fused=False` it calls the equations.
"""

import warnings
from typing import Any

from lsr_train.latent.clustering import clustering_loss
from lsr_train.latent.directional import (
    COSINE_TERMS,
    CosineRegularizer,
    cosine_clustering_loss,
    prototype_cross_entropy,
)
from lsr_train.latent.histogram import histogram_downsample, nearest_downsample
from lsr_train.latent.norm_alignment import norm_alignment_loss
from lsr_train.latent.perpendicularity import cosine_perpendicularity_loss, perpendicularity_loss
from lsr_train.latent.prototypes import Prototypes
from lsr_train.latent.pseudo_labels import confident_cells, pseudo_labels
from lsr_train.latent.regularizer import TERMS, LatentRegularizer

__all__ = [
    "COSINE_TERMS",
    "TERMS",
    "CosineRegularizer",
    "LatentRegularizer",
    "Prototypes",
    "clustering_loss",
    "confident_cells",
    "cosine_clustering_loss",
    "cosine_perpendicularity_loss",
    "histogram_downsample",
    "nearest_downsample",
    "norm_alignment_loss",
    "perpendicularity_loss",
    "prototype_cross_entropy",
    "pseudo_labels",
]


def __getattr__(name: str) -> Any:
    """Return what a name of version 0.1.0 is called now, with a warning."""
    new = {"ScaleFreeRegularizer": "CosineRegularizer", "SCALE_FREE_TERMS": "COSINE_TERMS"}.get(name)
    if new is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warnings.warn(f"lsr_train.latent.{name} is now {new}", DeprecationWarning, stacklevel=2)
    return globals()[new]
