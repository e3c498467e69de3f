"""A growing set of polygons, and the layers they are painted in."""

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from lsr_train.toytown.geometry import MAX_VERTICES, Floats, Light, Polygons

__all__ = ["BACKDROP", "FRONTAGE", "GROUND", "STREET", "PolygonList"]

GROUND: Final = 0.0
BACKDROP: Final = 1.0
FRONTAGE: Final = 2.0
STREET: Final = 3.0


class PolygonList:
    """Collects polygons and lights them."""

    def __init__(self, light: Light) -> None:
        self._light = light
        self._vertices: list[Floats] = []
        self._counts: list[int] = []
        self._sizes: list[int] = []
        self._colors: list[Floats] = []
        self._repeats: list[int] = []
        self._codes: list[int] = []
        self._layers: list[float] = []
        self._keys: list[float] = []
        self._normals: list[tuple[float, float, float]] = []

    def add(
        self,
        vertices: ArrayLike,
        color: Floats,
        code: int,
        *,
        normal: tuple[float, float, float] = (0, 0, 0),
        layer: float,
        key: float,
    ) -> None:
        """Add one polygon [n,3]."""
        self.add_many(np.asarray(vertices, dtype=np.float32)[None], color, code, normal=normal, layer=layer, key=key)

    def add_many(
        self,
        vertices: Floats,
        color: Floats,
        code: int,
        *,
        normal: tuple[float, float, float] = (0, 0, 0),
        layer: float,
        key: float,
    ) -> None:
        """Add polygons [m,n,3] that share everything but, where `color` is [m,3], their colour."""
        if not len(vertices):
            return
        self._vertices.append(vertices)
        several = color.ndim == 2
        self._colors.append(color if several else color[None])
        self._repeats.extend([1] * len(vertices) if several else [len(vertices)])
        self._sizes.append(len(vertices))
        self._counts.append(vertices.shape[1])
        self._codes.append(code)
        self._layers.append(layer)
        self._keys.append(key)
        self._normals.append(normal)

    def build(self) -> Polygons:
        """Return everything that was added."""
        sizes = np.asarray(self._sizes)
        vertices = np.empty((int(sizes.sum()), MAX_VERTICES, 3), dtype=np.float32)
        start = 0
        for part in self._vertices:
            count, corners = part.shape[:2]
            vertices[start : start + count, :corners] = part
            vertices[start : start + count, corners:] = part[:, -1:]
            start += count
        normals = np.repeat(np.asarray(self._normals, dtype=np.float32).reshape(-1, 3), sizes, axis=0)
        colors = np.repeat(np.concatenate(self._colors), self._repeats, axis=0) * self._light.shade(normals)[:, None]
        return Polygons(
            vertices=vertices,
            counts=np.repeat(np.asarray(self._counts, dtype=np.int32), sizes),
            colors=colors.astype(np.float32),
            codes=np.repeat(np.asarray(self._codes, dtype=np.uint8), sizes),
            layers=np.repeat(np.asarray(self._layers, dtype=np.float32), sizes),
            keys=np.repeat(np.asarray(self._keys, dtype=np.float32), sizes),
            normals=normals,
        )
