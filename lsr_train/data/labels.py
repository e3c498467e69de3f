"""Knows the label spaces, what each data set's label files hold, and the way between them.

An `IdMap` turns the raw values of a label file (ids or colours) into the labels of a space. Every published encoding is
mapped to Cityscapes' 19 training classes first and from there into the space, so a space has one row here and an
encoding has one row here. A user's own classes come from a `classes.yaml` (`classes_file.py`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError, UsageError
from lsr_infer.labelspace import IGNORE_INDEX, LabelSpace

__all__ = [
    "CAMVID_11", "CITYSCAPES_19", "ENCODINGS", "IGNORE_INDEX", "LABEL_SPACES", "SYNTHIA_13", "SYNTHIA_16", "Classes",
    "Color", "IdMap", "encoding_map", "joined", "translation",
]  # fmt: skip

Color = tuple[int, int, int]

_CITYSCAPES: tuple[tuple[str, Color], ...] = (
    ("road", (128, 64, 128)),
    ("sidewalk", (244, 35, 232)),
    ("building", (70, 70, 70)),
    ("wall", (102, 102, 156)),
    ("fence", (190, 153, 153)),
    ("pole", (153, 153, 153)),
    ("traffic light", (250, 170, 30)),
    ("traffic sign", (220, 220, 0)),
    ("vegetation", (107, 142, 35)),
    ("terrain", (152, 251, 152)),
    ("sky", (70, 130, 180)),
    ("person", (220, 20, 60)),
    ("rider", (255, 0, 0)),
    ("car", (0, 0, 142)),
    ("truck", (0, 0, 70)),
    ("bus", (0, 60, 100)),
    ("train", (0, 80, 100)),
    ("motorcycle", (0, 0, 230)),
    ("bicycle", (119, 11, 32)),
)
"""Names and colours of the 19 classes, in training order (Cityscapes)."""

_SIXTEEN = (*range(9), *range(10, 14), 15, 17, 18)
_THIRTEEN = (0, 1, 2, *range(6, 9), *range(10, 14), 15, 17, 18)

_CAMVID: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("road", (0,)),
    ("sidewalk", (1,)),
    ("building", (2, 3)),
    ("fence", (4,)),
    ("pole", (5,)),
    ("sign", (7, 6)),
    ("tree", (8, 9)),
    ("sky", (10,)),
    ("pedestrian", (11,)),
    ("car", (13, 14, 15, 16)),
    ("bicyclist", (18, 12, 17)),
)
"""CamVid's 11 groups of Cityscapes classes; the first of a group lends its colour, so that overlays look alike."""


def _of_cityscapes(name: str, indices: tuple[int, ...], subsets: Mapping[str, tuple[int, ...]]) -> LabelSpace:
    """Build a space of some of the 19 classes; `subsets` are given as Cityscapes indices."""
    return LabelSpace(
        name=name,
        names=tuple(_CITYSCAPES[index][0] for index in indices),
        colors=tuple(_CITYSCAPES[index][1] for index in indices),
        subsets={key: tuple(indices.index(index) for index in value) for key, value in subsets.items()},
    )


CITYSCAPES_19 = _of_cityscapes("cityscapes19", tuple(range(19)), {"16": _SIXTEEN, "13": _THIRTEEN})
"""The 19 classes of Cityscapes and GTA5."""
SYNTHIA_16 = _of_cityscapes("synthia16", _SIXTEEN, {"13": _THIRTEEN})
"""The 16 classes SYNTHIA shares with Cityscapes."""
SYNTHIA_13 = _of_cityscapes("synthia13", _THIRTEEN, {})
"""Those without wall, fence and pole."""
CAMVID_11 = LabelSpace(
    name="camvid11",
    names=tuple(name for name, _ in _CAMVID),
    colors=tuple(_CITYSCAPES[group[0]][1] for _, group in _CAMVID),
)
"""CamVid's 11 groups."""

LABEL_SPACES = {space.name: space for space in (CITYSCAPES_19, SYNTHIA_16, SYNTHIA_13, CAMVID_11)}
"""Spaces by the name the configuration uses."""

_CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Cityscapes' ids of the 19 classes, in training order."""

_SYNTHIA_IDS = {
    1: 10, 2: 2, 3: 0, 4: 1, 5: 4, 6: 8, 7: 5, 8: 13, 9: 7, 10: 11, 11: 18,
    12: 17, 15: 6, 16: 9, 17: 12, 18: 14, 19: 15, 20: 16, 21: 3,
}  # fmt: skip
"""Ids of SYNTHIA RAND_CITYSCAPES to training classes."""

