"""One place where frames meet the network, shared by all sources of a run: working size, tiles, a second model, turns.

Sources may ask from several threads; the network sees one frame at a time, in the order of asking.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lsr_infer.labelspace import LabelSpace
from lsr_infer.pipeline.stages import Turns
from lsr_infer.pipeline.tiles import segment_tiles
from lsr_infer.pipeline.working_size import WorkingSize
from lsr_infer.segmenter import Segmentation, Segmenter

__all__ = ["Inference"]


@dataclass(frozen=True)
class Inference:
    """The models of a run.

    Args:
        segmenter: the model.
        other: a second one to compare it with, or None.
        working: at which size both work.
    """

    segmenter: Segmenter
    other: Segmenter | None = None
    working: WorkingSize = field(default_factory=WorkingSize)
    _turns: Turns = field(default_factory=Turns, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.working.check(self.segmenter.manifest)
        if self.other is not None:
            self.working.check(self.other.manifest)

    @property
    def label_space(self) -> LabelSpace:
        """The classes of the model."""
        return self.segmenter.label_space

    def __call__(self, frame: NDArray[np.uint8]) -> tuple[Segmentation, Segmentation | None]:
        """Segment a frame with the model, and with the other one where there is one.

        Raises:
            InputError: a model failed, or does not take a frame of this size at the stride that was asked for.
        """
        with self._turns:
            return self._one(self.segmenter, frame), None if self.other is None else self._one(self.other, frame)

    def _one(self, segmenter: Segmenter, frame: NDArray[np.uint8]) -> Segmentation:
        tiling = self.working.tiling(segmenter.manifest)
        if tiling is not None:
            return segment_tiles(segmenter, frame, tiling)
        return segmenter(frame, size=self.working.of(segmenter.manifest, frame.shape[0], frame.shape[1]))
