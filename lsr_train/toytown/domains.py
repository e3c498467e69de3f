"""Defines Toytown's two domains: the colours, sensor and frequencies in which they differ.

Both share the grammar of `street`. `GAME` is flat, clean and saturated under one sun. `CAMERA` has muted colours,
textures, haze, a colour cast, an exposure, blur and noise, stands higher and meets other things more often. They are
frozen: a change here changes every figure that was measured on Toytown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lsr_train.toytown.geometry import Floats

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Sensor:
    """What a lens and a sensor do to a frame; ranges are drawn from once a scene. The defaults do nothing."""

    texture: Range = (0.0, 0.0)  # strength of the surfaces' textures, 0..1
    haze: Range  # extinction, 1/m
    cast: float = 0.0  # each channel's gain is 1 ± this
    exposure: Range = (1.0, 1.0)  # gain of the whole frame
    contrast: Range = (1.0, 1.0)  # factor about mid grey
    saturation: Range = (1.0, 1.0)  # factor of the distance from grey
    lift: Range = (0.0, 0.0)  # levels added to black (flare)
    vignette: Range = (0.0, 0.0)  # loss of light in the corners, 0..1
    blur: Range = (0.0, 0.0)  # standard deviation in pixels at a width of 256; it grows with the width
    noise: Range = (0.0, 0.0)  # standard deviation in levels
    cloud_softness: float = 0.0  # 0 paints clouds with hard edges, 1 as mist


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One of the two domains."""

    name: str  # "game" or "camera"
    index: int  # enters the seed, so that no scene of one domain is a scene of the other
    colors: Mapping[str, str]  # by name, what a thing picks from, as hexadecimal numbers `rrggbb` with spaces between
    spread: float  # each thing's colour moves by up to so many levels a channel
    brightness: float  # each thing's colour is multiplied by 1 ± this
    sensor: Sensor  # from the scene to the frame
    height: Range  # of the camera over the road, metres
    pitch: Range  # downward, radians
    focal: Range  # focal length as a share of the width
    overcast: float  # probability of a sky without sun
    ambient: Range  # light that reaches every face
    diffuse: Range  # light of the sun on top, when it shines
    shadow: Range  # what a sun shadow takes away, 0..1
    facades: Mapping[str, float]  # weights of what lines the street
    tree_row: float  # probability that a side of the street has a row of trees
    parking: float  # probability that a side has parked cars
    traffic: float  # vehicles per 100 m of a lane
    vehicles: Mapping[str, float]  # weights of kinds of moving vehicles
    walkers: float  # people per 100 m of a pavement
    riders: float  # riders per 100 m of a lane
    parked_bikes: float  # bicycles and motorcycles per 100 m of a pavement
    tram: float  # probability of a tram beside or on the street
    crossing: float  # probability that a block starts with a cross street
    signs: float  # signs per 100 m of a pavement


# fmt: off
# What things pick from, in either domain and in both, as hexadecimal numbers `rrggbb`.
_COLORS = {
    "asphalt": ("5a5a66 62626e 54545f", "807e7c 8a8884 76767a 908c88"),
    "marking": ("ffffff", "dcdad2 e4e0d4"),
    "kerb": ("d8d4cc", "b0aca2"),
    "sidewalk": ("c4b8a8 b9b3ad ccb79c", "a88a74 a0806e b08c7a 9e8468"),
    "grass": ("58b83a 66c040 4da834", "7c7a3c 8a8444 6e7238 948a48"),
    "houses": ("d96a4a e8c35a 5f8fc9 e9dcc0 c85a7a 7fb58a b98a5a d8d8e0 9a78b8",
        "b4a68e c0b29c a39a8a cfc4ac a8a49c bcae98 988f80 b8b4aa d6ccb8"),
    "trims": ("ffffff f4e6c8 5a3a2a e0e0e8", "d8d4cc b0a898 6a6058 e4e0d8"),
    "roofs": ("a83a2a 7a3a30 4a4a5a 8a5a3a", "5e4a42 6e5a50 4a4a4c 7a5a4c"),
    "glass": ("2a4a72 3a5a82 22385a 7ab0e0", "3c444a 4a5258 2e3438 8a949a"),
    "doors": ("7a2a1a 1a5a3a 2a3a7a 6a4a2a", "4a3a30 3a4440 3c3e48 5a4c3e"),
    "walls": ("a89a8a b8b0a4 9a7a62 c8b898", "7a4c40 86584a 6e4840 8a6250"),
    "fences": ("8a5a2a e8e8e8 3a6a3a a8a8b0", "4a5a54 3c4a46 5c6a60 34423c"),
    "poles": ("4a4e56 5a5e66 3e5a4a", "5c6062 74787a 484c4c"),
    "leaves": ("2f9a2f 3aa83a 46b02a 2a8a3a", "5a6428 6e6a28 7c6a2a 4e5c2c 86662c"),
    "trunks": ("7a4a22", "4e4236 5c5044"),
    "paints": ("e02a2a 2a5ae0 f0d020 f4f4f4 22222a 2ab05a f08020 9a2ac0 c0c4cc",
        "d4d4d2 b0b2b4 3a3c40 7a7e82 8a2e2a 2e4468 e4e4e0 5a5248 22242a"),
    "buses": ("f0b020 d82a2a 2a9ad8", "c8b070 a03a34 5a7a98"),
    "trains": ("e8e8f0 d82a3a 3aa04a", "5a8a70 4a7a62 cdd2c8"),
    "loads": ("f4f4f4 2a6ad0 e06a2a 3aa060", "dcdad4 40608c a8683c ccc8bc"),
    "clothes": ("e83a3a 3a6ae8 f0c83a 3ab06a b03ab0 f4f4f4 f08a3a 3ac0c8",
        "3a3c46 54484a 7a4a44 44546a 8a8478 2a2a2e 6a6a5a a8a49c"),
    "trousers": ("2a3a6a 3a3a42 6a5a42 22222a", "2c3240 34343a 5a5248 26262a"),
    "skins": ("f0c09a d89a6a 8a5a3a", "c89a80 a87858 704a38"),
    "hairs": ("3a2212 e0b04a 1a1a1a 9a4a1a", "2e241e a08458 1e1c1c 6a4430"),
    "frames": ("e02a2a 2a6ae0 22a04a f0d020 f0f0f0", "3a3a3e 7a2e2a 34486a 8a8a8a"),
    "sign_rims": ("d81a1a 1a4ad8", "a83030 30508e"),
    "light_boxes": ("1e2024", "26282a 30322e"),
    "light_rims": ("64666a", "6c6e70"),
    "light_off": ("121316", "17181a"),
    "sky_top": ("2a7ae0 3a86e8", "9fb4c6 aab6c0 b9c2c8 8fa9c2"),
    "sky_bottom": ("a8d4f8 b8dcfa", "e0dcd2 e4ded0 dcdad4"),
    "clouds": ("ffffff", "e6e8e8 c4c8cc f0f0ee"),
}
_SHARED = {
    "lamps": "f0f0eb", "tyres": "1e1c1c", "rims": "969696", "rear_lamps": "be1e1e", "head_lamps": "ebebe1",
    "plates": "d7d7d7", "sign_faces": "f0f0ee", "sign_marks": "202023", "red": "ff2828", "amber": "ffbe28",
    "green": "46f06e",
}

