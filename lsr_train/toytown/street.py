"""Lays out a street block by block in either domain: ground, facades, furniture, people and traffic.

A street is endless. What holds for all of it is drawn once from the scene's seed, each block of `BLOCK` metres from the
seed and its number, so that a block looks the same whenever a camera comes by.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from lsr_train.toytown import objects
from lsr_train.toytown.domains import Domain, Palette
from lsr_train.toytown.geometry import Floats, Light, Mesh, MeshBuilder, Placed, Polygons, place, shadows
from lsr_train.toytown.objects import code

BLOCK = 48.0
BACKDROP, FACADES = 2000.0, 1000.0  # they are painted as if they stood so many metres behind, see `Placed`
_PAVEMENT = 0.13  # metres from the road up to the pavement
_STRIP = 6.0  # metres of ground a polygon, so that a bending street looks bent
_DEPTH = 10.0  # of a house
_GROUND = ("asphalt", "marking", "kerb", "sidewalk", "grass", "asphalt", "kerb", "sidewalk", "asphalt", "sidewalk")
_SHADES = (1, 1, 1, 1, 1, 0.88, 0.8, 0.84, 0.7, 0.75)
ASPHALT, MARKING, KERB, SIDEWALK, GRASS, PATCH, KERB_FACE, JOINT, STEEL, BED = range(10)

_CARS = {"hatchback": 0.32, "sedan": 0.28, "suv": 0.24, "van": 0.16}
_TRUCKS = {"box": 0.7, "tipper": 0.3}

Span = tuple[float, float]


def choose(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """Draw a name with a probability in proportion to its weight."""
    shares = np.cumsum(list(weights.values()))
    return list(weights)[int(np.searchsorted(shares, rng.random() * shares[-1], side="right"))]


def spread_out(rng: np.random.Generator, span: Span, per_hundred: float, *, gap: float = 0.0) -> list[float]:
    """Draw places along a span, `per_hundred` in 100 m on average, rising and more than `gap` apart."""
    count = int(rng.poisson(max(span[1] - span[0], 0) * per_hundred / 100))
    places = span[0] + (np.arange(count) + rng.uniform(0.1, 0.9, count)) * (span[1] - span[0]) / max(count, 1)
    kept: list[float] = places[np.diff(places, prepend=-np.inf) > gap].tolist()
    return kept


def _spans(starts: ArrayLike, length: float) -> Floats:
    return np.asarray(starts, dtype=np.float32)[:, None] + np.asarray((0, length), dtype=np.float32)


@dataclass(frozen=True, kw_only=True)
class Side:
    """One side of the street; distances from the road's axis, metres, all positive."""

    kerb: float  # where the road ends
    path: float  # where the pavement starts (behind a verge, or at the kerb)
    front: float  # where the pavement ends and houses begin
    parking: bool  # cars stand along the kerb
    tree: str  # kind of the trees in a row, or ""
    lamps: bool


