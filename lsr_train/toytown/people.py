"""People on foot and on wheels, as flat figures that face the camera, one mesh for each phase of a stride.

They stand in the plane z = 0: x to the right, y up. Slots: 0 skin, 1 hair, 2 top, 3 trousers, 4 shoes, 5 bag or helmet,
6 frame, 7 tyre, 8 wheel's inside, 9 lamp.
"""

from functools import cache

import numpy as np

from lsr_train.toytown.geometry import Mesh, MeshBuilder
from lsr_train.toytown.surfaces import code

__all__ = ["PHASES", "bicycle", "cyclist", "motorcycle", "motorcyclist", "pedestrian"]

SKIN, HAIR, TOP, TROUSERS, SHOES, BAG, FRAME, TYRE, INSIDE, LAMP = range(10)

PHASES = 8
"""Meshes in a stride or a turn of the pedals."""


def _head(
    builder: MeshBuilder, x: float, y: float, label: int, *, side: bool, back: bool, helmet: bool = False
) -> None:
    """Add a head, its hair or its helmet."""
    builder.beam((x, y - 0.2), (x, y - 0.05), 0.11, SKIN, label)
    builder.ellipse(x, y, 0.105, 0.135, SKIN, label)
    if helmet:
        builder.ellipse(x, y + 0.04, 0.14, 0.12, BAG, label)
    elif back:
        builder.ellipse(x, y + 0.02, 0.11, 0.13, HAIR, label)
    else:
        builder.ellipse(x - (0.04 if side else 0), y + 0.07, 0.11, 0.08, HAIR, label)


def _limb(
    builder: MeshBuilder,
    start: tuple[float, float],
    angles: tuple[float, float],
    lengths: tuple[float, float],
    thickness: tuple[float, float],
    slots: tuple[int, int],
    label: int,
) -> tuple[float, float]:
    """Add a limb of two bars that hang down, turned forward by `angles`; return where it ends."""
    x, y = start
    for angle, length, thick, slot in zip(angles, lengths, thickness, slots, strict=True):
        end = (x + length * np.sin(angle), y - length * np.cos(angle))
        builder.beam((x, y), end, thick, slot, label)
        x, y = end
    return x, y


@cache
def pedestrian(view: str, phase: int) -> Mesh:
    """Return somebody 1.75 m tall.

    Args:
        view: "side" walks to the right, "front" comes, "back" goes, "stand" waits.
        phase: 0..PHASES-1.
    """
    builder, label = MeshBuilder(), code("person")
    swing = 2 * np.pi * phase / PHASES
    hip, shoulder = 0.92, 1.45
    if view == "side":
        for sign in (1, -1):
            thigh = 0.45 * np.sin(swing) * sign
            knee = thigh - 0.55 * max(0.0, float(np.cos(swing) * sign)) - 0.05
            foot = _limb(builder, (0, hip), (thigh, knee), (0.44, 0.44), (0.17, 0.13), (TROUSERS, TROUSERS), label)
            builder.beam((foot[0] - 0.06, foot[1] + 0.0), (foot[0] + 0.18, foot[1] - 0.01), 0.09, SHOES, label)
            if sign == 1:
                _limb(
                    builder, (0, shoulder - 0.05), (-thigh, -thigh + 0.3), (0.3, 0.28), (0.1, 0.08), (TOP, SKIN), label
                )
        builder.face(
            [(-0.13, hip - 0.08, 0), (0.13, hip - 0.08, 0), (0.16, shoulder - 0.1, 0), (0.05, shoulder + 0.05, 0),
             (-0.09, shoulder + 0.05, 0), (-0.16, shoulder - 0.15, 0)],
            TOP,
            label,
        )  # fmt: skip
        thigh = 0.45 * np.sin(swing)
        _limb(builder, (0, shoulder - 0.05), (thigh, thigh + 0.3), (0.3, 0.28), (0.11, 0.08), (TOP, SKIN), label)
        if phase % 2 == 0:
            builder.ellipse(-0.2, hip + 0.32, 0.09, 0.2, BAG, label)
        _head(builder, 0.03, 1.62, label, side=True, back=False)
        return builder.build()
    stride = 0.0 if view == "stand" else float(np.sin(swing))
    for sign in (-1, 1):
        lift = 0.1 * max(0.0, stride * sign)
        builder.beam((sign * 0.1, hip), (sign * 0.11, 0.45 + lift), 0.18, TROUSERS, label)
        builder.beam((sign * 0.11, 0.47 + lift), (sign * 0.11, 0.06 + lift), 0.14, TROUSERS, label)
        builder.beam((sign * 0.11, 0.09 + lift), (sign * 0.12, 0.0 + lift), 0.13, SHOES, label)
        out = 0.05 + 0.06 * stride * sign
        _limb(
            builder,
            (sign * 0.24, shoulder - 0.02),
            (sign * 0.16, sign * out),
            (0.31, 0.3),
            (0.11, 0.09),
            (TOP, SKIN),
            label,
        )
    builder.face(
        [(-0.19, hip - 0.06, 0), (0.19, hip - 0.06, 0), (0.19, hip + 0.2, 0), (0.26, shoulder - 0.02, 0),
         (0.14, shoulder + 0.06, 0), (-0.14, shoulder + 0.06, 0), (-0.26, shoulder - 0.02, 0), (-0.19, hip + 0.2, 0)],
        TOP,
        label,
    )  # fmt: skip
    if view == "back" and phase < PHASES // 2:
        builder.ellipse(0, hip + 0.32, 0.15, 0.22, BAG, label)
    _head(builder, 0, 1.62, label, side=False, back=view == "back")
    return builder.build()


