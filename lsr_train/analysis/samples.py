"""A balanced random sample of vectors by class, drawn in one pass over data of unknown length."""

import torch
from torch import Tensor

__all__ = ["BalancedSample"]


class BalancedSample:
    """Keeps so many vectors of each class, every one of them equally likely (reservoir by random keys).

    Args:
        num_classes: C.
        per_class: how many of each; fewer where there are fewer.
        seed: of the draw.
    """

    def __init__(self, num_classes: int, per_class: int, seed: int = 0) -> None:
        self.per_class = per_class
        self._generator = torch.Generator().manual_seed(seed)
        self._keys = [torch.empty(0) for _ in range(num_classes)]
        self._vectors: list[Tensor] = [torch.empty(0) for _ in range(num_classes)]

    def add(self, vectors: Tensor, labels: Tensor) -> None:
        """Offer vectors [N,K] with their classes [N] int64; other labels than 0..C-1 are left out."""
        keys = torch.rand(len(labels), generator=self._generator)
        for index in range(len(self._keys)):
            mine = (labels == index).nonzero().flatten()
            if len(mine) == 0:
                continue
            chosen = mine[keys[mine].argsort()[: self.per_class]]
            there = self._vectors[index] if len(self._keys[index]) else vectors.new_empty(0, vectors.shape[1])
            all_keys = torch.cat([self._keys[index], keys[chosen]])
            kept = all_keys.argsort()[: self.per_class]
            self._vectors[index] = torch.cat([there, vectors[chosen]])[kept]
            self._keys[index] = all_keys[kept]

    def take(self) -> tuple[Tensor, Tensor]:
        """Return the sample [N,K] and its classes [N] int64, by class; both empty where nothing was offered."""
        found = [(vectors, index) for index, vectors in enumerate(self._vectors) if len(vectors)]
        if not found:
            return torch.empty(0, 0), torch.empty(0, dtype=torch.int64)
        labels = [torch.full((len(vectors),), index) for vectors, index in found]
        return torch.cat([vectors for vectors, _ in found]), torch.cat(labels)
