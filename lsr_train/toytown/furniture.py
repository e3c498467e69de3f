"""What stands on a pavement: lamps, signs, traffic lights, trees and bushes, as meshes built once a process.

Flat things face the camera (plane z = 0).
"""

from functools import cache

import numpy as np

from lsr_train.toytown.geometry import Mesh, MeshBuilder
from lsr_train.toytown.surfaces import code

__all__ = ["SIGN_KINDS", "TREE_KINDS", "VARIANTS", "bollard", "bush", "lamp", "sign", "traffic_light", "tree"]

SIGN_KINDS = ("disc", "triangle", "square", "board", "octagon")
TREE_KINDS = ("round", "tall", "conifer")
VARIANTS = 6
"""Shapes of each kind of plant."""


@cache
def lamp(reach: float) -> Mesh:
    """Return a street lamp whose arm reaches over the road (to the right for a positive reach). Slots: pole, lamp."""
    builder, label = MeshBuilder(), code("pole")
    builder.beam((0, 0), (0, 1.0), 0.24, 0, label)
    builder.beam((0, 0.9), (0, 6.4), 0.15, 0, label)
    builder.beam((0, 6.3), (reach * 0.4, 6.9), 0.11, 0, label)
    builder.beam((reach * 0.4, 6.9), (reach, 7.0), 0.11, 0, label)
    builder.beam((reach * 0.75, 6.95), (reach * 1.25, 7.0), 0.2, 1, label)
    return builder.build()


@cache
def bollard() -> Mesh:
    """Return a knee-high post. Slots: post, band."""
    builder, label = MeshBuilder(), code("pole")
    builder.beam((0, 0), (0, 0.95), 0.16, 0, label)
    builder.beam((0, 0.7), (0, 0.85), 0.17, 1, label)
    return builder.build()


@cache
def sign(kind: str) -> Mesh:
    """Return a traffic sign on its pole. Slots: pole, rim, face, mark."""
    builder, pole, label = MeshBuilder(), code("pole"), code("traffic sign")
    builder.beam((0, 0), (0, 2.5), 0.1, 0, pole)
    if kind == "disc":
        builder.ellipse(0, 2.6, 0.44, 0.44, 1, label)
        builder.ellipse(0, 2.6, 0.33, 0.33, 2, label)
        builder.beam((-0.2, 2.6), (0.2, 2.6), 0.14, 3, label)
    elif kind == "triangle":
        builder.face([(-0.52, 2.2, 0), (0.52, 2.2, 0), (0, 3.1, 0)], 1, label)
        builder.face([(-0.3, 2.34, 0), (0.3, 2.34, 0), (0, 2.86, 0)], 2, label)
        builder.beam((0, 2.42), (0, 2.7), 0.1, 3, label)
    elif kind == "octagon":
        angles = (np.arange(8) + 0.5) * np.pi / 4
        for radius, slot in ((0.48, 2), (0.42, 1)):
            builder.face([(radius * np.cos(a), 2.6 + radius * np.sin(a), 0) for a in angles], slot, label)
        builder.beam((-0.28, 2.6), (0.28, 2.6), 0.13, 2, label)
    elif kind == "square":
        builder.face([(-0.4, 2.2, 0), (0.4, 2.2, 0), (0.4, 3.0, 0), (-0.4, 3.0, 0)], 2, label)
        builder.face([(-0.34, 2.26, 0), (0.34, 2.26, 0), (0.34, 2.94, 0), (-0.34, 2.94, 0)], 1, label)
        builder.beam((-0.1, 2.35), (-0.1, 2.85), 0.12, 2, label)
        builder.ellipse(0.04, 2.72, 0.15, 0.13, 2, label)
    else:
        builder.beam((1.4, 0), (1.4, 2.6), 0.12, 0, pole)
        builder.face([(-0.3, 2.2, 0), (1.9, 2.2, 0), (1.9, 3.5, 0), (-0.3, 3.5, 0)], 2, label)
        builder.face([(-0.22, 2.28, 0), (1.82, 2.28, 0), (1.82, 3.42, 0), (-0.22, 3.42, 0)], 1, label)
        for y, end in ((3.1, 1.2), (2.6, 1.5)):
            builder.beam((0, y), (end, y), 0.16, 2, label)
    return builder.build()