def _bicycle_side(builder: MeshBuilder, label: int) -> None:
    """Add a bicycle that rides to the right."""
    for x in (-0.52, 0.52):
        builder.ellipse(x, 0.34, 0.34, 0.34, TYRE, label)
        builder.ellipse(x, 0.34, 0.27, 0.27, INSIDE, label)
    hub, crank, seat, stem = (-0.52, 0.34), (-0.08, 0.3), (-0.22, 0.86), (0.38, 0.85)
    for start, end in ((hub, crank), (crank, seat), (hub, seat), (crank, stem), (seat, stem), (stem, (0.52, 0.34))):
        builder.beam(start, end, 0.06, FRAME, label)
    builder.beam(stem, (0.34, 1.0), 0.05, FRAME, label)
    builder.beam((0.25, 1.02), (0.45, 1.0), 0.05, TYRE, label)
    builder.beam((-0.34, 0.9), (-0.1, 0.9), 0.07, TYRE, label)


def _bicycle_end(builder: MeshBuilder, label: int) -> None:
    """Add a bicycle seen from ahead or behind."""
    builder.ellipse(0, 0.34, 0.06, 0.34, TYRE, label)
    builder.beam((0, 0.5), (0, 0.95), 0.07, FRAME, label)
    builder.beam((-0.28, 1.0), (0.28, 1.0), 0.05, TYRE, label)
    builder.beam((-0.1, 0.88), (0.1, 0.88), 0.08, TYRE, label)


@cache
def bicycle(view: str) -> Mesh:
    """Return a bicycle that nobody rides; `view` is "side" or "end"."""
    builder, label = MeshBuilder(), code("bicycle")
    (_bicycle_side if view == "side" else _bicycle_end)(builder, label)
    return builder.build()


@cache
def cyclist(view: str, phase: int) -> Mesh:
    """Return a rider on a bicycle; `view` is "side" (to the right), "front" or "back"."""
    builder, wheels, label = MeshBuilder(), code("bicycle"), code("rider")
    turn = 2 * np.pi * phase / PHASES
    if view == "side":
        _bicycle_side(builder, wheels)
        for shift in (np.pi, 0.0):
            foot = (-0.08 + 0.16 * np.cos(turn + shift), 0.3 + 0.16 * np.sin(turn + shift))
            knee = ((foot[0] - 0.2) / 2 + 0.22, (foot[1] + 0.92) / 2 + 0.06)
            builder.beam((-0.2, 0.95), knee, 0.17, TROUSERS, label)
            builder.beam(knee, foot, 0.13, TROUSERS, label)
            builder.beam((foot[0] - 0.06, foot[1] - 0.03), (foot[0] + 0.16, foot[1] - 0.03), 0.09, SHOES, label)
        builder.face(
            [(-0.36, 0.92, 0), (-0.08, 0.88, 0), (0.22, 1.32, 0), (0.12, 1.48, 0), (-0.1, 1.42, 0)], TOP, label
        )
        builder.beam((0.1, 1.38), (0.24, 1.14), 0.11, TOP, label)
        builder.beam((0.24, 1.14), (0.4, 1.04), 0.08, SKIN, label)
        _head(builder, 0.2, 1.62, label, side=True, back=False, helmet=True)
        return builder.build()
    _bicycle_end(builder, wheels)
    for sign in (-1, 1):
        lift = 0.15 * (1 + np.sin(turn) * sign)
        builder.beam((sign * 0.1, 0.95), (sign * 0.17, 0.5 + lift), 0.17, TROUSERS, label)
        builder.beam((sign * 0.17, 0.52 + lift), (sign * 0.13, 0.12 + lift), 0.13, TROUSERS, label)
        builder.beam((sign * 0.13, 0.14 + lift), (sign * 0.14, 0.04 + lift), 0.12, SHOES, label)
        builder.beam((sign * 0.22, 1.42), (sign * 0.32, 1.2), 0.11, TOP, label)
        builder.beam((sign * 0.32, 1.2), (sign * 0.26, 1.02), 0.08, SKIN, label)
    builder.face(
        [(-0.18, 0.86, 0), (0.18, 0.86, 0), (0.27, 1.4, 0), (0.14, 1.5, 0), (-0.14, 1.5, 0), (-0.27, 1.4, 0)],
        TOP,
        label,
    )
    _head(builder, 0, 1.64, label, side=False, back=view == "back", helmet=True)
    return builder.build()


