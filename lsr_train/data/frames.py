"""Frames for looking, not for training: labelled ones to score on, target ones for statistics. Nothing is augmented."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lsr_infer.io.images import fit_mask, resize_frame
from lsr_infer.labelspace import LabelSpace
from lsr_train.config.run import SourceConfig
from lsr_train.data.footage import Footage, evenly
from lsr_train.data.labelled import open_labelled

__all__ = ["LabelledFrame", "LabelledFrames", "TargetFrames"]


class LabelledFrame(NamedTuple):
    """Frame uint8 [H,W,3] and labels uint8 [H,W] at the files' own size, and what the frame is called."""

    frame: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    file: str


class LabelledFrames:
    """A labelled data set to score on, by index and in name order. It is scanned on construction.

    Args:
        layout: as `data.source.layout`.
        root: the folder; Toytown needs none.
        split: a split by the layout's own name; empty means everything there is.
        ids: what the label files hold, or `auto`.
        height: rows at which Toytown is rendered; files keep their own size.
        width: columns at which Toytown is rendered.
        space: the classes wanted.
        limit: only the first so many; 0 means all. For Toytown: how many scenes.
        ignore_mask: image whose non-black pixels are void in every frame; empty means none.
        label_space: the text `space` was loaded from; a YAML file there may also say what label files hold.
        on_bad: `stop` or `skip` over unusable files.
        cache: folder that keeps what the scan found; None keeps nothing.

    Raises:
        UsageError: layout, split and ids do not fit together.
        InputError: files are missing or unusable; all of them are listed.
    """

    def __init__(
        self,
        layout: str,
        root: str,
        split: str,
        ids: str,
        height: int,
        width: int,
        space: LabelSpace,
        limit: int = 0,
        *,
        ignore_mask: str = "",
        label_space: str = "auto",
        on_bad: str = "stop",
        cache: Path | None = None,
    ) -> None:
        source = SourceConfig(
            layout=layout,  # type: ignore[arg-type]  # checked by SourceConfig itself
            root=root,
            split=split,
            ids=ids,  # type: ignore[arg-type]  # checked by SourceConfig itself
            height=height,
            width=width,
            limit=limit,
            ignore_mask=ignore_mask,
        )
        self.space = space
        self._images = open_labelled(source, space, label_space=label_space, on_bad=on_bad, cache=cache)

    @property
    def left_out(self) -> tuple[str, ...]:
        """One line for each unusable file that was left out."""
        return self._images.left_out

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> LabelledFrame:
        """Return frame `index`, 0 <= index < len."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        frame, labels = self._images.read(index)
        return LabelledFrame(frame, labels, self._images.name(index))

    def __iter__(self) -> Iterator[LabelledFrame]:
        return (self[index] for index in range(len(self)))


class TargetFrames:
    """Evenly spread target frames at one size, without augmentation.

    Args:
        footage: where they come from.
        count: how many; 0, or more than there are, means all.
        height: rows wanted.
        width: columns wanted.
        ignored: bool [H,W], true where a pixel never counts; None for nowhere.
    """

    def __init__(
        self, footage: Footage, count: int, height: int, width: int, ignored: NDArray[np.bool_] | None = None
    ) -> None:
        self._footage, self._indices = footage, evenly(len(footage), count)
        self.height, self.width = height, width
        fitted = fit_mask(ignored, height, width)
        self.mask: NDArray[np.bool_] | None = None if fitted is None else ~fitted
        """bool [height,width], true where a pixel counts; None means everywhere."""

    @property
    def files(self) -> tuple[str, ...]:
        """What each frame is called."""
        return tuple(self._footage.name(index) for index in self._indices)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Return frame `index`, uint8 [height,width,3], 0 <= index < len."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        return resize_frame(self._footage.read(self._indices[index]), self.height, self.width)

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self[index] for index in range(len(self)))

    def batches(self, size: int, *, whole: bool = False) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield the frames in order.

        Args:
            size: largest number of frames in a batch; the last one may be smaller.
            whole: leave a smaller last batch out where there are whole ones, for statistics that count every batch
                alike.

        Yields:
            Frames uint8 [B,H,W,3], and their mask bool [B,H,W] or None.
        """
        mask = None if self.mask is None else torch.from_numpy(self.mask)
        end = len(self) - len(self) % size if whole and len(self) >= size else len(self)
        for start in range(0, end, size):
            frames = np.stack([self[index] for index in range(start, min(start + size, end))])
            yield torch.from_numpy(frames), None if mask is None else mask.expand(len(frames), -1, -1)
