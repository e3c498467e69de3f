"""Builds meshes of convex polygons, lights them, casts their shadows and paints them as a camera sees them.

World coordinates are metres: x to the right of the road's axis, y up from the road, z along the street. A `Mesh` is a
thing in its own coordinates with colour slots instead of colours; `place` puts copies of it into the world.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_VERTICES = 12  # of a polygon; shorter ones repeat their last vertex
BAR, POLYGON, TRIANGLE, OCTAGON, DISC = 0, 1, 3, 8, 12  # kinds of flat shapes, see `MeshBuilder.draw`

_NEAR = 0.6  # metres; what lies nearer is moved to this plane
_SMALLEST = 0.5  # canvas pixels; what is smaller both ways is left out
_SHIFT = 3  # fractional bits of the vertices handed to OpenCV
_FARTHEST = 1 << 20  # pixels; keeps the fixed-point coordinates far from overflow

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Light:
    """One sun and an even sky."""

    direction: tuple[float, float, float]  # unit vector towards the sun
    ambient: float  # share of light that reaches every face
    diffuse: float  # share that a face turned to the sun gets on top

    def shade(self, normals: Floats) -> Floats:
        """Return the brightness [N] of faces with unit `normals` [N,3]; a zero normal is lit as if it faced up."""
        turned = normals @ np.asarray(self.direction, dtype=np.float32)
        turned = np.where((normals == 0).all(axis=1), self.direction[1], turned)
        return (self.ambient + self.diffuse * np.maximum(turned, 0)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """Convex polygons of one thing in its own coordinates, painted in this order."""

    vertices: Floats  # [N,MAX_VERTICES,3]
    counts: Indices  # [N], vertices in use
    slots: Indices  # [N], which of the thing's colours
    normals: Floats  # [N,3] of length 1, or 0 where both sides are seen
    codes: Bytes  # [N], class and material


class MeshBuilder:
    """Collects the polygons of a mesh."""

    def __init__(self) -> None:
        self._parts: list[tuple[Floats, ArrayLike, int, ArrayLike]] = []

    def add(self, points: ArrayLike, slots: ArrayLike, code: int, normal: ArrayLike = (0, 0, 0)) -> None:
        """Add polygons [m,n,3], or one [n,3]; `slots` and `normal` are for all of them, or one for each."""
        corners = np.asarray(points, dtype=np.float32)
        self._parts.append((corners if corners.ndim == 3 else corners[None], slots, code, normal))

    def panels(
        self, axis: int, at: float, first: ArrayLike, second: ArrayLike, slots: ArrayLike, code: int, facing: int = 1
    ) -> None:
        """Add rectangles across an axis (0 x, 1 y, 2 z) that are seen from its side `facing` (-1 or 1).

        `first` and `second` are their spans [2] or [m,2] along the other two axes.
        """
        one, two = np.asarray(first).reshape(-1, 2), np.asarray(second).reshape(-1, 2)
        quads = np.full((max(len(one), len(two)), 4, 3), at, dtype=np.float32)
        quads[:, :, int(axis == 0)], quads[:, :, 2 - (axis == 2)] = one[:, (0, 1, 1, 0)], two[:, (0, 0, 1, 1)]
        self.add(quads, slots, code, tuple(facing * (other == axis) for other in range(3)))

    def box(self, low: Sequence[float], high: Sequence[float], slot: int, code: int) -> None:
        """Add the six faces of a box."""
        spans = list(zip(low, high, strict=True))
        for axis in range(3):
            first, second = (spans[other] for other in range(3) if other != axis)
            for at, facing in zip(spans[axis], (-1, 1), strict=True):
                self.panels(axis, at, first, second, slot, code, facing)

    def draw(self, shapes: Iterable[Sequence[float]], code: int) -> None:
        """Add flat shapes in the plane z = 0, seen from both sides, each a kind, a slot and its numbers.

        A BAR has x and y of its ends and its thickness, a POLYGON x and y of each corner; a TRIANGLE, OCTAGON or DISC
        has x and y of its centre and its radii across and up.
        """
        for kind, slot, *numbers in shapes:
            if kind == BAR:
                start, end = np.reshape(numbers[:4], (2, 2))
                along = end - start
                aside = along[::-1] * (-1, 1) / max(float(np.hypot(*along)), 1e-6) * numbers[4] / 2
                outline = np.stack((start - aside, start + aside, end + aside, end - aside))
            elif kind == POLYGON:
                outline = np.reshape(numbers, (-1, 2))
            else:
                angles = np.pi / 2 + (2 * np.arange(kind) + (kind % 2 == 0)) * np.pi / kind
                outline = np.stack((np.cos(angles), np.sin(angles)), axis=1) * numbers[2:] + numbers[:2]
            self.add(np.insert(outline, 2, 0, axis=1), int(slot), code)

    def build(self) -> Mesh:
        """Return everything that was added."""
        total = sum(len(corners) for corners, *_ in self._parts)
        vertices, normals = np.empty((total, MAX_VERTICES, 3), np.float32), np.empty((total, 3), np.float32)
        counts, slots, codes = np.empty(total, np.int64), np.empty(total, np.int64), np.empty(total, np.uint8)
        start = 0
        for corners, slot, code, normal in self._parts:
            some, count = slice(start, start + len(corners)), corners.shape[1]
            vertices[some, :count], vertices[some, count:] = corners, corners[:, -1:]
            counts[some], slots[some], normals[some], codes[some] = count, slot, normal, code
            start = some.stop
        return Mesh(vertices=vertices, counts=counts, slots=slots, normals=normals, codes=codes)


@dataclass(frozen=True)
class Placed:
    """A copy of a mesh in the world."""

    mesh: Mesh
    colors: Floats  # [S,3], blue, green, red of its slots, 0..255
    position: tuple[float, float, float]  # where its origin goes
    yaw: float = 0.0  # turn about the vertical, radians; 0 looks along the street
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)  # a negative one mirrors
    behind: float = 0.0  # it is painted as if it stood so many metres behind its position
    shadow: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # half width, half length, heights of foot and top
    velocity: tuple[float, float] = (0.0, 0.0)  # x and z, m/s
    phases: tuple[Mesh, ...] = ()  # the meshes of its movement, in place of its one mesh
    rate: float = 0.0  # phases a second

    def at(self, time: float) -> "Placed":
        """Return it after `time` seconds."""
        (x, y, z), (across, along) = self.position, self.velocity
        mesh = self.phases[int(time * self.rate) % len(self.phases)] if self.phases else self.mesh
        return replace(self, mesh=mesh, position=(x + across * time, y, z + along * time))


@dataclass(frozen=True, kw_only=True)
class Polygons:
    """Convex polygons in world coordinates, ready to be projected."""

    vertices: Floats  # [N,MAX_VERTICES,3]
    counts: Indices  # [N], vertices in use
    colors: Floats  # [N,3], blue, green, red in 0..255, already lit
    codes: Bytes  # [N], class and material
    keys: Floats  # [N], the larger (farther) ones are painted first; equal ones keep their order
    normals: Floats  # [N,3]; a face turned away from the camera is left out; zero means it never is


def concatenate(parts: Sequence[Polygons]) -> Polygons:
    """Join several sets, in order."""
    return Polygons(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})


def turn(first: Floats, second: Floats, angle: ArrayLike) -> tuple[Floats, Floats]:
    """Turn two coordinates from the second axis towards the first."""
    cosine, sine = np.cos(angle, dtype=np.float32), np.sin(angle, dtype=np.float32)
    return first * cosine + second * sine, second * cosine - first * sine


def place(things: Sequence[Placed], light: Light) -> Polygons:
    """Put things into the world, in order, and light them."""
    owner = np.repeat(np.arange(len(things)), [len(thing.mesh.counts) for thing in things])

    def each(name: str) -> Floats:
        return np.asarray([getattr(thing, name) for thing in things], dtype=np.float32)[owner]

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([getattr(thing.mesh, name) for thing in things])

    yaw, scale, position = each("yaw"), each("scale"), each("position")
    vertices, normals = joined("vertices") * scale[:, None], joined("normals") * np.sign(scale)
    vertices[..., 0], vertices[..., 2] = turn(vertices[..., 0], vertices[..., 2], yaw[:, None])
    normals[:, 0], normals[:, 2] = turn(normals[:, 0], normals[:, 2], yaw)
    first = np.cumsum([0, *(len(thing.colors) for thing in things[:-1])])
    colors = np.concatenate([thing.colors for thing in things])[joined("slots") + first[owner]]
    return Polygons(
        vertices=vertices + position[:, None],
        counts=joined("counts"),
        colors=(colors * light.shade(normals)[:, None]).astype(np.float32),
        codes=joined("codes"),
        keys=position[:, 2] + each("behind"),
        normals=normals,
    )


def shadows(things: Iterable[Placed], light: Light, *, overcast: bool) -> Floats:
    """Return the outlines (x, z) [N,6,2] of shadows on the ground; without a sun they lie straight below the things."""
    boxes = [(thing.position[0], thing.position[2], *thing.shadow) for thing in things if any(thing.shadow)]
    x, y, z = light.direction
    shift = np.zeros(2) if overcast else np.asarray((-x / y, -z / y))
    box = np.asarray(boxes, dtype=np.float32).reshape(-1, 1, 6)
    # The hull of a rectangle and its shifted copy, for any direction of the shift.
    corners = np.asarray([(-1, -1), (1, -1), (1, -1), (1, 1), (-1, 1), (-1, 1)]) * np.where(shift >= 0, 1, -1)
    heights = np.where(np.asarray([0, 0, 1, 1, 1, 0])[:, None], box[:, :, 5:], box[:, :, 4:5])
    return (box[:, :, :2] + corners * box[:, :, 2:4] + heights * shift).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera in a street that may bend."""

    position: tuple[float, float, float]
    pitch: float  # downward turn, radians
    yaw: float  # turn to the right, radians
    focal: float  # focal length as a share of the image's width
    bend: float = 0.0  # the street's curvature to the right, 1/m, about the camera
    rise: float = 0.0  # its curvature upwards, 1/m

    def project(self, vertices: Floats, height: int, width: int) -> tuple[Floats, Floats]:
        """Return pixel coordinates [...,2] (x right, y down) and depths [...] of world points [...,3].

        Points nearer than the near plane are moved to it and have a depth below it.
        """
        relative = vertices - np.asarray(self.position, dtype=np.float32)
        ahead = relative[..., 2]
        square = ahead * np.abs(ahead)
        x = relative[..., 0] + np.float32(self.bend / 2) * square
        y = relative[..., 1] + np.float32(self.rise / 2) * square
        z, x = turn(ahead, x, self.yaw)
        y, depth = turn(y, z, self.pitch)
        factor = np.float32(self.focal * width) / np.maximum(depth, np.float32(_NEAR))
        return np.stack((width / 2 + x * factor, height / 2 - y * factor), axis=-1, dtype=np.float32), depth


