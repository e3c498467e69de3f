"""What holds for a whole street: its lanes, pavements, weather, and what stands along it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lsr_train.toytown import furniture
from lsr_train.toytown.domains import Domain
from lsr_train.toytown.geometry import Floats, Light
from lsr_train.toytown.paint_box import PaintBox

__all__ = ["Plan", "Side", "choose", "draw_plan", "evenly"]

_COLORS = (
    "asphalt",
    "marking",
    "kerb",
    "sidewalk",
    "grass",
    "sky_top",
    "sky_bottom",
    "clouds",
    "poles",
    "light_boxes",
)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of the street; distances from the road's axis, metres, all positive.

    Args:
        kerb: where the road ends.
        path: where the pavement starts (behind a verge, or at the kerb).
        front: where the pavement ends and houses begin.
        parking: whether cars stand along the kerb.
        trees: whether there is a row of trees.
        tree_kind: of that row.
        lamps: whether this side has lamps.
    """

    kerb: float
    path: float
    front: float
    parking: bool
    trees: bool
    tree_kind: str
    lamps: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What holds for a whole street.

    Args:
        domain: the world it is in.
        seed: of the scene.
        light: sun and sky.
        overcast: no sun, soft shadows.
        shadow: share of light a shadow takes away.
        lanes: lanes each way.
        lane: width of a lane.
        left: the side at negative x.
        right: the side at positive x.
        tram: "none", "street" (on the road) or "left" / "right" (on its own bed beside it).
        speed: of the camera, m/s.
        start: z of the camera at the start.
        eye: x of the camera.
        colors: of ground and sky, by name of the palette's field.
    """

    domain: Domain
    seed: int
    light: Light
    overcast: bool
    shadow: float
    lanes: int
    lane: float
    left: Side
    right: Side
    tram: str
    speed: float
    start: float
    eye: float
    colors: Mapping[str, Floats]

    def side(self, sign: int) -> Side:
        """Return the side at negative (-1) or positive (+1) x."""
        return self.left if sign < 0 else self.right


def choose(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """Draw a name with a probability in proportion to its weight."""
    left = rng.random() * sum(weights.values())
    for name, weight in weights.items():
        left -= weight
        if left < 0:
            return name
    return name


def evenly(rng: np.random.Generator, start: float, end: float, per_hundred: float) -> Sequence[float]:
    """Draw places along [start, end], `per_hundred` in 100 m on average, spread over the stretch."""
    count = int(rng.poisson(max(end - start, 0) * per_hundred / 100))
    if count == 0:
        return []
    gap = (end - start) / count
    places: list[float] = (start + gap * (np.arange(count) + rng.uniform(0.1, 0.9, count))).tolist()
    return places


def draw_plan(domain: Domain, seed: int) -> Plan:
    """Draw a street."""
    rng = np.random.default_rng([domain.index, seed])
    box = PaintBox(domain.palette, rng)
    lane = rng.uniform(3.0, 3.5)
    lanes = 1 if rng.random() < 0.65 else 2
    lamp_side = int(rng.integers(3))
    sides = [_draw_side(domain, rng, lanes * lane, lamps=lamp_side in (index, 2)) for index in range(2)]
    overcast = bool(rng.random() < domain.overcast)
    light = _draw_light(domain, rng, overcast=overcast)
    tram = choose(rng, {"street": 1, "left": 1, "right": 1}) if rng.random() < domain.tram else "none"
    return Plan(
        domain=domain,
        seed=seed,
        light=light,
        overcast=overcast,
        shadow=rng.uniform(*domain.shadow) * (0.8 if overcast else 1.0),
        lanes=lanes,
        lane=lane,
        left=sides[0],
        right=sides[1],
        tram=tram,
        speed=rng.uniform(7, 11),
        start=rng.uniform(2, 30),
        eye=(int(rng.integers(lanes)) + 0.5) * lane + rng.uniform(-0.3, 0.3),
        colors=dict(zip(_COLORS, box.colors(*_COLORS), strict=True)),
    )


def _draw_side(domain: Domain, rng: np.random.Generator, road: float, *, lamps: bool) -> Side:
    """Draw one side of a street whose lanes end at `road`."""
    parking = bool(rng.random() < domain.parking)
    verge = rng.uniform(1.2, 2.6) if rng.random() < 0.45 else 0.0
    kerb = road + (2.3 if parking else rng.uniform(0.2, 0.8))
    return Side(
        kerb=kerb,
        path=kerb + verge,
        front=kerb + verge + rng.uniform(2.6, 5.2),
        parking=parking,
        trees=bool(rng.random() < domain.tree_row),
        tree_kind=choose(rng, dict(zip(furniture.TREE_KINDS, (0.6, 0.25, 0.15), strict=True))),
        lamps=lamps,
    )


def _draw_light(domain: Domain, rng: np.random.Generator, *, overcast: bool) -> Light:
    """Draw where the sun stands and how bright it is; an overcast sky shines from above."""
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.1)
    ambient, diffuse = rng.uniform(*domain.ambient), rng.uniform(*domain.diffuse)
    if overcast:
        return Light(direction=(0.0, 1.0, 0.0), ambient=ambient + 0.6 * diffuse, diffuse=0.35 * diffuse)
    level = float(np.cos(elevation))
    direction = (level * float(np.sin(azimuth)), float(np.sin(elevation)), level * float(np.cos(azimuth)))
    return Light(direction=direction, ambient=ambient, diffuse=diffuse)