class Street:
    """What holds for a whole street: its lanes, sides, weather and colours, and how the camera drives."""

    def __init__(self, domain: Domain, seed: int) -> None:
        rng = np.random.default_rng([domain.index, seed])
        self.domain, self.seed = domain, seed
        self.lane, self.lanes = rng.uniform(3.0, 3.5), 1 if rng.random() < 0.65 else 2  # width; number each way
        self.edge = self.lane * self.lanes
        lamps = int(rng.integers(3))  # left, right, both
        self.sides = {sign: self._side(rng, lamps=lamps in (index, 2)) for index, sign in enumerate((-1, 1))}
        self.overcast = bool(rng.random() < domain.overcast)
        self.light = self._light(rng)
        self.shadow = rng.uniform(*domain.shadow) * (0.8 if self.overcast else 1.0)  # share of light it takes away
        # A tram runs beside the road (-1, 1) or on it (0).
        self.tram = int(rng.integers(-1, 2)) if rng.random() < domain.tram else None
        self.speed, self.start = rng.uniform(7, 11), rng.uniform(2, 30)  # of the camera: m/s and z
        self.eye = (int(rng.integers(self.lanes)) + 0.5) * self.lane + rng.uniform(-0.3, 0.3)  # its x
        names = (*_GROUND[:5], "sky_top", "sky_bottom", "clouds", "poles", "light_boxes")
        self.colors = dict(zip(names, Palette(domain, rng).pick(*names), strict=True))
        self.ground = np.stack([self.colors[name] * shade for name, shade in zip(_GROUND, _SHADES, strict=True)])

    def _side(self, rng: np.random.Generator, *, lamps: bool) -> Side:
        parking = bool(rng.random() < self.domain.parking)
        verge = rng.uniform(1.2, 2.6) if rng.random() < 0.45 else 0.0
        kerb = self.edge + (2.3 if parking else rng.uniform(0.2, 0.8))
        kind = choose(rng, {"round": 0.6, "tall": 0.25, "conifer": 0.15})
        path, front = kerb + verge, kerb + verge + rng.uniform(2.6, 5.2)
        tree = kind if rng.random() < self.domain.tree_row else ""
        return Side(kerb=kerb, path=path, front=front, parking=parking, tree=tree, lamps=lamps)

    def _light(self, rng: np.random.Generator) -> Light:
        """Draw where the sun stands and how bright it is; an overcast sky shines from above."""
        azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.1)
        ambient, diffuse = rng.uniform(*self.domain.ambient), rng.uniform(*self.domain.diffuse)
        if self.overcast:
            return Light(direction=(0.0, 1.0, 0.0), ambient=ambient + 0.6 * diffuse, diffuse=0.35 * diffuse)
        level = np.cos(elevation)
        direction = (level * np.sin(azimuth), np.sin(elevation), level * np.cos(azimuth))
        return Light(direction=direction, ambient=ambient, diffuse=diffuse)


# Facades: meshes whose face to the road looks to -x, centred along z.
WALL, TRIM, GLASS, ROOF, DOOR, PLINTH, BOARD, AWNING, *PANES = range(11)
_HOUSE = ("houses", "trims", "glass", "roofs", "doors", "walls", "clothes", "clothes", "glass", "glass", "glass")


def _house(length: float, palette: Palette, rng: np.random.Generator) -> tuple[Mesh, Floats, float]:
    """Return a house, its colours and its height."""
    builder, plain = MeshBuilder(), code("building")
    surface = code("building", "brick" if rng.random() < 0.35 else "plaster")
    floors, storey, ground = int(rng.integers(2, 7)), rng.uniform(2.9, 3.5), rng.uniform(3.2, 4.2)
    height, near, far, front = ground + storey * (floors - 1) + 0.4, -length / 2, length / 2, -_DEPTH / 2
    if rng.random() < 0.55:
        top, peak = height - 0.15, height + 2.6
        builder.add([(front, height, near), (-front, height, near), (0, peak, near)], WALL, surface, (0, 0, -1))
        slope = [(front - 0.4, top, near), (front - 0.4, top, far), (0, peak, far), (0, peak, near)]
        builder.add(slope, ROOF, plain, (-0.46, 0.89, 0))
    builder.panels(2, near, (front, -front), (0, height), WALL, surface, -1)
    for x in (front + 2.2, front + 6.2):
        rows = ground + storey * (np.arange(floors - 1) + 0.25)
        builder.panels(2, near, (x, x + 1.1), _spans(rows, storey * 0.47), GLASS, plain, -1)

    def face(y: ArrayLike, z: ArrayLike, slots: ArrayLike, material: int = plain) -> None:
        builder.panels(0, front, y, z, slots, material, -1)

    face((0, height), (near, far), WALL, surface)
    face((height - 0.35, height), (near, far), TRIM)
    middle = rng.uniform(near + 1.5, far - 1.5)
    shop = rng.random() < 0.45
    if shop:
        face((ground - 0.75, ground - 0.1), (near + 0.5, far - 0.5), BOARD)
        face((0.5, ground - 0.85), _spans(np.arange(near + 0.7, far - 3, 3.1), 2.6), GLASS)
        face((0, 2.3), (middle - 0.5, middle + 0.5), DOOR)
        if rng.random() < 0.5:
            for index, z in enumerate(np.arange(near + 0.5, far - 1.5, 1.2)):
                x, high, low = front - 1.2, ground - 0.8, ground - 1.25
                stripe = [(front, high, z), (front, high, z + 1.2), (x, low, z + 1.2), (x, low, z)]
                builder.add(stripe, BOARD if index % 2 else AWNING, plain, (-0.4, 0.9, 0))
    else:
        face((0, 0.6), (near, far), PLINTH)
        face((0, 2.5), (middle - 0.65, middle + 0.65), TRIM)
        face((0, 2.35), (middle - 0.5, middle + 0.5), DOOR)
    columns = max(1, int(length / rng.uniform(2.2, 3.2)))
    office = rng.random() < 0.2
    wide, tall = length / columns * (0.86 if office else rng.uniform(0.36, 0.52)), storey * rng.uniform(0.42, 0.56)
    rows = np.concatenate(([] if shop else [1.0], ground + storey * (np.arange(floors - 1) + 0.22)))
    z, y = (grid.ravel() for grid in np.meshgrid(near + length / columns * (np.arange(columns) + 0.5), rows))
    if rng.random() < 0.7:
        face(_spans(y - 0.12, tall + 0.24), _spans(z - wide / 2 - 0.12, wide + 0.24), TRIM)
    face(_spans(y, tall), _spans(z - wide / 2, wide), rng.choice((GLASS, GLASS, *PANES), len(z)))
    colors = palette.pick(*_HOUSE)
    colors[AWNING] = colors[BOARD] * 0.4 + 150
    colors[PANES] = np.outer((0.8, 1.25, 1.6), colors[GLASS])
    return builder.build(), np.minimum(colors, 255), height