def paint(
    canvas: Bytes,
    polygons: Polygons,
    camera: Camera,
    *,
    haze: float = 0.0,
    haze_color: ArrayLike = (0, 0, 0),
    farthest: float = 220.0,
) -> None:
    """Paint polygons from back to front into `canvas` [H,W,4] (blue, green, red, code), which is changed.

    One call of OpenCV writes colour and code, so they agree exactly. `haze` is an extinction in 1/m, `haze_color` what
    distant things fade to, `farthest` in metres.
    """
    seen, outlines, depth = _visible(polygons, camera, canvas.shape[:2], farthest)
    fade = np.exp(-haze * np.maximum(depth, 0))[:, None]
    values = np.empty((len(seen), 4))
    values[:, :3] = polygons.colors[seen] * fade + np.asarray(haze_color, dtype=np.float32) * (1 - fade)
    values[:, 3] = polygons.codes[seen]
    shades = np.minimum(np.rint(values), 255).tolist()
    for index in np.lexsort((seen, -polygons.keys[seen])).tolist():
        cv2.fillConvexPoly(canvas, outlines[index], shades[index], cv2.LINE_8, _SHIFT)


def _visible(
    polygons: Polygons, camera: Camera, size: tuple[int, ...], farthest: float
) -> tuple[Indices, list[NDArray[np.int32]], Floats]:
    """Return the polygons in view: their indices, outlines in OpenCV's coordinates, and mean depths."""
    height, width = size
    first, position = polygons.vertices[:, 0], np.asarray(camera.position, dtype=np.float32)
    away = ((polygons.normals * (position - first)).sum(axis=1) < 0) & polygons.normals.any(axis=1)
    ahead = first[:, 2] - position[2]
    possible = ~away & (ahead > -60) & (ahead < farthest)
    indices, outlines, means = [], [], []
    for low_count, high_count in ((0, 4), (4, MAX_VERTICES)):  # most are rectangles: fewer points to project
        some = np.flatnonzero(possible & (polygons.counts > low_count) & (polygons.counts <= high_count))
        pixels, depths = camera.project(polygons.vertices[some, :high_count], height, width)
        low, high = pixels.min(axis=1), pixels.max(axis=1)
        inside = (high >= 0).all(axis=1) & (low < (width, height)).all(axis=1)
        kept = np.flatnonzero(inside & (depths.max(axis=1) > _NEAR) & ((high - low).max(axis=1) > _SMALLEST))
        indices.append(some[kept])
        outlines.extend(list(_fixed(pixels[kept])))
        means.append(depths[kept].mean(axis=1))
    return np.concatenate(indices), outlines, np.concatenate(means)


