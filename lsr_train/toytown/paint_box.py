"""Colours of single things, drawn from a domain's palette."""

from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lsr_train.toytown.domains import Palette
from lsr_train.toytown.geometry import Floats

__all__ = ["PaintBox"]

_LAMPS = ((28, 28, 30), (150, 150, 150), (30, 30, 190), (225, 235, 235), (215, 215, 215))
_CYCLES = ((140, 138, 136), (32, 32, 34), (60, 60, 200))
_SIGNS = ((238, 240, 240), (35, 32, 32))
_LENSES = ((40, 40, 255), (40, 190, 255), (110, 240, 70))


@cache
def _table(palette: Palette, names: tuple[str, ...]) -> tuple[Floats, NDArray[np.int64]]:
    """Return the choices [n,most,3] for each name, as blue, green, red, and how many there are [n]."""
    choices = [getattr(palette, name) for name in names]
    table = np.zeros((len(names), max(len(texts) for texts in choices), 3), dtype=np.float32)
    for row, texts in zip(table, choices, strict=True):
        row[: len(texts)] = [[int(text[at : at + 2], 16) for at in (5, 3, 1)] for text in texts]
    return table, np.asarray([len(texts) for texts in choices])


class PaintBox:
    """Picks colours; every colour is blue, green, red in 0..255, float32."""

    def __init__(self, palette: Palette, rng: np.random.Generator) -> None:
        self._palette, self._rng = palette, rng

    def near(self, colors: ArrayLike) -> Floats:
        """Return colours [n,3] moved as the palette lets things differ."""
        base = np.asarray(colors, dtype=np.float32)
        draws = self._rng.random((len(base), 4), dtype=np.float32) * 2 - 1
        moved = base * (1 + self._palette.brightness * draws[:, :1]) + self._palette.spread * draws[:, 1:]
        bounded: Floats = np.minimum(np.maximum(moved, 0), 255).astype(np.float32)
        return bounded

    def colors(self, *names: str) -> Floats:
        """Draw one of the palette's colours for each name, [n,3]."""
        table, counts = _table(self._palette, names)
        chosen = (self._rng.random(len(names)) * counts).astype(np.int64)
        return self.near(table[np.arange(len(names)), chosen])

    def color(self, name: str) -> Floats:
        """Draw one of the palette's colours of that name, [3]."""
        first: Floats = self.colors(name)[0]
        return first

    def leaves(self) -> Floats:
        """Return trunk, dark, middle and light leaves [4,3]."""
        trunk, middle = self.colors("trunks", "leaves")
        return np.stack((trunk, middle * 0.72, middle, np.minimum(middle * 1.25 + 6, 255)))

    def vehicle(self, paints: str) -> Floats:
        """Return the nine slots of a vehicle [9,3]."""
        paint, glass, second = self.colors(paints, "glass", "loads")
        tyre, trim, rear, head, plate = self.near(_LAMPS)
        if paints != "paints":
            second = np.minimum(paint * 0.45 + 15, 255)
        return np.stack((paint, glass * 0.75, tyre, trim, rear, head, plate, second, tyre * 0.8))

    def person(self) -> Floats:
        """Return the ten slots of somebody and what they ride [10,3]."""
        skin, hair, top, trousers, bag, frame = self.colors(
            "skins", "hairs", "clothes", "trousers", "clothes", "frames"
        )
        grey, tyre, lamp = self.near(_CYCLES)
        return np.stack((skin, hair, top, trousers, tyre, bag * 0.8, frame, tyre, grey, lamp))

    def sign(self, pole: Floats, kind: str) -> Floats:
        """Return pole, rim, face and mark of a sign [4,3]."""
        rim = self.color("sign_rims")
        white, dark = self.near(_SIGNS)
        return np.stack((pole, rim, white, rim if kind == "board" else dark))

    def traffic_light(self, pole: Floats, box: Floats, state: int) -> Floats:
        """Return pole, box, rim, dark and lit lens of a traffic light [5,3]; state 0 is red, 1 amber, 2 green."""
        return np.stack((pole, box, np.minimum(box + 70, 255), box * 0.6, np.asarray(_LENSES[state], dtype=np.float32)))