def _barrier(kind: str, length: float, palette: Palette, rng: np.random.Generator) -> tuple[Mesh, Floats, float]:
    """Return a wall with a coping and pillars, or a fence of planks or bars; as in Cityscapes it has no gaps."""
    wall, builder, z = kind == "wall", MeshBuilder(), (-length / 2, length / 2)
    surface = code("wall", str(rng.choice(("brick", "plaster")))) if wall else code("fence")
    height = rng.uniform(1.7, 3.2) if wall else rng.uniform(1.2, 2.1)
    step, wide, shade = (4, 0.45, 1.0) if wall else (0.5, 0.38, 0.8) if rng.random() < 0.5 else (0.4, 0.12, 0.5)
    builder.panels(2, z[0], (0, 0.3), (0, height), 0, surface, -1)
    builder.panels(0, 0, (0, height), z, 0, surface, -1)
    builder.panels(0, 0, (0, height + 0.1), _spans(np.arange(z[0], z[1] - wide, step), wide), 1, surface, -1)
    builder.panels(0, 0, _spans((height - 0.2,) if wall else (0.25, height - 0.3), 0.15), z, 2, code(kind), -1)
    shades = (shade, 0.88, 1.15) if wall else (shade, 1.0, 0.9)
    return builder.build(), np.minimum(np.outer(shades, palette.pick(f"{kind}s")), 255), height


def _leaves(palette: Palette) -> Floats:
    """Return the colours of a plant: trunk, dark, middle and light leaves."""
    trunk, middle = palette.pick("trunks", "leaves")
    return np.minimum((trunk, middle * 0.72, middle, middle * 1.25 + 6), 255)


@dataclass(frozen=True)
class Block:
    """A stretch of street: its ground, what stands on it, their shadows' outlines, and what may move."""

    ground: Polygons
    standing: Polygons
    shadows: Floats
    agents: list[Placed]