def _fixed(pixels: Floats) -> NDArray[np.int32]:
    """Return OpenCV's fixed-point coordinates. Pixel centres lie at half-integers here and at integers there."""
    scaled = np.clip(pixels - 0.5, -_FARTHEST, _FARTHEST) * (1 << _SHIFT)
    return np.asarray(np.rint(scaled), dtype=np.int32)


def darken(canvas: Bytes, outlines: Floats, camera: Camera, shade: float, *, soft: bool) -> None:
    """Take light from what is painted so far, which is the ground, but for a share `shade`; `canvas` is changed.

    `outlines` [N,n,2] are x and z of shadows on the ground; soft ones have blurred edges.
    """
    height, width = canvas.shape[:2]
    light = np.full((height, width), 255, dtype=np.uint8)
    pixels, depths = camera.project(np.insert(outlines, 1, 0, axis=2), height, width)
    for corners in _fixed(pixels[(depths.max(axis=1) > _NEAR) & (depths.min(axis=1) < 120)]):
        cv2.fillConvexPoly(light, corners, round(255 * shade), cv2.LINE_8, _SHIFT)
    if soft:
        cv2.blur(light, (2 * (width // 128) + 1, 2 * (width // 256) + 1), dst=light)
    cv2.multiply(canvas, cv2.merge((light, light, light, np.full_like(light, 255))), dst=canvas, scale=1 / 255)
