"""The paper's equations word for word: pixel by pixel, cell by cell, class by class, in float64.

Slow on purpose, and written without the library. Autograd differentiates them, so they are the truth for gradients too.
"""

import math

import torch
from torch import Tensor

VOID = 255


def nearest_cell(pixel: int, pixels: int, cells: int) -> int:
    return 0 if pixels == 1 else math.floor(pixel * (cells - 1) / (pixels - 1) + 0.5)


def windows(image: tuple[int, int], size: tuple[int, int]) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Return the pixels of each cell."""
    members: dict[tuple[int, int], list[tuple[int, int]]] = {(i, j): [] for i in range(size[0]) for j in range(size[1])}
    for y in range(image[0]):
        for x in range(image[1]):
            members[nearest_cell(y, image[0], size[0]), nearest_cell(x, image[1], size[1])].append((y, x))
    return members


def histogram_oracle(labels: Tensor, size: tuple[int, int], num_classes: int, threshold: float) -> Tensor:
    cells = torch.full((labels.shape[0], *size), VOID)
    for b, image in enumerate(labels.tolist()):
        for (i, j), pixels in windows(tuple(labels.shape[1:]), size).items():
            votes = [image[y][x] for y, x in pixels if 0 <= image[y][x] < num_classes]
            counts = sorted(((votes.count(c), -c) for c in set(votes)), reverse=True)
            first = counts[0][0] if counts else 0
            second = counts[1][0] if len(counts) > 1 else 0
            if first > 0 and second < threshold * first:
                cells[b, i, j] = -counts[0][1]
    return cells


def pseudo_label_oracle(
    logits: Tensor, size: tuple[int, int], threshold: float, confidence: float, mask: Tensor | None = None
) -> Tensor:
    B, C, H, W = logits.shape
    logits = logits.double()
    labels = torch.full((B, H, W), VOID)
    peak = torch.zeros(B, H, W, dtype=torch.float64)
    for b in range(B):
        for y in range(H):
            for x in range(W):
                if mask is None or mask[b, y, x]:
                    values = [math.exp(v) for v in logits[b, :, y, x].tolist()]
                    labels[b, y, x] = values.index(max(values))
                    peak[b, y, x] = max(values) / sum(values)
    cells = histogram_oracle(labels, size, C, threshold)
    for b in range(B):
        for (i, j), pixels in windows((H, W), size).items():
            sure = [peak[b, y, x].item() for y, x in pixels if labels[b, y, x] != VOID]
            if not sure or not sum(sure) / len(sure) > confidence:
                cells[b, i, j] = VOID
    return cells


def cells_of(labels: Tensor, c: int) -> list[tuple[int, int, int]]:
    return [tuple(cell) for cell in (labels == c).nonzero().tolist()]


def batch_mean_oracle(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, list[bool]]:
    """Eq. 2."""
    means, present = [], []
    for c in range(num_classes):
        cells = cells_of(labels, c)
        present.append(bool(cells))
        total = sum((features[b, :, y, x] for b, y, x in cells), features.new_zeros(features.shape[1]))
        means.append(total / max(len(cells), 1))
    return torch.stack(means), present


def smoothing_oracle(
    previous: Tensor, seen: list[bool], batch_mean: Tensor, present: list[bool], decay: float, init: str
) -> tuple[Tensor, list[bool]]:
    """Eq. 3."""
    moved = previous.clone()
    for c, there in enumerate(present):
        if there:
            eta = 0.0 if init == "first" and not seen[c] else decay
            moved[c] = eta * previous[c] + (1 - eta) * batch_mean[c].detach()
    return moved, [a or b for a, b in zip(seen, present, strict=True)]


def clustering_oracle(features: Tensor, labels: Tensor, prototypes: Tensor, seen: list[bool] | None = None) -> Tensor:
    """Eq. 5."""
    total = features.new_zeros(())
    for c, prototype in enumerate(prototypes):
        cells = cells_of(labels, c)
        if cells and (seen is None or seen[c]):
            total = total + sum(((features[b, :, y, x] - prototype) ** 2).sum() for b, y, x in cells) / len(cells)
    return total / len(prototypes)


def perpendicularity_oracle(means: Tensor, present: list[bool]) -> Tensor:
    """Eq. 6."""
    total, C = means.new_zeros(()), len(means)
    for i in range(C):
        for j in range(C):
            if i != j and present[i] and present[j] and means[i].norm() > 0 and means[j].norm() > 0:
                total = total + (means[i] / means[i].norm()) @ (means[j] / means[j].norm())
    return total / max(C * (C - 1), 1)


def norm_oracle(features: Tensor, reference: float, delta: float, domain: str, mask: Tensor | None = None) -> Tensor:
    """Eq. 7 and 8."""
    B, _, h, w = features.shape
    total, count = features.new_zeros(()), 0
    for b in range(B):
        for i in range(h):
            for j in range(w):
                if mask is None or mask[b, i, j]:
                    gap = (reference + delta) - features[b, :, i, j].norm()
                    total = total + (gap.abs() if domain == "source" else gap.clamp(min=0))
                    count += 1
    return total / max(count, 1)


def mean_norm(features: Tensor) -> float:
    B, _, h, w = features.shape
    norms = [features[b, :, i, j].norm().item() for b in range(B) for i in range(h) for j in range(w)]
    return sum(norms) / len(norms)


class RegularizerOracle:
    """One training step after another, every equation by its oracle."""

    def __init__(
        self, num_classes: int, channels: int, *, decay: float = 0.8, init: str = "first", threshold: float = 0.5,
        confidence: float = 0.5, delta: float = 0.002,
    ) -> None:  # fmt: skip
        self.num_classes, self.decay, self.init = num_classes, decay, init
        self.threshold, self.confidence, self.delta = threshold, confidence, delta
        self.mean = torch.zeros(num_classes, channels, dtype=torch.float64)
        self.seen = [False] * num_classes
        self.reference: float | None = None

    def step(
        self, source: Tensor, labels: Tensor, target: Tensor, logits: Tensor, mask: Tensor | None = None
    ) -> dict[str, Tensor]:
        size = tuple(source.shape[-2:])
        cells = histogram_oracle(labels, size, self.num_classes, self.threshold)
        means, present = batch_mean_oracle(source, cells, self.num_classes)
        self.mean, self.seen = smoothing_oracle(self.mean, self.seen, means, present, self.decay, self.init)
        target_size = tuple(target.shape[-2:])
        target_cells = pseudo_label_oracle(logits, target_size, self.threshold, self.confidence, mask)
        counted = None
        if mask is not None:
            counted = torch.zeros(target.shape[0], *target_size, dtype=torch.bool)
            for (i, j), pixels in windows(tuple(mask.shape[1:]), target_size).items():
                for b in range(target.shape[0]):
                    counted[b, i, j] = any(bool(mask[b, y, x]) for y, x in pixels)
        current = mean_norm(source)
        reference = current if self.reference is None else self.reference
        self.reference = current
        return {
            "cluster_source": clustering_oracle(source, cells, self.mean, self.seen),
            "cluster_target": clustering_oracle(target, target_cells, self.mean, self.seen),
            "perpendicularity": perpendicularity_oracle(means, present),
            "norm_source": norm_oracle(source, reference, self.delta, "source"),
            "norm_target": norm_oracle(target, reference, self.delta, "target", counted),
        }


def cross_entropy_oracle(logits: Tensor, labels: Tensor) -> Tensor:
    total, count = logits.new_zeros(()), 0
    for b in range(labels.shape[0]):
        for y in range(labels.shape[1]):
            for x in range(labels.shape[2]):
                c = int(labels[b, y, x])
                if c != VOID:
                    values = logits[b, :, y, x]
                    total = total - (values[c].exp() / values.exp().sum()).log()
                    count += 1
    return total / max(count, 1)


def max_square_oracle(logits: Tensor, ratio: float, mask: Tensor | None = None) -> Tensor:
    B, C, H, W = logits.shape
    total = logits.new_zeros(())
    for b in range(B):
        pixels = [(y, x) for y in range(H) for x in range(W) if mask is None or mask[b, y, x]]
        labels = {place: int(logits[b, :, place[0], place[1]].argmax()) for place in pixels}
        for y, x in pixels:
            n = sum(label == labels[y, x] for label in labels.values())
            weight = 1 / max(n**ratio * len(pixels) ** (1 - ratio), 1)
            p = logits[b, :, y, x].exp() / logits[b, :, y, x].exp().sum()
            total = total - weight * sum(value**2 for value in p)
    return total / (B * C)


def entropy_oracle(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    B, C, H, W = logits.shape
    total, count = logits.new_zeros(()), 0
    for b in range(B):
        for y in range(H):
            for x in range(W):
                if mask is None or mask[b, y, x]:
                    p = logits[b, :, y, x].exp() / logits[b, :, y, x].exp().sum()
                    total = total - sum(value * torch.log2(value + 1e-30) for value in p) / math.log2(C)
                    count += 1
    return total / max(count, 1)


def direction(feature: Tensor) -> Tensor:
    return feature / feature.norm() if feature.norm() > 0 else 0 * feature


def mean_direction_oracle(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, list[bool]]:
    """Eq. 2 on unit features."""
    means, present = [], []
    for c in range(num_classes):
        cells = cells_of(labels, c)
        present.append(bool(cells))
        total = sum((direction(features[b, :, y, x]) for b, y, x in cells), features.new_zeros(features.shape[1]))
        means.append(total / max(len(cells), 1))
    return torch.stack(means), present


def class_balanced(per_cell: dict[int, list[Tensor]], like: Tensor) -> Tensor:
    """Return the mean within each class, then over the classes there are."""
    means = [sum(values) / len(values) for values in per_cell.values() if values]
    return sum(means, like.new_zeros(())) / max(len(means), 1)


def cosine_clustering_oracle(
    features: Tensor, labels: Tensor, prototypes: Tensor, seen: list[bool] | None = None
) -> Tensor:
    """Eq. 5 on directions."""
    per_cell = {
        c: [1 - direction(features[b, :, y, x]) @ direction(prototype) for b, y, x in cells_of(labels, c)]
        for c, prototype in enumerate(prototypes)
        if seen is None or seen[c]
    }
    return class_balanced(per_cell, features)


def cosine_perpendicularity_oracle(means: Tensor, present: list[bool]) -> Tensor:
    """Eq. 6 over the pairs there are."""
    C, there = len(means), sum(present)
    return perpendicularity_oracle(means, present) * (C * (C - 1)) / max(there * (there - 1), 1)


def prototype_cross_entropy_oracle(
    features: Tensor, labels: Tensor, prototypes: Tensor, seen: list[bool] | None, temperature: float
) -> Tensor:
    rivals = [c for c in range(len(prototypes)) if seen is None or seen[c]]
    per_cell: dict[int, list[Tensor]] = {c: [] for c in rivals}
    for c in rivals:
        for b, y, x in cells_of(labels, c):
            own = direction(features[b, :, y, x])
            scores = torch.stack([own @ direction(prototypes[rival]) / temperature for rival in rivals])
            per_cell[c].append(-(scores[rivals.index(c)].exp() / scores.exp().sum()).log())
    return class_balanced(per_cell, features)


def weighted_cross_entropy_oracle(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of each pixel times its weight, over the number of labelled pixels."""
    total, count = logits.new_zeros(()), 0
    for b, y, x in (labels != VOID).nonzero().tolist():
        values = logits[b, :, y, x]
        total = total - weight[b, y, x] * (values[labels[b, y, x]].exp() / values.exp().sum()).log()
        count += 1
    return total / max(count, 1)


def distillation_oracle(logits: Tensor, teacher: Tensor, temperature: float, mask: Tensor | None = None) -> Tensor:
    """Divergence of the student's softened probabilities from the teacher's, over the counted pixels."""
    total, count = logits.new_zeros(()), 0
    for b, y, x in (torch.ones_like(logits[:, 0]) if mask is None else mask).nonzero().tolist():
        own = (logits[b, :, y, x] / temperature).exp()
        other = (teacher[b, :, y, x].to(logits.dtype) / temperature).exp()
        for c in range(logits.shape[1]):
            p, q = other[c] / other.sum(), own[c] / own.sum()
            total = total + temperature**2 * p * (p / q).log()
        count += 1
    return total / max(count, 1)
