"""Polygons in space, how they are lit, and how they become pixels.

World coordinates are metres: x to the right of the road's axis, y up from the road, z along the street. Everything is a
convex polygon of at most `MAX_VERTICES` vertices in one colour. A `Mesh` is a thing in its own coordinates with colour
slots instead of colours; `place_all` puts copies of it into the world. Nothing here knows what a street is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "MAX_VERTICES",
    "Camera",
    "Light",
    "Mesh",
    "MeshBuilder",
    "Placed",
    "Polygons",
    "concatenate",
    "paint",
    "place_all",
]

MAX_VERTICES = 12
"""Vertices of a polygon, at most; shorter ones repeat their last vertex."""

_NEAR = 0.6  # metres; what lies nearer is moved to this plane
_SMALLEST = 0.5  # canvas pixels; what is smaller both ways is left out
_SHIFT = 3  # fractional bits of the vertices handed to OpenCV
_FARTHEST = 1 << 20  # pixels; keeps the fixed-point coordinates far from overflow

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Light:
    """One sun and an even sky.

    Args:
        direction: unit vector towards the sun (x, y, z).
        ambient: share of light that reaches every face.
        diffuse: share that a face turned to the sun gets on top.
    """

    direction: tuple[float, float, float]
    ambient: float
    diffuse: float

    def shade(self, normals: Floats) -> Floats:
        """Return the brightness [N] of faces with unit `normals` [N,3]; a zero normal is lit as if it faced up."""
        turned = normals @ np.asarray(self.direction, dtype=np.float32)
        turned = np.where((normals == 0).all(axis=1), self.direction[1], turned)
        return (self.ambient + self.diffuse * np.maximum(turned, 0)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Polygons:
    """Convex polygons in world coordinates, ready to be projected.

    Args:
        vertices: [N,MAX_VERTICES,3] float32, metres.
        counts: [N] int32, vertices in use.
        colors: [N,3] float32, blue, green, red in 0..255 and already lit.
        codes: [N] uint8, class and material as `surfaces.code` packs them.
        layers: [N] float32, lower ones are painted first.
        keys: [N] float32, within a layer the larger (farther) ones are painted first; equal ones keep their order.
        normals: [N,3] float32; a face turned away from the camera is left out; zero means it never is.
    """

    vertices: Floats
    counts: NDArray[np.int32]
    colors: Floats
    codes: NDArray[np.uint8]
    layers: Floats
    keys: Floats
    normals: Floats

    def __len__(self) -> int:
        return len(self.counts)

    def select(self, which: NDArray[np.bool_]) -> "Polygons":
        """Return those where `which` [N] is true."""
        return Polygons(**{name: getattr(self, name)[which] for name in self.__dataclass_fields__})


def concatenate(parts: Sequence[Polygons]) -> Polygons:
    """Join several sets, in order."""
    fields = Polygons.__dataclass_fields__
    return Polygons(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in fields})


@dataclass(frozen=True, kw_only=True)
class Mesh:
    """A thing in its own coordinates: x right, y up, z forward, origin on the ground.

    Args:
        vertices: [F,MAX_VERTICES,3] float32, metres.
        counts: [F] int32, vertices in use.
        slots: [F] int32, which of the instance's colours a face takes.
        normals: [F,3] float32, outward; zero for flat things that are seen from both sides.
        codes: [F] uint8, class and material of each face.
    """

    vertices: Floats
    counts: NDArray[np.int32]
    slots: NDArray[np.int32]
    normals: Floats
    codes: NDArray[np.uint8]


class MeshBuilder:
    """Collects faces. Slots are named as they come up; `slots` lists them in order."""

    def __init__(self) -> None:
        self._faces: list[tuple[Floats, int, Floats, int]] = []

    def face(self, points: ArrayLike, slot: int, code: int, outward: ArrayLike = (0, 0, 0)) -> None:
        """Add a convex polygon whose normal points to the side of `outward`; zero means it is seen from both sides."""
        corners = np.asarray(points, dtype=np.float32)
        hint = np.asarray(outward, dtype=np.float32)
        normal = np.zeros(3, dtype=np.float32)
        if hint.any():
            following = np.roll(corners, -1, axis=0)
            normal = np.cross(corners, following).sum(axis=0)
            normal = normal / max(float(np.linalg.norm(normal)), 1e-9)
            normal = normal if normal @ hint >= 0 else -normal
        self._faces.append((corners, slot, normal.astype(np.float32), code))

    def box(self, low: Sequence[float], high: Sequence[float], slot: int, code: int, *, skip: str = "") -> None:
        """Add the faces of a box; `skip` names those left out among l(eft) r(ight) f(ront) b(ack) t(op) d(own)."""
        (x0, y0, z0), (x1, y1, z1) = low, high
        faces = {
            "l": ([(x0, y0, z0), (x0, y1, z0), (x0, y1, z1), (x0, y0, z1)], (-1, 0, 0)),
            "r": ([(x1, y0, z0), (x1, y1, z0), (x1, y1, z1), (x1, y0, z1)], (1, 0, 0)),
            "f": ([(x0, y0, z1), (x1, y0, z1), (x1, y1, z1), (x0, y1, z1)], (0, 0, 1)),
            "b": ([(x0, y0, z0), (x1, y0, z0), (x1, y1, z0), (x0, y1, z0)], (0, 0, -1)),
            "t": ([(x0, y1, z0), (x1, y1, z0), (x1, y1, z1), (x0, y1, z1)], (0, 1, 0)),
            "d": ([(x0, y0, z0), (x1, y0, z0), (x1, y0, z1), (x0, y0, z1)], (0, -1, 0)),
        }
        for name, (points, outward) in faces.items():
            if name not in skip:
                self.face(points, slot, code, outward)

    def disc(self, center: Sequence[float], radius: float, axis: str, slot: int, code: int, outward: ArrayLike) -> None:
        """Add a twelve-sided disc across `axis` ("x" or "z")."""
        angles = np.arange(MAX_VERTICES, dtype=np.float32) * (2 * np.pi / MAX_VERTICES)
        across, up = radius * np.cos(angles), radius * np.sin(angles)
        still = np.zeros_like(across)
        offsets = (still, up, across) if axis == "x" else (across, up, still)
        self.face(np.asarray(center, dtype=np.float32) + np.stack(offsets, axis=1), slot, code, outward)

    def ellipse(self, x: float, y: float, across: float, up: float, slot: int, code: int, z: float = 0.0) -> None:
        """Add an ellipse in the plane z, seen from both sides."""
        angles = np.arange(MAX_VERTICES, dtype=np.float32) * (2 * np.pi / MAX_VERTICES)
        points = np.stack((x + across * np.cos(angles), y + up * np.sin(angles), np.full_like(angles, z)), axis=1)
        self.face(points, slot, code)

    def beam(self, start: Sequence[float], end: Sequence[float], thickness: float, slot: int, code: int) -> None:
        """Add a bar between two points (x, y) of the plane z = 0, seen from both sides."""
        first, last = np.asarray(start, dtype=np.float32), np.asarray(end, dtype=np.float32)
        along = last - first
        along = along / max(float(np.linalg.norm(along)), 1e-6) * (thickness / 2)
        across = np.asarray((-along[1], along[0]), dtype=np.float32)
        corners = np.stack((first - across, first + across, last + across, last - across))
        self.face(np.concatenate((corners, np.zeros((4, 1), dtype=np.float32)), axis=1), slot, code)

    def build(self) -> Mesh:
        """Return everything that was added."""
        return Mesh(
            vertices=np.stack([_padded(points) for points, _, _, _ in self._faces]),
            counts=np.asarray([len(points) for points, _, _, _ in self._faces], dtype=np.int32),
            slots=np.asarray([slot for _, slot, _, _ in self._faces], dtype=np.int32),
            normals=np.stack([normal for _, _, normal, _ in self._faces]),
            codes=np.asarray([code for _, _, _, code in self._faces], dtype=np.uint8),
        )


def _padded(points: Floats) -> Floats:
    """Repeat the last vertex until there are MAX_VERTICES."""
    return np.concatenate((points, np.repeat(points[-1:], MAX_VERTICES - len(points), axis=0)))


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A copy of a mesh in the world.

    Args:
        mesh: the thing.
        colors: [S,3] blue, green, red of its slots, 0..255.
        position: where its origin goes (x, y, z).
        yaw: turn about the vertical, radians; 0 looks along the street.
        scale: a factor for each of x, y, z.
        layer: see `Polygons`.
        key: see `Polygons`.
    """

    mesh: Mesh
    colors: Floats
    position: tuple[float, float, float]
    yaw: float = 0.0
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0)
    layer: float
    key: float


