"""The shapes and label patterns on which every latent loss is tried."""

from dataclasses import dataclass

import torch
from torch import Tensor

VOID = 255


@dataclass(frozen=True)
class Case:
    """Features with cell labels, drawn from a seed."""

    name: str
    shape: tuple[int, int, int, int]  # B, K, h, w
    num_classes: int
    pattern: str = "mixed"

    def features(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(self.shape, generator=generator, dtype=torch.float64).to(dtype)

    def labels(self, seed: int = 1) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        B, _, h, w = self.shape
        labels = torch.randint(0, self.num_classes, (B, h, w), generator=generator)
        labels[torch.rand(B, h, w, generator=generator) < 0.2] = VOID
        if self.pattern == "absent":
            labels[(labels == 0) | (labels == self.num_classes - 1)] = VOID
        elif self.pattern == "one image void":
            labels[0] = VOID
        elif self.pattern == "all void":
            labels[:] = VOID
        elif self.pattern == "one cell":
            labels[:] = VOID
            labels[-1, h // 2, w // 2] = 1
        return labels

    def prototypes(self, seed: int = 2) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.rand(self.num_classes, self.shape[1], generator=generator, dtype=torch.float64)

    def __str__(self) -> str:
        return self.name


CASES = [
    Case("odd sizes", (2, 5, 3, 7), 4),
    Case("classes absent", (3, 4, 5, 3), 5, "absent"),
    Case("one image void", (2, 6, 4, 5), 3, "one image void"),
    Case("all void", (2, 3, 3, 3), 3, "all void"),
    Case("one labelled cell", (2, 4, 3, 5), 3, "one cell"),
    Case("a single cell", (1, 4, 1, 1), 3),
    Case("one row", (2, 3, 1, 9), 3),
    Case("one class", (2, 3, 4, 3), 1),
    Case("one channel", (2, 1, 4, 5), 3),
]
