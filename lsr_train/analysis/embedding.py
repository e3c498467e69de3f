"""t-SNE of directions, by scikit-learn."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["can_embed", "embed"]

_COMPONENTS = 50
"""Principal components that t-SNE sees (van der Maaten and Hinton 2008 took 30; scikit-learn advises up to 50)."""
_LEAST = 3


def can_embed(features: Tensor) -> bool:
    """Whether there are enough feature vectors [N,K]."""
    return len(features) >= _LEAST


def embed(features: Tensor, seed: int = 0) -> NDArray[np.float32]:
    """Embed feature vectors in the plane by their directions (Fig. 7).

    Args:
        features: [N,K] float32; norms are taken out first, as the paper does.
        seed: of the embedding.

    Returns:
        float32 [N,2].

    Raises:
        ValueError: there are fewer than 3 vectors; `can_embed` tells.
    """
    if not can_embed(features):
        raise ValueError(f"{len(features)} vectors are too few for an embedding")
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    directions = (features / features.norm(dim=1, keepdim=True).clamp(min=1e-12)).numpy()
    components = min(_COMPONENTS, *directions.shape)
    reduced = PCA(components, random_state=seed).fit_transform(directions)
    perplexity = min(30.0, (len(directions) - 1) / 3)
    points = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced)
    return np.asarray(points, np.float32)
