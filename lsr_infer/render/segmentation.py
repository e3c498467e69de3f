"""Holds what a network gives for one frame, and turns it into classes, confidence and pictures on demand."""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError
from lsr_infer.labelspace import LabelSpace
from lsr_infer.render.masks import peak_probability, upsample_argmax

__all__ = ["Segmentation"]


class Segmentation:
    """The output of a network for one frame of `size` (rows, columns).

    Args:
        label_space: names and colours of the classes.
        size: (rows, columns) of the frame.
        logits: [C,h,w] float32 at feature size, or None for a model that gives classes.
        classes: [H,W] uint8 of the graph for a model that gives classes, 0..C-1.
    """

    def __init__(
        self,
        label_space: LabelSpace,
        size: tuple[int, int],
        *,
        logits: NDArray[np.float32] | None = None,
        classes: NDArray[np.uint8] | None = None,
    ) -> None:
        if (logits is None) == (classes is None):
            raise ValueError("a segmentation holds either logits or classes")
        if classes is not None and classes.size and classes.max() >= label_space.num_classes:
            raise InputError(
                f"the model gave class {classes.max()}, and its classes are 0 to {label_space.num_classes - 1}. Export "
                "it again."
            )
        self.label_space = label_space
        self.size = size
        self.logits = logits
        self._classes = classes

    @cached_property
    def classes(self) -> NDArray[np.uint8]:
        """[H,W] uint8, the class of every pixel of the frame, 0..C-1; computed when first asked for."""
        if self._classes is not None:
            return self._classes
        assert self.logits is not None
        return upsample_argmax(self.logits, *self.size)

    @cached_property
    def confidence(self) -> NDArray[np.float32]:
        """[H,W] float32 in (0, 1], the probability of the class of every pixel; `InputError` without logits."""
        if self.logits is None:
            raise InputError("this model gives classes and no logits, so there is no confidence. Export with logits.")
        return peak_probability(self.logits, *self.size)

    def overlay(self, frame: NDArray[np.uint8], alpha: float = 0.5) -> NDArray[np.uint8]:
        """Blend the colours of the classes over a frame; see `lsr_infer.render.overlay.overlay`."""
        from lsr_infer.render.overlay import overlay

        return overlay(frame, self.classes, self.label_space, alpha)

    def colorize(self) -> NDArray[np.uint8]:
        """Return the class map in its colours, [H,W,3] uint8 BGR."""
        from lsr_infer.render.overlay import colorize

        return colorize(self.classes, self.label_space)

    def to_png(self) -> bytes:
        """Return the content of a palette PNG: its samples are the classes, its palette their colours."""
        from lsr_infer.io.images import palette_png

        return palette_png(self.classes, self.label_space.palette())

    def shares(self) -> dict[str, float]:
        """Return for each class found the share of the pixels it takes, by name."""
        counts = np.bincount(self.classes.ravel(), minlength=self.label_space.num_classes)
        return {self.label_space.names[c]: float(counts[c] / counts.sum()) for c in np.flatnonzero(counts).tolist()}