_CAMVID_COLORS: dict[Color, int] = {
    (64, 128, 64): 11,  # Animal
    (192, 0, 128): 2,  # Archway
    (0, 128, 192): 18,  # Bicyclist
    (0, 128, 64): 2,  # Bridge
    (128, 0, 0): 2,  # Building
    (64, 0, 128): 13,  # Car
    (64, 0, 192): 11,  # CartLuggagePram
    (192, 128, 64): 11,  # Child
    (192, 192, 128): 5,  # Column_Pole
    (64, 64, 128): 4,  # Fence
    (128, 0, 192): 0,  # LaneMkgsDriv
    (192, 0, 64): 0,  # LaneMkgsNonDriv
    (128, 128, 64): 7,  # Misc_Text
    (192, 0, 192): 17,  # MotorcycleScooter
    (128, 64, 64): 13,  # OtherMoving
    (64, 192, 128): 1,  # ParkingBlock
    (64, 64, 0): 11,  # Pedestrian
    (128, 64, 128): 0,  # Road
    (128, 128, 192): 1,  # RoadShoulder
    (0, 0, 192): 1,  # Sidewalk
    (192, 128, 128): 7,  # SignSymbol
    (128, 128, 128): 10,  # Sky
    (64, 128, 192): 13,  # SUVPickupTruck
    (0, 0, 64): 5,  # TrafficCone
    (0, 64, 64): 6,  # TrafficLight
    (192, 64, 128): 16,  # Train
    (128, 128, 0): 8,  # Tree
    (192, 128, 192): 14,  # Truck_Bus
    (64, 0, 64): 2,  # Tunnel
    (192, 192, 0): 8,  # VegetationMisc
    (0, 0, 0): IGNORE_INDEX,  # Void
    (64, 192, 0): 3,  # Wall
}
"""CamVid's 32 label colours to training classes; the grouping is the usual one into 11, spread over the 19 by us."""


