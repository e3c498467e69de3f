"""Colours of single things, drawn from a domain's palette."""

from functools import cache

import numpy as np

from lsr_train.data.toytown.domains import Palette
from lsr_train.data.toytown.geometry import Floats

__all__ = ["PaintBox"]


@cache
def _bgr(text: str) -> tuple[int, int, int]:
    """Return blue, green, red of `#rrggbb`."""
    return int(text[5:7], 16), int(text[3:5], 16), int(text[1:3], 16)


class PaintBox:
    """Picks colours; every colour is blue, green, red in 0..255, float32."""

    def __init__(self, palette: Palette, rng: np.random.Generator) -> None:
        self._palette, self._rng = palette, rng

    def near(self, color: Floats) -> Floats:
        """Return a colour moved as the palette lets things differ."""
        palette, rng = self._palette, self._rng
        moved = color * (1 + rng.uniform(-palette.brightness, palette.brightness))
        moved = moved + rng.uniform(-palette.spread, palette.spread, 3)
        return np.clip(moved, 0, 255).astype(np.float32)

    def color(self, name: str) -> Floats:
        """Draw one of the palette's colours of that name."""
        choices = getattr(self._palette, name)
        return self.near(np.asarray(_bgr(choices[int(self._rng.integers(len(choices)))]), dtype=np.float32))

    def leaves(self) -> Floats:
        """Return trunk, dark, middle and light leaves [4,3]."""
        middle = self.color("leaves")
        return np.stack((self.color("trunks"), middle * 0.72, middle, np.minimum(middle * 1.25 + 6, 255)))

    def vehicle(self, paints: str) -> Floats:
        """Return the nine slots of a vehicle [9,3]."""
        paint = self.color(paints)
        fixed = [(28, 28, 30), (150, 150, 150), (30, 30, 190), (225, 235, 235), (215, 215, 215)]
        tyre, trim, rear, head, plate = (self.near(np.asarray(value, dtype=np.float32)) for value in fixed)
        second = self.color("loads") if paints == "paints" else np.minimum(paint * 0.45 + 15, 255)
        return np.stack((paint, self.color("glass") * 0.75, tyre, trim, rear, head, plate, second, tyre * 0.8))

    def person(self) -> Floats:
        """Return the ten slots of somebody and what they ride [10,3]."""
        top = self.color("clothes")
        grey = self.near(np.asarray((140, 138, 136), dtype=np.float32))
        tyre = self.near(np.asarray((32, 32, 34), dtype=np.float32))
        lamp = self.near(np.asarray((60, 60, 200), dtype=np.float32))
        names = ("skins", "hairs")
        skin, hair = (self.color(name) for name in names)
        trousers, bag, frame = self.color("trousers"), self.color("clothes") * 0.8, self.color("frames")
        return np.stack((skin, hair, top, trousers, tyre, bag, frame, tyre, grey, lamp))

    def sign(self, pole: Floats, kind: str) -> Floats:
        """Return pole, rim, face and mark of a sign [4,3]."""
        rim, white = self.color("sign_rims"), self.near(np.asarray((238, 240, 240), dtype=np.float32))
        dark = self.near(np.asarray((35, 32, 32), dtype=np.float32))
        return np.stack((pole, rim, white, rim if kind == "board" else dark))

    def traffic_light(self, pole: Floats, box: Floats, state: int) -> Floats:
        """Return pole, box, rim, dark and lit lens of a traffic light [5,3]."""
        lit = ((40, 40, 255), (40, 190, 255), (110, 240, 70))[state]
        dark = box * 0.6
        return np.stack((pole, box, np.minimum(box + 70, 255), dark, np.asarray(lit, dtype=np.float32)))
