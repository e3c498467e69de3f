"""What lines a street: houses, walls, fences, hedges and open ground.

Every function adds one stretch between two places along the street. Houses face the road; their windows, doors and
shops are painted over their walls.
"""

from dataclasses import dataclass

import numpy as np

from lsr_train.toytown import furniture
from lsr_train.toytown.geometry import Floats, Placed
from lsr_train.toytown.paint_box import PaintBox
from lsr_train.toytown.polygon_list import FRONTAGE, PolygonList
from lsr_train.toytown.surfaces import code

__all__ = ["Line", "add_building", "add_fence", "add_hedge", "add_open", "add_wall"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A stretch along one side of the street, metres.

    Args:
        sign: -1 is the left side, +1 the right.
        x: where it stands.
        start: its near end.
        end: its far end.
        base: height of its foot.
        behind: added to its key, for what stands behind another stretch.
    """

    sign: int
    x: float
    start: float
    end: float
    base: float
    behind: float = 0.0

    @property
    def key(self) -> float:
        """Where it is painted among its layer."""
        return (self.start + self.end) / 2 + self.behind

    @property
    def facing(self) -> tuple[float, float, float]:
        """The normal of its face to the road."""
        return (-self.sign, 0, 0)

    def upright(self, z: np.ndarray, y: np.ndarray, *, out: float = 0.0) -> Floats:
        """Return rectangles [m,4,3] on the face to the road from z [m,2] and y [m,2], `out` metres before it."""
        quads = np.empty((len(z), 4, 3), dtype=np.float32)
        quads[:, :, 0] = self.x - self.sign * out
        quads[:, 0, 1] = quads[:, 1, 1] = self.base + y[:, 0]
        quads[:, 2, 1] = quads[:, 3, 1] = self.base + y[:, 1]
        quads[:, 0, 2] = quads[:, 3, 2] = z[:, 0]
        quads[:, 1, 2] = quads[:, 2, 2] = z[:, 1]
        return quads

    def end_face(self, depth: tuple[float, float], y: tuple[float, float]) -> list[tuple[float, float, float]]:
        """Return the rectangle at the near end, from `depth` metres behind the face to the road."""
        near, far = self.x + self.sign * depth[0], self.x + self.sign * depth[1]
        low, high = self.base + y[0], self.base + y[1]
        return [(near, low, self.start), (far, low, self.start), (far, high, self.start), (near, high, self.start)]


def _one(low: float, high: float) -> np.ndarray:
    """Return a span as [1,2]."""
    return np.asarray([[low, high]], dtype=np.float32)


def add_building(polygons: PolygonList, line: Line, box: PaintBox, rng: np.random.Generator) -> float:
    """Add a house and return its height."""
    floors = int(rng.integers(2, 7))
    storey = rng.uniform(2.9, 3.5)
    ground = rng.uniform(3.2, 4.2)
    height = ground + storey * (floors - 1) + 0.4
    brick = rng.random() < 0.35
    surface = code("building", "brick" if brick else "plaster")
    plain = code("building")
    wall, trim, glass = box.color("facades"), box.color("trims"), box.color("glass")
    depth = 10.0
    if rng.random() < 0.55:
        _add_roof(polygons, line, height, depth, box.color("roofs"), wall, surface)
    end = line.end_face((0, depth), (0, height))
    polygons.add(end, wall, surface, normal=(0, 0, -1), layer=FRONTAGE, key=line.key)
    _add_end_windows(polygons, line, floors, ground, storey, glass)
    _face(polygons, line, (line.start, line.end), (0, height), wall, surface)
    _face(polygons, line, (line.start, line.end), (height - 0.35, height), trim, plain)
    shop = rng.random() < 0.45
    if shop:
        _add_shop(polygons, line, ground, box, rng)
    else:
        _add_door(polygons, line, box, rng)
    _add_windows(polygons, line, (0 if not shop else 1, floors), (ground, storey), (trim, glass), rng)
    return height


def _face(
    polygons: PolygonList, line: Line, z: tuple[float, float], y: tuple[float, float], color: Floats, surface: int
) -> None:
    """Add one rectangle on the face to the road."""
    quad = line.upright(_one(*z), _one(*y))
    polygons.add_many(quad, color, surface, normal=line.facing, layer=FRONTAGE, key=line.key)


def _add_roof(
    polygons: PolygonList, line: Line, height: float, depth: float, color: Floats, wall: Floats, surface: int
) -> None:
    """Add a pitched roof whose ridge runs along the street."""
    top, eave = line.base + height, line.x - line.sign * 0.4
    ridge, peak = line.x + line.sign * depth / 2, top + 2.6
    far = line.x + line.sign * depth
    gable = [(line.x, top, line.start), (far, top, line.start), (ridge, peak, line.start)]
    polygons.add(gable, wall, surface, normal=(0, 0, -1), layer=FRONTAGE, key=line.key)
    slope = [
        (eave, top - 0.15, line.start),
        (eave, top - 0.15, line.end),
        (ridge, peak, line.end),
        (ridge, peak, line.start),
    ]
    normal = (-line.sign * 0.46, 0.89, 0.0)
    polygons.add(slope, color, code("building"), normal=normal, layer=FRONTAGE, key=line.key)


def _add_windows(
    polygons: PolygonList,
    line: Line,
    floors: tuple[int, int],
    heights: tuple[float, float],
    colors: tuple[Floats, Floats],
    rng: np.random.Generator,
) -> None:
    """Add rows of windows with frames, from floor floors[0] up to floors[1]."""
    ground, storey = heights
    trim, glass = colors
    length = line.end - line.start
    columns = max(1, int(length / rng.uniform(2.2, 3.2)))
    wide = length / columns
    office = rng.random() < 0.2
    width = wide * (0.86 if office else rng.uniform(0.36, 0.52))
    tall = storey * (0.5 if office else rng.uniform(0.42, 0.56))
    column = line.start + wide * (np.arange(columns) + 0.5)
    first = np.asarray([0.0] if floors[0] == 0 else [])
    rows = np.concatenate((first + 1.0, ground + storey * np.arange(floors[1] - 1) + storey * 0.22))
    z, y = (grid.ravel() for grid in np.meshgrid(column, rows))
    middle, low = z[:, None], y[:, None]
    frame = 0.12
    outer = line.upright(
        np.concatenate((middle - width / 2 - frame, middle + width / 2 + frame), axis=1),
        np.concatenate((low - frame, low + tall + frame), axis=1),
    )
    inner = line.upright(
        np.concatenate((middle - width / 2, middle + width / 2), axis=1),
        np.concatenate((low, low + tall), axis=1),
    )
    surface = code("building")
    shades = glass * rng.choice((0.8, 1.0, 1.0, 1.25, 1.6), size=(len(z), 1))
    if rng.random() < 0.7:
        polygons.add_many(outer, trim, surface, normal=line.facing, layer=FRONTAGE, key=line.key)
    polygons.add_many(
        inner, np.minimum(shades, 255).astype(np.float32), surface, normal=line.facing, layer=FRONTAGE, key=line.key
    )


def _add_end_windows(
    polygons: PolygonList, line: Line, floors: int, ground: float, storey: float, glass: Floats
) -> None:
    """Add two columns of windows on the near end."""
    quads = [
        line.end_face((depth, depth + 1.1), (ground + storey * (floor + 0.25), ground + storey * (floor + 0.72)))
        for floor in range(floors - 1)
        for depth in (2.2, 6.2)
    ]
    vertices = np.asarray(quads, dtype=np.float32)
    polygons.add_many(vertices, glass, code("building"), normal=(0, 0, -1), layer=FRONTAGE, key=line.key)


def _add_shop(polygons: PolygonList, line: Line, ground: float, box: PaintBox, rng: np.random.Generator) -> None:
    """Add shop windows, a name board and perhaps an awning."""
    surface = code("building")
    color, glass, door = box.color("clothes"), box.color("glass"), box.color("doors")
    z = (line.start + 0.5, line.end - 0.5)
    _face(polygons, line, z, (ground - 0.75, ground - 0.1), color, surface)
    for start in np.arange(z[0] + 0.2, z[1] - 1.6, 3.1):
        _face(polygons, line, (start, min(start + 2.6, z[1])), (0.5, ground - 0.85), glass, surface)
    middle = rng.uniform(z[0] + 1, z[1] - 1)
    _face(polygons, line, (middle - 0.5, middle + 0.5), (0, 2.3), door, surface)
    if rng.random() < 0.5:
        out, high, low = line.x - line.sign * 1.2, line.base + ground - 0.8, line.base + ground - 1.25
        for index, start in enumerate(np.arange(z[0], z[1] - 1, 1.2)):
            corners = [(line.x, high, start), (line.x, high, start + 1.2), (out, low, start + 1.2), (out, low, start)]
            stripe = color if index % 2 else np.minimum(color * 0.4 + 150, 255)
            polygons.add(corners, stripe, surface, normal=(-line.sign * 0.4, 0.9, 0), layer=FRONTAGE, key=line.key)


def _add_door(polygons: PolygonList, line: Line, box: PaintBox, rng: np.random.Generator) -> None:
    """Add a plinth and a door."""
    surface = code("building")
    _face(polygons, line, (line.start, line.end), (0, 0.6), box.color("walls") * 0.85, surface)
    middle = rng.uniform(line.start + 1, line.end - 1)
    _face(polygons, line, (middle - 0.65, middle + 0.65), (0, 2.5), box.color("trims"), surface)
    _face(polygons, line, (middle - 0.5, middle + 0.5), (0, 2.35), box.color("doors"), surface)


def add_wall(polygons: PolygonList, placed: list[Placed], line: Line, box: PaintBox, rng: np.random.Generator) -> None:
    """Add a wall of stone or brick with a coping and pillars."""
    height, color = rng.uniform(1.7, 3.2), box.color("walls")
    surface = code("wall", "brick" if rng.random() < 0.5 else "plaster")
    end = line.end_face((0, 0.4), (0, height))
    polygons.add(end, color, surface, normal=(0, 0, -1), layer=FRONTAGE, key=line.key)
    _face(polygons, line, (line.start, line.end), (0, height), color, surface)
    _face(polygons, line, (line.start, line.end), (height - 0.2, height), np.minimum(color * 1.15, 255), code("wall"))
    posts = np.arange(line.start, line.end - 0.3, 4.0)[:, None]
    quads = line.upright(
        np.concatenate((posts, posts + 0.45), axis=1), np.tile(_one(0, height + 0.15), (len(posts), 1))
    )
    polygons.add_many(quads, color * 0.88, surface, normal=line.facing, layer=FRONTAGE, key=line.key)


def add_fence(polygons: PolygonList, placed: list[Placed], line: Line, box: PaintBox, rng: np.random.Generator) -> None:
    """Add a fence: planks, or bars before a darker ground. Its whole outline is the class, as in Cityscapes."""
    height, color, surface = rng.uniform(1.2, 2.1), box.color("fences"), code("fence")
    planks = rng.random() < 0.5
    _face(polygons, line, (line.start, line.end), (0, height), color * (0.8 if planks else 0.5), surface)
    step, wide = (0.5, 0.38) if planks else (0.4, 0.12)
    bars = np.arange(line.start, line.end - wide, step)[:, None]
    tops = np.tile(_one(0.02, height + 0.06), (len(bars), 1))
    quads = line.upright(np.concatenate((bars, bars + wide), axis=1), tops)
    polygons.add_many(quads, color, surface, normal=line.facing, layer=FRONTAGE, key=line.key)
    for low in (0.25, height - 0.3):
        _face(polygons, line, (line.start, line.end), (low, low + 0.13), color * 0.9, surface)


def add_hedge(polygons: PolygonList, placed: list[Placed], line: Line, box: PaintBox, rng: np.random.Generator) -> None:
    """Add a clipped hedge with a bush here and there."""
    height, leaves = rng.uniform(1.0, 2.2), box.leaves()
    surface = code("vegetation", "leaves")
    end = line.end_face((0, 1.2), (0, height))
    polygons.add(end, leaves[1], surface, normal=(0, 0, -1), layer=FRONTAGE, key=line.key)
    _face(polygons, line, (line.start, line.end), (0, height), leaves[2], surface)
    _face(polygons, line, (line.start, line.end), (height * 0.75, height), leaves[3], surface)
    for z in np.arange(line.end - 1, line.start, -2.2):
        mesh = furniture.bush(int(rng.integers(furniture.VARIANTS)))
        position = (line.x + line.sign * 0.4, line.base + height - 0.6, float(z))
        size = rng.uniform(0.7, 1.0)
        scale = (size, size, size)
        placed.append(Placed(mesh=mesh, colors=leaves, position=position, scale=scale, layer=FRONTAGE, key=line.key))


def add_open(polygons: PolygonList, placed: list[Placed], line: Line, box: PaintBox, rng: np.random.Generator) -> None:
    """Add nothing but a bush or two: the ground lies open."""
    leaves = box.leaves()
    for z in np.arange(line.end - 1.5, line.start, -rng.uniform(3, 6)):
        mesh = furniture.bush(int(rng.integers(furniture.VARIANTS)))
        position = (line.x + line.sign * rng.uniform(0.5, 3.0), 0.0, float(z))
        size = rng.uniform(0.6, 1.3)
        scale = (size, size, size)
        placed.append(Placed(mesh=mesh, colors=leaves, position=position, scale=scale, layer=FRONTAGE, key=line.key))
