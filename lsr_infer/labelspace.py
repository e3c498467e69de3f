"""Defines the classes of a network: their names, colours, and the subsets that are reported.

The type travels from training through the checkpoint and the Manifest to the runtime as plain data. It knows nothing of
datasets or of their ids.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError

__all__ = ["IGNORE_INDEX", "LabelSpace"]

IGNORE_INDEX = 255
"""The label of void pixels, everywhere."""


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """An ordered set of classes.

    Args:
        name: what the space is called in tables and files.
        names: class names, in the order of the network's channels.
        colors: one (red, green, blue) triple of 0..255 a class.
        subsets: named groups of class indices that are reported beside the whole, such as SYNTHIA's 13 classes.

    Raises:
        InputError: the lengths differ, a name repeats or is no text, there are no classes or more than 255, a colour is
            out of range, or a subset names a class that is not there.
    """

    name: str
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    subsets: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= len(self.names) <= IGNORE_INDEX:
            raise InputError(f"label space {self.name} has {len(self.names)} classes; allowed: 1 to {IGNORE_INDEX}.")
        if len(self.colors) != len(self.names):
            raise InputError(f"label space {self.name} has {len(self.names)} names and {len(self.colors)} colours.")
        try:
            "".join((self.name, *self.names, *self.subsets)).encode()
        except UnicodeEncodeError as error:
            raise InputError(f"label space {self.name}: {error.object!r:.80} has half a character in it.") from error
        if len(set(self.names)) != len(self.names):
            repeated = sorted({name for name in self.names if self.names.count(name) > 1})
            raise InputError(f"label space {self.name} names a class twice: {', '.join(repeated)}.")
        for name, color in zip(self.names, self.colors, strict=True):
            if len(color) != 3 or not all(isinstance(value, int) and 0 <= value <= 255 for value in color):
                raise InputError(f"label space {self.name}: the colour of {name} is {color}; allowed: three of 0..255.")
        for subset, indices in self.subsets.items():
            if not indices or not all(0 <= index < len(self.names) for index in indices):
                raise InputError(f"label space {self.name}: subset {subset} holds {indices}; allowed: class indices.")

    @property
    def num_classes(self) -> int:
        """Number of classes C, void not counted."""
        return len(self.names)

    def palette(self, void: tuple[int, int, int] = (0, 0, 0)) -> NDArray[np.uint8]:
        """Return a [256,3] uint8 table of red, green, blue by label; labels without a class are `void`."""
        table = np.empty((256, 3), dtype=np.uint8)
        table[:] = void
        table[: self.num_classes] = self.colors
        return table

    def to_dict(self) -> dict[str, Any]:
        """Return the space as plain JSON data."""
        return {
            "name": self.name,
            "names": list(self.names),
            "colors": [list(color) for color in self.colors],
            "subsets": {subset: list(indices) for subset, indices in self.subsets.items()},
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "LabelSpace":
        """Read a space back from `to_dict`.

        Raises:
            InputError: a key is missing or a value has the wrong type.
        """
        try:
            return msgspec.json.decode(json.dumps(document), type=cls)
        except (TypeError, ValueError) as error:
            raise InputError(f"this is no label space: {error}.") from error