class _Builder:
    """Collects a block, or a convoy; most methods add one kind of thing."""

    def __init__(self, street: Street, rng: np.random.Generator, start: float = 0.0) -> None:
        self.street, self.rng, self.palette = street, rng, Palette(street.domain, rng)
        self.ground = MeshBuilder()
        self.things: list[Placed] = []
        self.agents: list[Placed] = []
        self.start, self.end = start, start + BLOCK
        self.cross = rng.uniform(8, 12) if rng.random() < street.domain.crossing else 0.0
        self.first = start + self.cross  # where the cross street ends

    def build(self) -> Block:
        self._pave()
        self._mark()
        for sign, side in self.street.sides.items():
            self._line(sign)
            self._furnish(sign, side)
            self._plant(sign, side)
        if self.cross:
            self._crossing()
        self._traffic()
        if self.street.tram is not None:
            self._tram(self.street.tram)
        light, ground = self.street.light, Placed(self.ground.build(), self.street.ground, (0, 0, 0))
        outlines = shadows(self.things, light, overcast=self.street.overcast)
        return Block(place([ground], light), place(self.things, light), outlines, self.agents)

    def _sign(self) -> int:
        return 1 if self.rng.random() < 0.5 else -1

    def _put(self, mesh: Mesh, colors: Floats, x: float, z: float, y: float = _PAVEMENT, **more: Any) -> None:
        self.things.append(Placed(mesh, colors, (x, y, z), **more))

    def _strips(self, x: Span, z: Span, y: float, slot: int, surface: int) -> None:
        edges = np.linspace(*z, max(1, round((z[1] - z[0]) / _STRIP)) + 1)
        self.ground.panels(1, y, sorted(x), np.stack((edges[:-1], edges[1:]), axis=1), slot, surface)

    def _pave(self) -> None:
        road, walk, grass = code("road", "asphalt"), code("sidewalk", "paving"), code("terrain", "grass")
        along, sides = (self.start, self.end), self.street.sides
        self._strips((-90, 90), along, 0, GRASS, grass)
        self._strips((-sides[-1].kerb, sides[1].kerb), along, 0, ASPHALT, road)
        for sign, side in sides.items():
            path, back, kerb = sign * side.path, sign * (side.front + 0.6), sign * side.kerb
            self._strips((kerb, path), along, _PAVEMENT, GRASS, grass)
            self._strips((path, back), along, _PAVEMENT, SIDEWALK, walk)
            self.ground.panels(1, _PAVEMENT, sorted((path, back)), _spans(np.arange(*along, 2), 0.09), JOINT, walk)
        if self.cross:
            self._strips((-90, 90), (self.start, self.first), 0, ASPHALT, road)
        for sign, side in sides.items():
            kerb, edges = sign * side.kerb, np.linspace(self.first, self.end, 9)
            stones = _spans(edges[:-1], edges[1] - edges[0])
            self.ground.panels(1, _PAVEMENT, sorted((kerb, kerb + sign * 0.22)), stones, KERB, code("sidewalk"))
            self.ground.panels(0, kerb, (0, _PAVEMENT), stones, KERB_FACE, code("sidewalk"), -sign)

    def _paint(self, x: ArrayLike, z: ArrayLike) -> None:
        self.ground.panels(1, 0, x, z, MARKING, code("road"))

    def _mark(self) -> None:
        street, rng = self.street, self.rng
        for line in range(-street.lanes + 1, street.lanes):
            x, step = line * street.lane, 3 if line == 0 and street.lanes == 2 else 6
            self._paint((x - 0.08, x + 0.08), _spans(np.arange(self.first + 1, self.end - 3, step), 3))
        for sign, side in street.sides.items():
            edge = sign * street.edge
            if side.parking:
                self._paint(sorted((edge, edge + sign * 2.2)), _spans(np.arange(self.first + 2, self.end, 6), 0.14))
            self._strips((edge - 0.06, edge + 0.06), (self.first, self.end), 0, MARKING, code("road"))
        for _ in range(rng.poisson(2)):
            x, z = rng.uniform(-street.edge + 0.5, street.edge - 1), rng.uniform(self.first, self.end - 3)
            size = rng.uniform((0.6, 0.8), (1.6, 4))
            self.ground.panels(1, 0, (x, x + size[0]), (z, z + size[1]), PATCH, code("road", "asphalt"))

    def _line(self, sign: int) -> None:
        rng, street = self.rng, self.street
        z = self.first + (rng.uniform(0.5, 2) if self.cross else 0.0)
        offset = street.sides[sign].front + (6 if street.tram == sign else 0)
        while z < self.end - 3:
            length = min(rng.uniform(9, 19), self.end - z)
            length = length if self.end - (z + length) >= 5 else self.end - z
            kind, middle = choose(rng, street.domain.facades), z + length / 2
            if kind != "house":
                self._behind(sign, offset, middle, length)
            if kind in ("house", "wall", "fence"):
                self._facade(kind, sign, offset, middle, length)
            else:
                gap, x, low, high = (1.3, 0.6, 1.3, 2.0) if kind == "hedge" else (rng.uniform(3, 6), 1.8, 0.6, 1.3)
                for spot in np.arange(z + length - 1, z, -gap):
                    x_bush = sign * (offset + x * rng.uniform(0.5, 1.5))
                    self._grow("bush", x_bush, spot, low, high, behind=FACADES + middle - spot)
            z += length

    def _facade(self, kind: str, sign: int, offset: float, z: float, length: float, behind: float = 0.0) -> None:
        make = _house if kind == "house" else partial(_barrier, kind)
        mesh, colors, height = make(length, self.palette, self.rng)
        half = _DEPTH / 2 if kind == "house" else 0.0
        x, shadow = sign * (offset + half), (half, length / 2, 0, height)
        self._put(mesh, colors, x, z, scale=(sign, 1, 1), behind=FACADES + behind, shadow=shadow)

    def _behind(self, sign: int, offset: float, z: float, length: float) -> None:
        """Add a house set back, or trees, behind a fence or wall."""
        rng, choice = self.rng, self.rng.random()
        if choice < 0.4:
            self._facade("house", sign, offset + rng.uniform(6, 14), z, length, behind=0.02)
        if choice > 0.25:
            for spot in reversed(spread_out(rng, (z - length / 2, z + length / 2), 18)):
                x, kind = sign * (offset + rng.uniform(2.5, 6)), str(rng.choice(("round", "tall", "conifer")))
                self._grow(kind, x, spot, 0.75, 1.25, behind=FACADES + z + 0.01 - spot)

    def _grow(self, kind: str, x: float, z: float, low: float, high: float, **more: Any) -> None:
        size = self.rng.uniform(low, high)
        mesh = objects.plant(kind, int(self.rng.integers(objects.VARIANTS)))
        crown = (0.0,) * 4 if kind == "bush" else (1.7 * size, 1.7 * size, 3.0 * size, 6.2 * size)
        self._put(mesh, _leaves(self.palette), x, z, scale=(size * self._sign(), size, 1), shadow=crown, **more)

    def _plant(self, sign: int, side: Side) -> None:
        rng, verge = self.rng, side.path > side.kerb
        if side.tree:
            x = (side.kerb + side.path) / 2 if verge else side.kerb + 0.9
            for z in np.arange(self.first + rng.uniform(3, 7), self.end, rng.uniform(8, 13)):
                self._grow(side.tree, sign * x, z, 0.75, 1.25)
        if verge or rng.random() < 0.2:
            x = (side.kerb + side.path) / 2 if verge else side.front - 0.2
            for z in spread_out(rng, (self.first + 1, self.end), 12):
                self._grow("bush", sign * x, z, 0.6, 1)

    def _stand(self, mesh: Mesh, x: float, z: float, mirror: float = 1.0) -> None:
        """Put a piece of furniture on the pavement; a street's poles and boxes share their colours."""
        colors = self.palette.pick(*objects.FURNITURE_COLORS)
        colors[objects.POLE], colors[objects.BOX] = self.street.colors["poles"], self.street.colors["light_boxes"]
        self._put(mesh, colors, x, z, scale=(mirror, 1, 1), shadow=(0.07, 0.07, 0.0, 2.9))

    def _furnish(self, sign: int, side: Side) -> None:
        rng, domain = self.rng, self.street.domain
        span, edge = (self.first + 1, self.end), sign * (side.kerb + 0.5)
        for z in np.arange(self.start + 18, self.end, 24) if side.lamps else ():
            self._stand(objects.shape("lamp"), edge, z, -sign)
        for z in spread_out(rng, span, domain.signs):
            self._stand(objects.shape(choose(rng, objects.SIGNS)), edge + sign * rng.uniform(0, 0.5), z)
        for z in np.arange(*span, 3) if rng.random() < 0.25 else ():
            self._stand(objects.shape("bollard"), edge, z)
        for z in spread_out(rng, span, domain.parked_bikes):
            x, size = rng.uniform(side.kerb + 0.6, max(side.kerb + 0.9, side.front - 1)), rng.uniform(1, 1.12)
            mesh = objects.shape(f"{self._ride()} {'side' if rng.random() < 0.65 else 'end'}")
            scale, colors = (size * self._sign(), size, size), self.palette.pick(*objects.PERSON_COLORS)
            self._put(mesh, colors, sign * x, z, scale=scale, shadow=(0.5, 0.3, 0, 0.8))
        for z in spread_out(rng, span, domain.walkers):
            x = sign * rng.uniform(side.path + 0.5, side.front - 0.3)
            for step in range(1 + (rng.random() < 0.25)):  # some in pairs
                self._person(x + 0.6 * step, z + 0.1 * step, _PAVEMENT)

    def _crossing(self) -> None:
        """Add a cross street's markings, traffic lights, and who crosses."""
        street, rng, state = self.street, self.rng, int(self.rng.integers(3))
        left, right, middle = -street.sides[-1].kerb, street.sides[1].kerb, self.start + self.cross / 2
        for near in (self.start - 3.6, self.first + 0.8):
            self._paint(_spans(np.arange(left + 0.3, right - 0.4, 0.95), 0.5), (near, near + 2.8))
        self._paint((0.1, street.edge), (self.start - 4.8, self.start - 4.4))
        dashes = [x for x in range(-80, 80, 6) if not left - 3 < x < right + 3]
        self._paint(_spans(dashes, 3), (middle - 0.08, middle + 0.08))
        for sign, side in street.sides.items():
            arm = bool(rng.random() < 0.5)
            for z, far in ((self.start - 1, False), (self.first + 0.6, True)):
                self._stand(objects.traffic_light(state, arm=arm and far), sign * (side.kerb + 0.45), z, -sign)
        for _ in range(rng.poisson(1.4)):
            self._person(rng.uniform(left, right), self.start - 2.2 + rng.uniform(-0.8, 0.8), view="side")
        for _ in range(rng.poisson(0.9)):
            sign, x = self._sign(), rng.uniform(-22, 22)
            if rng.random() < 0.3:
                self._person(x, middle - sign * 2, ride=self._ride(), view="side", direction=sign)
            else:
                self.vehicle(x, middle - sign * 2, (sign * 4.0, 0), sign * np.pi / 2)

    def _ride(self) -> str:
        return "bicycle" if self.rng.random() < 0.55 else "motorcycle"

    def _person(
        self, x: float, z: float, y: float = 0.0, *, ride: str = "", view: str = "", direction: int = 0
    ) -> None:
        """Add somebody on foot, some of them children, or a rider; `direction` is the sign of a movement across."""
        rng, direction = self.rng, direction or self._sign()
        view = view or choose(rng, {"front": 0.36, "back": 0.36, "side": 0.16, "stand": 0.12})
        pace = {"": rng.uniform(1.1, 1.6), "bicycle": 4.5, "motorcycle": 6.5}[ride]
        size = rng.uniform(0.62, 0.75) if not ride and rng.random() < 0.12 else rng.uniform(0.94, 1.1)
        meshes, first = objects.person(ride, view), int(rng.integers(objects.PHASES))
        phases = meshes[first:] + meshes[:first]
        half, length = (0.28, 0.2) if not ride else (0.8, 0.3) if view == "side" else (0.3, 0.8)
        colors, scale = self.palette.pick(*objects.PERSON_COLORS), (size * direction, size, size)
        velocity = {"front": (0, -pace), "back": (0, pace), "side": (direction * pace, 0)}.get(view, (0, 0))
        placed = Placed(phases[0], colors, (x, y, z), scale=scale, shadow=(half, length, 0.0, 1.7))
        self.agents.append(replace(placed, velocity=velocity, phases=phases, rate=9 if ride else 7))

    def vehicle(self, x: float, z: float, velocity: tuple[float, float], yaw: float, kind: str = "") -> None:
        rng, kind = self.rng, kind or choose(self.rng, self.street.domain.vehicles)
        variant = choose(rng, _CARS if kind == "car" else _TRUCKS) if kind in ("car", "truck") else ""
        half, length, height = objects.SIZES[variant if kind == "car" else kind]
        colors = self.palette.pick({"bus": "buses", "train": "trains"}.get(kind, "paints"), *objects.VEHICLE_COLORS[1:])
        colors[objects.GLASS] *= 0.75
        if kind in ("bus", "train"):
            colors[objects.SECOND] = colors[objects.PAINT] * 0.45 + 15
        across, along = (half, length) if abs(np.cos(yaw)) > 0.5 else (length, half)
        mesh, shadow = objects.vehicle(kind, variant, coming=bool(np.cos(yaw) < -0.5)), (across, along, 0.0, height)
        behind = FACADES - along if abs(x) > self.street.sides[-1 if x < 0 else 1].front - 1 else -along
        yaw += rng.normal(0, 0.0 if kind == "train" else 0.015)
        placed = Placed(mesh, colors, (x, 0.0, z), yaw=yaw, velocity=velocity)
        self.agents.append(replace(placed, behind=behind, shadow=shadow))

    def _traffic(self) -> None:
        """Add what comes towards the camera, riders and parked cars; `convoy` has what drives ahead."""
        street, rng, span = self.street, self.rng, (self.first + 2, self.end)
        for lane in range(1 if street.tram == 0 else 0, street.lanes):
            for z in spread_out(rng, span, street.domain.traffic, gap=11):
                x = -(lane + 0.5) * street.lane + rng.uniform(-0.25, 0.25)
                self.vehicle(x, z, (0, -street.speed), np.pi)
        for sign, side in street.sides.items():
            view, yaw = ("front", np.pi) if sign < 0 else ("back", 0.0)
            for z in spread_out(rng, span, street.domain.riders):
                self._person(sign * (street.edge - rng.uniform(0.3, 0.8)), z, ride=self._ride(), view=view)
            for z in np.arange(self.first + 5, self.end - 2, 6) if side.parking else ():
                if rng.random() < 0.62:
                    kind = "car" if rng.random() < 0.94 else ""
                    self.vehicle(sign * (side.kerb - 1.1), z + rng.uniform(-0.3, 0.3), (0, 0), yaw, kind)

    def _tram(self, beside: int) -> None:
        street, rng = self.street, self.rng
        x = beside * (street.sides[beside].front + 3.4) if beside else -0.5 * street.lane
        surface = code("terrain", "grass") if beside else code("road")
        if beside:
            self._strips((x - 2.2, x + 2.2), (self.first, self.end), 0.02, BED, surface)
        for rail in (x - 0.72, x + 0.72):
            self._strips((rail - 0.06, rail + 0.06), (self.start, self.end), 0.03, STEEL, surface)
        if rng.random() < 0.62:
            z = rng.uniform(self.start + 8, self.end) + objects.SIZES["train"][1]
            self.vehicle(x, z, (0, 7.0 if rng.random() < 0.4 else -7.0), 0.0, "train")