def place_all(things: Sequence[Placed], light: Light) -> Polygons:
    """Put things into the world, in order, and light them."""
    sizes = np.asarray([len(thing.mesh.counts) for thing in things])
    owner = np.repeat(np.arange(len(things)), sizes)
    yaws = np.asarray([thing.yaw for thing in things], dtype=np.float32)
    cosine, sine = np.cos(yaws)[owner], np.sin(yaws)[owner]
    scale = np.asarray([thing.scale for thing in things], dtype=np.float32)[owner]
    moved = np.asarray([thing.position for thing in things], dtype=np.float32)[owner]
    local = np.concatenate([thing.mesh.vertices for thing in things])
    x, z = local[:, :, 0] * scale[:, :1], local[:, :, 2] * scale[:, 2:]
    vertices = np.empty_like(local)
    vertices[:, :, 0] = x * cosine[:, None] + z * sine[:, None] + moved[:, :1]
    vertices[:, :, 1] = local[:, :, 1] * scale[:, 1:2] + moved[:, 1:2]
    vertices[:, :, 2] = z * cosine[:, None] - x * sine[:, None] + moved[:, 2:]
    still = np.concatenate([thing.mesh.normals for thing in things])
    normals = np.empty_like(still)
    normals[:, 0] = still[:, 0] * cosine + still[:, 2] * sine
    normals[:, 1] = still[:, 1]
    normals[:, 2] = still[:, 2] * cosine - still[:, 0] * sine
    first = np.cumsum([0, *(len(thing.colors) for thing in things[:-1])])
    slots = np.concatenate([thing.mesh.slots for thing in things]) + first[owner]
    colors = np.concatenate([thing.colors for thing in things])[slots] * light.shade(normals)[:, None]
    return Polygons(
        vertices=vertices,
        counts=np.concatenate([thing.mesh.counts for thing in things]),
        colors=colors.astype(np.float32),
        codes=np.concatenate([thing.mesh.codes for thing in things]),
        layers=np.asarray([thing.layer for thing in things], dtype=np.float32)[owner],
        keys=np.asarray([thing.key for thing in things], dtype=np.float32)[owner],
        normals=normals,
    )


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera in a street that may bend.

    Args:
        position: (x, y, z) in metres.
        pitch: downward turn, radians.
        yaw: turn to the right, radians.
        focal: focal length as a share of the image's width.
        bend: the street's curvature to the right, 1/m, about the camera.
        rise: its curvature upwards, 1/m.
    """

    position: tuple[float, float, float]
    pitch: float
    yaw: float
    focal: float
    bend: float = 0.0
    rise: float = 0.0

    def project(self, vertices: Floats, height: int, width: int) -> tuple[Floats, Floats]:
        """Return pixel coordinates [...,2] (x right, y down) and depths [...] of world points [...,3].

        Points nearer than the near plane are moved to it and have a depth below it.
        """
        relative = vertices - np.asarray(self.position, dtype=np.float32)
        ahead = relative[..., 2]
        square = ahead * np.abs(ahead)
        x = relative[..., 0] + np.float32(self.bend / 2) * square
        y = relative[..., 1] + np.float32(self.rise / 2) * square
        cosine, sine = np.float32(np.cos(self.yaw)), np.float32(np.sin(self.yaw))
        x, z = x * cosine - ahead * sine, ahead * cosine + x * sine
        cosine, sine = np.float32(np.cos(self.pitch)), np.float32(np.sin(self.pitch))
        y, depth = y * cosine + z * sine, z * cosine - y * sine
        factor = np.float32(self.focal * width) / np.maximum(depth, np.float32(_NEAR))
        pixels: Floats = np.empty((*vertices.shape[:-1], 2), dtype=np.float32)
        pixels[..., 0], pixels[..., 1] = width / 2 + x * factor, height / 2 - y * factor
        return pixels, depth.astype(np.float32)


def paint(
    canvas: NDArray[np.uint8],
    polygons: Polygons,
    camera: Camera,
    *,
    haze: float = 0.0,
    haze_color: ArrayLike = (0, 0, 0),
    farthest: float = 220.0,
) -> None:
    """Paint polygons from back to front into `canvas`, which is changed.

    Args:
        canvas: [H,W,4] uint8: blue, green, red, code. One call of OpenCV writes colour and code, so they agree exactly.
        polygons: what to paint.
        camera: where it is seen from.
        haze: extinction, 1/m.
        haze_color: what distant things fade to: blue, green, red.
        farthest: metres beyond which nothing is painted.
    """
    height, width = canvas.shape[:2]
    position = np.asarray(camera.position, dtype=np.float32)
    first = polygons.vertices[:, 0]
    turned_away = ((polygons.normals * (position - first)).sum(axis=1) < 0) & (polygons.normals != 0).any(axis=1)
    possible = np.flatnonzero(~turned_away & (first[:, 2] > position[2] - 60) & (first[:, 2] < position[2] + farthest))
    parts: list[tuple[NDArray[np.int64], list[NDArray[np.int32]], Floats]] = []
    for low_count, high_count in ((0, 4), (4, MAX_VERTICES)):
        counts = polygons.counts[possible]
        these = possible[(counts > low_count) & (counts <= high_count)]
        pixels, depths = camera.project(polygons.vertices[these, :high_count], height, width)
        low, high = pixels.min(axis=1), pixels.max(axis=1)
        inside = (high >= 0).all(axis=1) & (low[:, 0] < width) & (low[:, 1] < height)
        visible = np.flatnonzero(inside & (depths.max(axis=1) > _NEAR) & ((high - low).max(axis=1) > _SMALLEST))
        # Pixel centres lie at half-integers here and at integers in OpenCV.
        points = np.clip(pixels[visible] - 0.5, -_FARTHEST, _FARTHEST)
        corners = list(np.rint(points * (1 << _SHIFT)).astype(np.int32))
        parts.append((these[visible], corners, depths[visible].mean(axis=1)))
    seen = np.concatenate([part[0] for part in parts])
    outlines = parts[0][1] + parts[1][1]
    depth = np.concatenate([part[2] for part in parts])

    fade = np.exp(-haze * np.maximum(depth, 0))[:, None]
    colors = polygons.colors[seen] * fade + np.asarray(haze_color, dtype=np.float32) * (1 - fade)
    values = np.empty((len(seen), 4), dtype=np.float64)
    values[:, :3] = np.minimum(np.rint(colors), 255)
    values[:, 3] = polygons.codes[seen]
    order = np.lexsort((seen, -polygons.keys[seen], polygons.layers[seen])).tolist()
    shades = values.tolist()
    for index in order:
        cv2.fillConvexPoly(canvas, outlines[index], shades[index], cv2.LINE_8, _SHIFT)
