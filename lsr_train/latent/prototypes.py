"""Averages the source features of each class and smooths the means over batches (paper, Eq. 2 and 3)."""

from typing import Literal

import torch
from torch import Tensor, nn

from lsr_train.distributed import all_reduce_sum
from lsr_train.latent.cells import check_cells, compute_dtype, one_hot


def class_means(features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return the mean feature of each class over all ranks (paper, Eq. 2).

    Returns:
        Means [C,K] in float32 (float64 for float64 features), differentiated, 0 for classes without a cell; and which
        classes have one, [C] bool.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = features.to(compute_dtype(features.dtype))
        members = one_hot(labels, num_classes, features.dtype)  # [B,C,h,w]
        sums = (features.flatten(2) @ members.flatten(2).mT).sum(dim=0)  # [K,C]
        return means_over_ranks(sums.T, members.sum(dim=(0, 2, 3)))


def means_over_ranks(sums: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Divide sums [C,K] by counts [C] over all ranks; return the means, and which classes have a cell [C]."""
    totals = all_reduce_sum(torch.cat([sums, counts[:, None]], dim=1))  # one message
    counts = totals[:, -1].detach()
    return totals[:, :-1] / counts.clamp(min=1)[:, None], counts > 0


def smooth(previous: Tensor, batch_mean: Tensor, present: Tensor, replaced: Tensor, decay: float) -> Tensor:
    """Move the smoothed prototypes [C,K] by one batch (paper, Eq. 3), with eta `decay`.

    Classes that are not present [C] keep their estimate (eta = 1), those `replaced` take the batch's mean (eta = 0).
    """
    batch_mean = batch_mean.detach()
    moved = decay * previous + (1 - decay) * batch_mean
    moved = torch.where(replaced[:, None], batch_mean, moved)
    return torch.where(present[:, None], moved, previous)


class Prototypes(nn.Module):
    """The smoothed class means, in the buffers `mean` [C,K] and `seen` [C].

    Args:
        num_classes: C.
        channels: K.
        decay: eta of Eq. 3, in [0, 1).
        init: `first` lets the first observation of a class replace the zero (the authors' code); `zero` averages it in
            with the zero (the paper).

    Raises:
        ValueError: an argument is out of range.
    """

    mean: Tensor
    seen: Tensor

    def __init__(
        self, num_classes: int, channels: int, decay: float = 0.8, init: Literal["first", "zero"] = "first"
    ) -> None:
        super().__init__()
        if num_classes < 1 or channels < 1:
            raise ValueError(f"num_classes is {num_classes} and channels {channels}; both must be at least 1")
        if not 0 <= decay < 1:
            raise ValueError(f"decay is {decay}; allowed: [0, 1)")
        if init not in ("first", "zero"):
            raise ValueError(f"init is {init!r}; allowed: first, zero")
        self.decay = decay
        self.init = init
        self.register_buffer("mean", torch.zeros(num_classes, channels))
        self.register_buffer("seen", torch.zeros(num_classes, dtype=torch.bool))

    def extra_repr(self) -> str:
        """Say what `print` shows."""
        return f"{self.mean.shape[0]}, {self.mean.shape[1]}, decay={self.decay}, init={self.init!r}"

    def update(self, features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Take in the source features of one batch; in `eval()` no state moves.

        Args:
            features: source features [B,K,h,w], any floating type; differentiated.
            labels: cell labels [B,h,w] int64, 255 for void. Values are not checked.

        Returns:
            This batch's means over all ranks [C,K], differentiated, 0 for absent classes; and the classes present [C].

        Raises:
            ValueError: shapes, types or devices disagree.
        """
        num_classes, channels = self.mean.shape
        check_cells(features, labels, channels)
        batch_mean, present = class_means(features, labels, num_classes)
        self.move(batch_mean, present)
        return batch_mean, present

    def move(self, batch_mean: Tensor, present: Tensor) -> None:
        """Apply Eq. 3 to the buffers, given the means over all ranks; in `eval()` do nothing."""
        if not self.training:
            return
        with torch.no_grad():
            replaced = ~self.seen if self.init == "first" else torch.zeros_like(self.seen)
            moved = smooth(self.mean, batch_mean, present, replaced, self.decay)
            # replaced, not written in place: a graph that waits for its backward keeps the tensors it saw (compiled by
            # torch 2.13's inductor it would otherwise recompute from the new values)
            self.mean = moved.to(self.mean.dtype)
            self.seen = self.seen | present