def build_block(street: Street, index: int) -> Block:
    """Draw block number `index` of a street, from z = index * BLOCK on."""
    rng = np.random.default_rng([street.domain.index, street.seed, 1000 + index])
    return _Builder(street, rng, index * BLOCK).build()


def convoy(street: Street) -> list[Placed]:
    """Draw the vehicles that drive ahead of the camera at its own speed, for the whole of a clip."""
    builder = _Builder(street, np.random.default_rng([street.domain.index, street.seed, 6]))
    for lane in range(street.lanes):
        x = (lane + 0.5) * street.lane
        own = 4.0 if abs(x - street.eye) < 1.5 else 0.0
        for gap in spread_out(builder.rng, (4 + 1.5 * own, 130), street.domain.traffic, gap=11):
            builder.vehicle(x + builder.rng.uniform(-0.25, 0.25), street.start + gap + own, (0, street.speed), 0.0)
    return builder.agents


def backdrop(street: Street) -> Placed:
    """Return the skyline, which stands far ahead of the camera."""
    rng = np.random.default_rng([street.domain.index, street.seed, 7])
    palette, builder = Palette(street.domain, rng), MeshBuilder()
    x, leaves, houses = -260.0, _leaves(palette), palette.pick(*["houses"] * 6)
    while x < 260:
        wide = rng.uniform(7, 20)
        if rng.random() < 0.4:
            slot, surface = int(rng.integers(4, 10)), code("building", "plaster")
            builder.panels(2, 0, (x, x + wide), (-4, rng.uniform(8, 22)), slot, surface, -1)
        else:
            crown = objects.blob(rng, x + wide / 2, 1, wide * 0.8, rng.uniform(4, 11))
            builder.add(np.maximum(crown, (-999, -4, 0)), int(rng.integers(1, 3)), code("vegetation", "leaves"))
        x += wide
    return Placed(builder.build(), np.concatenate((leaves, houses)), (0, 0, 0), behind=BACKDROP)