def _motorcycle_side(builder: MeshBuilder, label: int) -> None:
    """Add a motorcycle that rides to the right."""
    for x in (-0.68, 0.7):
        builder.ellipse(x, 0.32, 0.33, 0.32, TYRE, label)
        builder.ellipse(x, 0.32, 0.17, 0.17, INSIDE, label)
    builder.face([(-0.4, 0.3, 0), (0.35, 0.25, 0), (0.42, 0.62, 0), (-0.3, 0.66, 0)], INSIDE, label)
    builder.face(
        [
            (-0.95, 0.68, 0),
            (-0.5, 0.56, 0),
            (0.4, 0.6, 0),
            (0.52, 0.85, 0),
            (0.2, 0.98, 0),
            (-0.25, 0.82, 0),
            (-0.9, 0.84, 0),
        ],
        FRAME,
        label,
    )
    builder.beam((-0.85, 0.86), (-0.1, 0.84), 0.1, TYRE, label)
    builder.beam((0.7, 0.32), (0.42, 0.95), 0.09, INSIDE, label)
    builder.beam((0.3, 1.05), (0.46, 1.0), 0.07, TYRE, label)
    builder.ellipse(0.56, 0.86, 0.09, 0.1, LAMP, label)


def _motorcycle_end(builder: MeshBuilder, label: int) -> None:
    """Add a motorcycle seen from ahead or behind."""
    builder.ellipse(0, 0.32, 0.11, 0.32, TYRE, label)
    builder.face([(-0.2, 0.45, 0), (0.2, 0.45, 0), (0.25, 0.85, 0), (0.12, 1.0, 0), (-0.12, 1.0, 0), (-0.25, 0.85, 0)],
                 FRAME, label)  # fmt: skip
    builder.beam((-0.38, 1.05), (0.38, 1.05), 0.07, TYRE, label)
    builder.ellipse(0, 0.76, 0.1, 0.08, LAMP, label)


@cache
def motorcycle(view: str) -> Mesh:
    """Return a parked motorcycle; `view` is "side" or "end"."""
    builder, label = MeshBuilder(), code("motorcycle")
    (_motorcycle_side if view == "side" else _motorcycle_end)(builder, label)
    return builder.build()


@cache
def motorcyclist(view: str, phase: int = 0) -> Mesh:
    """Return a rider on a motorcycle; `view` is "side" (to the right), "front" or "back". The phase does not matter."""
    builder, wheels, label = MeshBuilder(), code("motorcycle"), code("rider")
    if view == "side":
        _motorcycle_side(builder, wheels)
        builder.beam((-0.25, 0.92), (0.2, 0.72), 0.2, TROUSERS, label)
        builder.beam((0.2, 0.74), (-0.02, 0.32), 0.15, TROUSERS, label)
        builder.beam((-0.06, 0.3), (0.18, 0.28), 0.1, SHOES, label)
        builder.face([(-0.42, 0.86, 0), (-0.08, 0.86, 0), (0.16, 1.3, 0), (0.05, 1.46, 0), (-0.2, 1.38, 0)], TOP, label)
        builder.beam((0.02, 1.36), (0.16, 1.1), 0.12, TOP, label)
        builder.beam((0.16, 1.1), (0.38, 1.04), 0.1, TOP, label)
        _head(builder, 0.12, 1.6, label, side=True, back=False, helmet=True)
        return builder.build()
    _motorcycle_end(builder, wheels)
    for sign in (-1, 1):
        builder.beam((sign * 0.12, 0.95), (sign * 0.3, 0.62), 0.2, TROUSERS, label)
        builder.beam((sign * 0.3, 0.64), (sign * 0.24, 0.25), 0.15, TROUSERS, label)
        builder.beam((sign * 0.24, 0.28), (sign * 0.26, 0.18), 0.13, SHOES, label)
        builder.beam((sign * 0.24, 1.4), (sign * 0.4, 1.2), 0.13, TOP, label)
        builder.beam((sign * 0.4, 1.2), (sign * 0.34, 1.06), 0.11, TOP, label)
    builder.face(
        [(-0.22, 0.86, 0), (0.22, 0.86, 0), (0.29, 1.38, 0), (0.14, 1.5, 0), (-0.14, 1.5, 0), (-0.29, 1.38, 0)],
        TOP,
        label,
    )
    _head(builder, 0, 1.64, label, side=False, back=view == "back", helmet=True)
    return builder.build()