@dataclass(frozen=True, kw_only=True)
class IdMap:
    """From the raw values of a label file to labels.

    Args:
        name: what the encoding is called in messages.
        labels: label (0..C-1, or 255 for void) of every raw value the files may hold. A raw value is an id, or, where
            `colors` is true, a colour as `red << 16 | green << 8 | blue`.
        colors: whether the files hold RGB colours.
    """

    name: str
    labels: Mapping[int, int]
    colors: bool = False
    _keys: NDArray[np.int64] = field(init=False, repr=False, compare=False)
    _values: NDArray[np.uint8] = field(init=False, repr=False, compare=False)
    _table: NDArray[np.int16] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        largest = 0xFFFFFF if self.colors else 0xFFFF
        for value, label in self.labels.items():
            if not (0 <= value <= largest and 0 <= label <= IGNORE_INDEX):
                raise InputError(f"id map {self.name}: {value} -> {label} is not allowed; ids are 0..{largest}.")
        keys = np.array(sorted(self.labels), dtype=np.int64)
        object.__setattr__(self, "_keys", keys)
        object.__setattr__(self, "_values", np.array([self.labels[int(key)] for key in keys], dtype=np.uint8))
        if not self.colors:
            size = max(256, int(keys[-1]) + 2 if keys.size else 0)  # the last entry stands for all beyond the table
            table = np.full(size, -1, dtype=np.int16)
            table[keys] = self._values
            object.__setattr__(self, "_table", table)

    def raw_values(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Reduce a label file's content, [H,W] ids or [H,W,3] RGB, to one raw value a pixel [H,W].

        Three channels under an id map mean the id is in the first, as SYNTHIA and CARLA write it.

        Raises:
            ValueError: the map is of colours and `raw` has no three channels.
        """
        if self.colors:
            if raw.ndim != 3:
                raise ValueError(f"{self.name} is a map of RGB colours, but the label file has one channel")
            wide = raw.astype(np.int64)
            return np.asarray((wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2])
        return raw[..., 0] if raw.ndim == 3 else raw

    def lookup(self, values: NDArray[Any]) -> NDArray[np.int16]:
        """Return the label of each raw value, -1 where the map has none."""
        if self._table is not None:
            return np.asarray(
                self._table[values if values.dtype == np.uint8 else np.minimum(values, len(self._table) - 1)]
            )
        places = np.searchsorted(self._keys, values).clip(max=max(len(self._keys) - 1, 0))
        if not len(self._keys):
            return np.full(values.shape, -1, dtype=np.int16)
        return np.where(self._keys[places] == values, self._values[places].astype(np.int16), np.int16(-1))

    def apply(self, raw: NDArray[Any], ignored: NDArray[np.bool_] | None = None) -> NDArray[np.uint8]:
        """Turn a label file's content (see `raw_values`) into labels uint8 [H,W]; void where `ignored`, bool [H,W], is.

        Raises:
            InputError: a raw value is not in the map; names it and its place.
            ValueError: see `raw_values`.
        """
        values = self.raw_values(raw)
        labels = self.lookup(values)
        if ignored is not None:
            labels[ignored] = IGNORE_INDEX
        if labels.size and int(labels.min()) < 0:
            row, column = (int(place) for place in np.argwhere(labels < 0)[0])
            raise InputError(self.complaint(int(values[row, column]), (row, column)))
        return labels.astype(np.uint8)

    def show(self, value: int) -> str:
        """Spell a raw value for a message."""
        if self.colors:
            return f"label colour ({value >> 16}, {value >> 8 & 255}, {value & 255})"
        return f"label id {value}"

    def complaint(self, value: int, place: tuple[int, int] | None = None) -> str:
        """Say that `value` is outside the map, where, and what to do."""
        where = "" if place is None else f" (row {place[0]}, column {place[1]})"
        return (
            f"{self.show(value)} is not in the map {self.name}{where}. Set --data.source.ids, or list it under "
            "`ignore` in classes.yaml"
        )

    def then(self, table: NDArray[np.uint8]) -> "IdMap":
        """Follow this map by a table [256] from its labels to others."""
        return replace(self, labels={value: int(table[label]) for value, label in self.labels.items()})


def _ids(name: str, known: Iterable[int], labels: Mapping[int, int]) -> IdMap:
    """Build a map whose `known` ids are void unless `labels` names them; 255 is void everywhere."""
    return IdMap(name=name, labels={**dict.fromkeys((*known, IGNORE_INDEX), IGNORE_INDEX), **labels})


_BY_CITYSCAPES_ID = {identifier: index for index, identifier in enumerate(_CITYSCAPES_IDS)}

ENCODINGS: dict[str, IdMap] = {
    "cityscapes-id": _ids("cityscapes-id", range(34), _BY_CITYSCAPES_ID),
    "gta5-id": _ids("gta5-id", range(35), _BY_CITYSCAPES_ID),  # 34 is the licence plate
    "cityscapes-trainid": _ids("cityscapes-trainid", (), {index: index for index in range(19)}),
    "synthia-id": _ids("synthia-id", range(23), _SYNTHIA_IDS),
    "camvid-color": IdMap(
        name="camvid-color",
        labels={red << 16 | green << 8 | blue: label for (red, green, blue), label in _CAMVID_COLORS.items()},
        colors=True,
    ),
}
"""What published label files hold, as maps to the 19 training classes."""


def joined(spaces: Sequence[LabelSpace]) -> LabelSpace:
    """Return the space of all classes of several, by name: one of them that has all, else a new one in their order."""
    colors: dict[str, Color] = {}
    for space in spaces:
        colors = {**dict(zip(space.names, space.colors, strict=True)), **colors}
    names = list(dict.fromkeys(name for space in spaces for name in space.names))
    whole = next((space for space in spaces if len(space.names) == len(names)), None)
    if whole is not None:
        return whole
    return LabelSpace(
        name="+".join(dict.fromkeys(space.name for space in spaces)),
        names=tuple(names),
        colors=tuple(colors[name] for name in names),
        subsets=spaces[0].subsets,
    )


def translation(origin: LabelSpace, space: LabelSpace) -> NDArray[np.uint8]:
    """Return the table that carries labels of one space into another.

    Cityscapes' 19 classes go into CamVid's 11 by their groups; between any other two spaces classes correspond by name,
    and a class without a namesake becomes void. Void stays void.

    Raises:
        InputError: the spaces have no class in common.
    """
    table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
    if (origin, space) == (CITYSCAPES_19, CAMVID_11):
        for label, (_, group) in enumerate(_CAMVID):
            table[list(group)] = label
        return table
    for label, name in enumerate(origin.names):
        if name in space.names:
            table[label] = space.names.index(name)
    if not (table != IGNORE_INDEX).any():
        raise InputError(
            f"label space {space.name} ({', '.join(space.names)}) shares no class name with {origin.name} "
            f"({', '.join(origin.names)}). Set --label_space, or give the classes the same names."
        )
    return table


@dataclass(frozen=True, kw_only=True)
class Classes:
    """A user's own classes, and what the user's label files hold, as labels of that space."""

    space: LabelSpace
    id_map: IdMap


def encoding_map(ids: str, space: LabelSpace, classes: Classes | None = None) -> IdMap:
    """Choose the map from label files to a space.

    `ids` is a key of `ENCODINGS`, or `classes` (as the data set's classes.yaml says, else the space's own numbers).

    Raises:
        UsageError: `ids` is unknown.
        InputError: what the files hold and the space have nothing in common.
    """
    if ids == "classes":
        if classes is None:
            return _ids(f"of {space.name}'s own numbers", (), {index: index for index in range(space.num_classes)})
        return classes.id_map if classes.space == space else classes.id_map.then(translation(classes.space, space))
    if ids not in ENCODINGS:
        raise UsageError(f"ids is {ids!r}; allowed: {', '.join((*ENCODINGS, 'classes'))}. Set --data.source.ids.")
    chosen = ENCODINGS[ids]
    return chosen if space == CITYSCAPES_19 else chosen.then(translation(CITYSCAPES_19, space))
