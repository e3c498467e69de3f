"""The numbers a mask file holds: the network's own class indices, or the ids of the data set they stem from.

The one table of ids stands here as data, by class name, because the runtime knows label spaces only from Manifests.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import UsageError
from lsr_infer.labelspace import LabelSpace
from lsr_infer.pipeline.kinds import MASK_IDS

__all__ = ["CITYSCAPES_NAMES", "MaskIds"]

_CITYSCAPES = {
    "road": 7, "sidewalk": 8, "building": 11, "wall": 12, "fence": 13, "pole": 17, "traffic light": 19,
    "traffic sign": 20, "vegetation": 21, "terrain": 22, "sky": 23, "person": 24, "rider": 25, "car": 26, "truck": 27,
    "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33,
}  # fmt: skip
_CITYSCAPES_UNLABELED = 0

CITYSCAPES_NAMES = tuple(_CITYSCAPES)
"""Cityscapes' 19 classes in the order of their train ids."""


@dataclass(frozen=True, eq=False)
class MaskIds:
    """How class maps become the numbers in a file.

    Args:
        palette: [256,3] uint8, red, green, blue by number.
        table: [256] uint8, number by class index; None leaves the indices as they are.
    """

    palette: NDArray[np.uint8]
    table: NDArray[np.uint8] | None = None

    @classmethod
    def of(cls, kind: str, space: LabelSpace) -> "MaskIds":
        """Return the numbers of a kind for the classes of a network.

        Raises:
            UsageError: there is no such kind, or a class has no id in it.
        """
        if kind == "train":
            return cls(space.palette())
        if kind != "cityscapes":
            raise UsageError(f"--mask-ids is {kind}; allowed: {', '.join(MASK_IDS)}.")
        unknown = [name for name in space.names if name not in _CITYSCAPES]
        if unknown:
            raise UsageError(
                f"--mask-ids cityscapes: this model's classes ({space.name}) include {unknown[0]}, which is none of "
                "Cityscapes'. Take --mask-ids train."
            )
        table = np.full(256, _CITYSCAPES_UNLABELED, dtype=np.uint8)
        palette = np.zeros((256, 3), dtype=np.uint8)
        for index, (name, color) in enumerate(zip(space.names, space.colors, strict=True)):
            table[index] = _CITYSCAPES[name]
            palette[_CITYSCAPES[name]] = color
        return cls(palette, table)

    def numbers(self, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the numbers of a class map [H,W]."""
        return classes if self.table is None else self.table[classes]