GAME: Final = Domain(
    name="game", index=0, sensor=Sensor(haze=(0.0008, 0.002)), spread=6, brightness=0.06,
    colors=_SHARED | {name: game for name, (game, _) in _COLORS.items()},
    height=(1.3, 1.6), pitch=(-0.01, 0.04), focal=(0.72, 0.82),
    overcast=0.0, ambient=(0.62, 0.68), diffuse=(0.42, 0.5), shadow=(0.42, 0.5),
    facades={"house": 5.0, "wall": 2.0, "fence": 2.2, "hedge": 0.8, "open": 1.5}, tree_row=0.45, signs=5,
    vehicles={"car": 6, "truck": 1.5, "bus": 1.3}, traffic=3.2, parking=0.4, tram=0.4, crossing=0.45,
    walkers=8, riders=3.2, parked_bikes=6,
)

CAMERA: Final = Domain(
    name="camera", index=1, spread=8, brightness=0.1,
    sensor=Sensor(
        texture=(0.6, 1.0), haze=(0.0015, 0.0045), cast=0.045, exposure=(0.85, 1.1), contrast=(0.94, 1.06),
        saturation=(0.9, 1.05), lift=(4, 14), vignette=(0.05, 0.25), blur=(0.25, 0.45), noise=(1.5, 4.0),
        cloud_softness=1.0,
    ),
    colors=_SHARED | {name: camera for name, (_, camera) in _COLORS.items()},
    height=(1.5, 2.0), pitch=(0.02, 0.08), focal=(0.76, 0.9),
    overcast=0.55, ambient=(0.6, 0.75), diffuse=(0.3, 0.42), shadow=(0.3, 0.42),
    facades={"house": 5.0, "wall": 2.2, "fence": 2.3, "hedge": 1.0, "open": 1.4}, tree_row=0.6, signs=5,
    vehicles={"car": 6.5, "truck": 1.9, "bus": 1.2}, traffic=2.8, parking=0.5, tram=0.5, crossing=0.45,
    walkers=9, riders=3.2, parked_bikes=7,
)
# fmt: on

DOMAINS: Final = {"game": GAME, "camera": CAMERA}
"""The two domains by name."""


@cache
def _choices(domain: str, names: tuple[str, ...]) -> tuple[Floats, NDArray[np.int64]]:
    """Return the choices [n,most,3] for each name as blue, green, red, and how many there are [n]."""
    texts = [DOMAINS[domain].colors[name].split() for name in names]
    counts = np.asarray([len(row) for row in texts])
    padded = [row + row[:1] * (counts.max() - len(row)) for row in texts]
    return np.asarray([[tuple(bytes.fromhex(text))[::-1] for text in row] for row in padded], np.float32), counts


class Palette:
    """Picks colours of single things from a domain's; every one is blue, green, red in 0..255, float32."""

    def __init__(self, domain: Domain, rng: np.random.Generator) -> None:
        self._domain, self._rng = domain, rng

    def pick(self, *names: str) -> Floats:
        """Return a colour for each name, [n,3]."""
        table, counts = _choices(self._domain.name, names)
        draws = self._rng.random((len(names), 5), dtype=np.float32)
        base = table[np.arange(len(names)), (draws[:, 0] * counts).astype(np.int64)]
        moves = draws[:, 1:] * 2 - 1
        moved = base * (1 + self._domain.brightness * moves[:, :1]) + self._domain.spread * moves[:, 1:]
        return np.asarray(np.minimum(np.maximum(moved, 0), 255), dtype=np.float32)