@cache
def traffic_light(state: int, reach: float) -> Mesh:
    """Return a traffic light; with a reach, a second one hangs over the road. Slots: pole, box, rim, dark, lit."""
    builder, pole, label = MeshBuilder(), code("pole"), code("traffic light")
    builder.beam((0, 0), (0, 6.0 if reach else 2.5), 0.17, 0, pole)
    places = [(0.0, 2.9)]
    if reach:
        builder.beam((0, 5.9), (reach, 6.1), 0.13, 0, pole)
        places.append((reach, 5.9))
    for x, y in places:
        for half, tall, slot in ((0.3, 0.72, 2), (0.24, 0.66, 1)):
            left, right, low, high = x - half, x + half, y - tall, y + tall
            builder.face([(left, low, 0), (right, low, 0), (right, high, 0), (left, high, 0)], slot, label)
        for index, height in enumerate((0.42, 0.0, -0.42)):
            builder.ellipse(x, y + height, 0.17, 0.17, 4 if index == state else 3, label)
    return builder.build()


def _blob(rng: np.random.Generator, x: float, y: float, across: float, up: float) -> np.ndarray:
    """Return an uneven outline, convex enough to be painted as one polygon."""
    angles = np.arange(10) * (2 * np.pi / 10) + rng.uniform(0, 0.6)
    radii = rng.uniform(0.86, 1.0, 10)
    return np.stack((x + across * radii * np.cos(angles), y + up * radii * np.sin(angles), np.zeros(10)), axis=1)


@cache
def tree(kind: str, variant: int) -> Mesh:
    """Return a tree about 7 m tall. Slots: trunk, dark, middle and light leaves."""
    rng = np.random.default_rng([TREE_KINDS.index(kind), variant])
    builder, trunk, leaves = MeshBuilder(), code("vegetation"), code("vegetation", "leaves")
    builder.face([(-0.2, 0, 0), (0.2, 0, 0), (0.11, 3.2, 0), (-0.11, 3.2, 0)], 0, trunk)
    if kind == "conifer":
        for index in range(5):
            y, half = 1.0 + index * 1.2, 1.9 - index * 0.34
            lean = rng.uniform(-0.15, 0.15)
            builder.face([(-half, y, 0), (half, y - 0.1, 0), (lean, y + 2.3, 0)], 1 + (index > 1), leaves)
            builder.face([(-half * 0.9, y + 0.1, 0), (-0.1, y + 0.15, 0), (lean, y + 2.2, 0)], 2 + (index > 1), leaves)
        return builder.build()
    across, up, middle = (2.3, 2.2, 4.7) if kind == "round" else (1.25, 3.0, 4.4)
    for sign in (-1, 1):
        builder.beam((0, 2.4), (sign * across * 0.45, middle), 0.13, 0, trunk)
    builder.face(_blob(rng, 0, middle, across * 0.86, up * 0.86), 1, leaves)
    spots = []
    for slot, count, lift in ((1, 6, -0.25), (2, 8, 0.1), (3, 5, 0.42)):
        for _ in range(count):
            angle, radius = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform(0.05, 1)) * 0.72
            x, y = across * radius * np.cos(angle), middle + up * (radius * np.sin(angle) * 0.8 + lift * 0.6)
            spots.append((slot, x - 0.12 * (slot - 2) * across, y, rng.uniform(0.25, 0.42)))
    for slot, x, y, size in spots:
        builder.face(_blob(rng, x, y, across * size, up * size * 0.85), slot, leaves)
    return builder.build()


@cache
def bush(variant: int) -> Mesh:
    """Return a bush about 1.2 m tall. Slots: trunk (unused), dark, middle and light leaves."""
    rng = np.random.default_rng([9, variant])
    builder, leaves = MeshBuilder(), code("vegetation", "leaves")
    builder.face(_blob(rng, 0, 0.5, 0.9, 0.55), 1, leaves)
    for slot in (1, 2, 2, 3):
        x, y = rng.uniform(-0.55, 0.55), rng.uniform(0.4, 0.8) + 0.1 * slot
        builder.face(_blob(rng, x, y, 0.45, 0.35), slot, leaves)
    return builder.build()
