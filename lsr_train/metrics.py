"""Computes IoU, mean IoU, its spread and the mean adapted-to-supervised ratio from a confusion matrix.

Counts are added up over frames and ranks, and ratios are taken last: a mean of per-image IoUs is another number. It
knows no dataset, no label space and no configuration; classes are indices here, and whoever prints them has the names.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lsr_infer.labelspace import IGNORE_INDEX

__all__ = [
    "UNSTABLE_BELOW",
    "AdaptedToSupervised",
    "ConfusionMatrix",
    "agreement",
    "iou",
    "mean_adapted_to_supervised_ratio",
    "mean_iou",
    "standard_deviation",
]

UNSTABLE_BELOW = 0.05
"""A class whose supervised IoU is below this makes mASR unstable: with seeds 0.02 apart in IoU, its ratio moves by 0.4.

Ours; the paper sets no bound."""


class ConfusionMatrix:
    """Pixel counts by true and predicted class, over as many updates as wanted.

    Args:
        num_classes: C.
        device: where it counts; `update` takes tensors from there.
    """

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        if not 1 <= num_classes <= IGNORE_INDEX:
            raise ValueError(f"num_classes is {num_classes}; allowed: 1 to {IGNORE_INDEX}")
        self.num_classes = num_classes
        # C*C counts, then void pixels, then pixels whose label or prediction is no class
        self._counts = torch.zeros(num_classes**2 + 2, dtype=torch.int64, device=device)

    def update(self, labels: Tensor, prediction: Tensor) -> None:
        """Count every pixel that is not void; does not wait for the device.

        Args:
            labels: ground truth of any shape, an integer type, 0..C-1 or 255 for void.
            prediction: classes 0..C-1 of the same shape and device; ignored where `labels` is void.

        Raises:
            ValueError: shapes or devices disagree, or a tensor is not of an integer type. Values outside are found by
                `matrix`.
        """
        if labels.shape != prediction.shape:
            raise ValueError(f"labels {tuple(labels.shape)} and prediction {tuple(prediction.shape)} differ in shape")
        for name, tensor in (("labels", labels), ("prediction", prediction)):
            if tensor.dtype.is_floating_point or tensor.dtype.is_complex or tensor.dtype == torch.bool:
                raise ValueError(f"{name} is {tensor.dtype}; an integer type is needed")
            if tensor.device != self._counts.device:
                raise ValueError(f"{name} is on {tensor.device}, the confusion matrix on {self._counts.device}")
        classes, void = self.num_classes, self.num_classes**2
        truth, guess = labels.reshape(-1).long(), prediction.reshape(-1).long()
        inside = (truth >= 0) & (truth < classes) & (guess >= 0) & (guess < classes)
        index = torch.where(inside, truth * classes + guess, void + 1)
        index = torch.where(truth == IGNORE_INDEX, void, index)
        # not bincount, which waits for a GPU to learn its length; not scatter_add_, five times slower on a CPU
        self._counts.index_add_(0, index, torch.ones_like(index))

    def merge(self, other: "ConfusionMatrix") -> None:
        """Add the counts of `other`, which stays as it is.

        Raises:
            ValueError: it has another number of classes.
        """
        if other.num_classes != self.num_classes:
            raise ValueError(f"cannot merge {other.num_classes} classes into {self.num_classes}")
        self._counts += other._counts.to(self._counts.device)

    @property
    def matrix(self) -> Tensor:
        """Counts [C,C], int64, true class by row and predicted class by column; a copy.

        Raises:
            ValueError: an update held a label outside 0..C-1 and 255, or a prediction outside 0..C-1.
        """
        outside = int(self._counts[-1])
        if outside:
            raise ValueError(f"{outside} pixels had a label or a prediction outside 0..{self.num_classes - 1}")
        return self._counts[:-2].reshape(self.num_classes, self.num_classes).clone()

    @property
    def void(self) -> int:
        """Number of pixels left out because their label is void."""
        return int(self._counts[-2])


def iou(matrix: Tensor) -> Tensor:
    """Intersection over union of every class.

    Args:
        matrix: counts [C,C], true class by row.

    Returns:
        [C] float64 in [0,1] on the CPU; NaN for a class that is neither labelled nor predicted anywhere.

    Raises:
        ValueError: `matrix` is not square.
    """
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"a confusion matrix is square, this one is {tuple(matrix.shape)}")
    counts = matrix.detach().to("cpu", torch.float64)
    intersection = counts.diagonal()
    union = counts.sum(dim=0) + counts.sum(dim=1) - intersection
    return intersection / union  # 0 / 0 is NaN: an empty union


def _chosen(values: Tensor, subset: Sequence[int] | None) -> Tensor:
    """Return the values of a subset that are not NaN."""
    if values.ndim != 1:
        raise ValueError(f"one value a class is needed, not {tuple(values.shape)}")
    chosen = values if subset is None else values[list(subset)]
    return chosen[~chosen.isnan()].double()


def mean_iou(iou: Tensor, subset: Sequence[int] | None = None) -> float:
    """Mean over classes, those with an empty union left out.

    Args:
        iou: one value a class [C]; NaN marks an empty union.
        subset: class indices to average over; None means all.

    Returns:
        The mean; NaN where no class is left.
    """
    return float(_chosen(iou, subset).mean())


def standard_deviation(iou: Tensor, subset: Sequence[int] | None = None) -> float:
    """Spread of the IoUs over classes (paper, Sec. 6.2), those with an empty union left out.

    Args:
        iou: one value a class [C]; NaN marks an empty union.
        subset: class indices to include; None means all.

    Returns:
        The population's standard deviation; NaN where no class is left.
    """
    return float(_chosen(iou, subset).std(correction=0))


def agreement(matrix: Tensor) -> float:
    """Mean IoU between two predictions, divided by all C classes: one in which neither has a pixel counts 0.

    Otherwise a constant prediction, which always agrees with itself, would score 1.

    Args:
        matrix: counts [C,C] of one prediction against the other.
    """
    return float(iou(matrix).nan_to_num(nan=0.0).mean())


@dataclass(frozen=True, kw_only=True)
class AdaptedToSupervised:
    """Outcome of `mean_adapted_to_supervised_ratio`.

    Args:
        value: mASR, 1 meaning as good as supervised training; NaN where no class is left.
        ratio: ASR of each class; None for the classes left out.
        left_out: classes of the subset that are not in the mean.
        unstable: classes in the mean whose supervised IoU is below `UNSTABLE_BELOW`.
    """

    value: float
    ratio: tuple[float | None, ...]
    left_out: tuple[int, ...]
    unstable: tuple[int, ...]


def mean_adapted_to_supervised_ratio(
    iou_adapted: Tensor, iou_supervised: Tensor, floor: float = 0.0, *, subset: Sequence[int] | None = None
) -> AdaptedToSupervised:
    """mASR: mean over classes of IoU_adapt / IoU_sup (paper, Eq. 9).

    A class that supervised training does not learn at all (IoU 0, or an empty union) has no ratio. It is left out and
    named in the result.

    Args:
        iou_adapted: IoUs of the adapted network [C], shares of 1.
        iou_supervised: IoUs of the network trained on target labels [C], shares of 1.
        floor: leave out classes whose supervised IoU is below this, too. 0 is Eq. 9 as printed.
        subset: class indices to average over; None means all.

    Raises:
        ValueError: the two differ in shape, or `floor` is negative.
    """
    if iou_adapted.ndim != 1 or iou_adapted.shape != iou_supervised.shape:
        raise ValueError(f"IoUs of {tuple(iou_adapted.shape)} and {tuple(iou_supervised.shape)} cannot be compared")
    if not floor >= 0:
        raise ValueError(f"floor is {floor}; allowed: 0 and more")
    classes = range(len(iou_adapted)) if subset is None else subset
    ratio: list[float | None] = [None] * len(iou_adapted)
    unstable = []
    for index, (adapted, supervised) in enumerate(zip(iou_adapted.tolist(), iou_supervised.tolist(), strict=True)):
        if index in classes and supervised > 0 and supervised >= floor and adapted == adapted:  # NaN is in no mean
            ratio[index] = adapted / supervised
            if supervised < UNSTABLE_BELOW:
                unstable.append(index)
    kept = [value for value in ratio if value is not None]
    return AdaptedToSupervised(
        value=sum(kept) / len(kept) if kept else float("nan"),
        ratio=tuple(ratio),
        left_out=tuple(sorted(index for index in classes if ratio[index] is None)),
        unstable=tuple(unstable),
    )
