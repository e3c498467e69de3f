"""Cars, trucks, buses and trains as meshes, built once a process.

Local coordinates: z forward, origin on the ground below the middle. Slots: 0 paint, 1 glass, 2 tyre, 3 rim and trim,
4 rear lamps, 5 head lamps, 6 plate, 7 second paint (a load, a stripe), 8 shaded underside.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np

from lsr_train.toytown.geometry import Mesh, MeshBuilder
from lsr_train.toytown.surfaces import code

__all__ = ["CAR_KINDS", "HALF_SIZES", "TRUCK_KINDS", "bus", "car", "train", "truck"]

PAINT, GLASS, TYRE, TRIM, REAR_LAMP, HEAD_LAMP, PLATE, SECOND, UNDER = range(9)

CAR_KINDS = ("hatchback", "sedan", "suv", "van")
TRUCK_KINDS = ("box", "tanker", "tipper")

HALF_SIZES = {
    "hatchback": (0.88, 1.95),
    "sedan": (0.9, 2.25),
    "suv": (0.95, 2.25),
    "van": (1.0, 2.5),
    "truck": (1.25, 4.0),
    "bus": (1.27, 5.9),
    "train": (1.4, 22.0),
}
"""Half width and half length in metres, by kind."""

# Side view as (z, y), from the rear bumper over the top to the front bumper: the lower body and the cabin above it.
_BODIES = {
    "hatchback": ([(-1.95, 0.3), (-1.95, 0.8), (-1.85, 0.95), (0.9, 0.95), (1.8, 0.8), (1.95, 0.6), (1.95, 0.3)]),
    "sedan": ([(-2.25, 0.3), (-2.25, 0.75), (-2.2, 0.95), (1.0, 0.95), (2.1, 0.78), (2.25, 0.6), (2.25, 0.3)]),
    "suv": ([(-2.25, 0.4), (-2.25, 0.9), (-2.2, 1.1), (1.1, 1.1), (2.1, 1.0), (2.25, 0.8), (2.25, 0.4)]),
    "van": ([(-2.5, 0.35), (-2.5, 0.9), (-2.48, 1.15), (1.5, 1.15), (2.3, 1.0), (2.5, 0.75), (2.5, 0.35)]),
}
_CABINS = {
    "hatchback": ([(-1.85, 0.95), (-1.4, 1.5), (0.1, 1.5), (0.95, 0.95)], 0.84, 0.68),
    "sedan": ([(-1.75, 0.95), (-1.05, 1.44), (0.1, 1.46), (1.0, 0.95)], 0.86, 0.68),
    "suv": ([(-2.2, 1.1), (-1.95, 1.72), (0.2, 1.76), (1.1, 1.1)], 0.92, 0.78),
    "van": ([(-2.48, 1.15), (-2.42, 2.05), (0.9, 2.1), (1.6, 1.15)], 0.97, 0.9),
}


def _hull(
    builder: MeshBuilder,
    profile: Sequence[tuple[float, float]],
    low: float,
    high: float,
    slots: Sequence[int],
    side: int,
    label: int,
) -> None:
    """Extrude a side view; it is `low` wide at its lowest point and `high` at its highest."""
    heights = [y for _, y in profile]
    bottom, top = min(heights), max(heights)
    wide = [low + (high - low) * (y - bottom) / (top - bottom) for y in heights]
    middle = np.mean(profile, axis=0)
    for sign in (-1, 1):
        points = [(sign * half, y, z) for half, (z, y) in zip(wide, profile, strict=True)]
        builder.face(points, side, label, (sign, 0.01, 0))
    for index, slot in enumerate(slots):
        (z0, y0), (z1, y1) = profile[index], profile[index + 1]
        outward = (0, (y0 + y1) / 2 - middle[1], (z0 + z1) / 2 - middle[0])
        half0, half1 = wide[index], wide[index + 1]
        builder.face([(-half0, y0, z0), (half0, y0, z0), (half1, y1, z1), (-half1, y1, z1)], slot, label, outward)


def _wheels(builder: MeshBuilder, half: float, places: Sequence[float], radius: float, label: int) -> None:
    """Add wheels on both sides, and what of them is seen from ahead and behind."""
    for z in places:
        for sign in (-1, 1):
            inner, outer = sign * (half - 0.22), sign * half
            for end in (-1, 1):
                edge = z + end * radius * 0.8
                builder.face(
                    [(inner, 0, edge), (outer, 0, edge), (outer, radius, edge), (inner, radius, edge)],
                    TYRE,
                    label,
                    (0, 0, end),
                )
            builder.disc((sign * (half + 0.01), radius, z), radius, "x", TYRE, label, (sign, 0, 0))
            builder.disc((sign * (half + 0.02), radius, z), radius * 0.58, "x", TRIM, label, (sign, 0, 0))


def _panel(
    builder: MeshBuilder, x: tuple[float, float], y: tuple[float, float], z: float, slot: int, label: int
) -> None:
    """Add an upright rectangle on the front (z > 0) or back (z < 0) face."""
    builder.face([(x[0], y[0], z), (x[1], y[0], z), (x[1], y[1], z), (x[0], y[1], z)], slot, label, (0, 0, z))


def _side_panels(
    builder: MeshBuilder,
    half: float,
    spans: Sequence[tuple[float, float]],
    y: tuple[float, float],
    slot: int,
    label: int,
) -> None:
    """Add upright rectangles on both sides, one for each (rear, front) span."""
    for sign in (-1, 1):
        x = sign * half
        for rear, front in spans:
            points = [(x, y[0], rear), (x, y[0], front), (x, y[1], front), (x, y[1], rear)]
            builder.face(points, slot, label, (sign, 0, 0))


@cache
def car(kind: str) -> Mesh:
    """Return a car; vans are cars in this label space."""
    builder, label = MeshBuilder(), code("car")
    half, length = HALF_SIZES[kind]
    profile, (cabin, shoulder, roof) = _BODIES[kind], _CABINS[kind]
    sill = profile[0][1]
    builder.box((-half + 0.15, 0.12, -length + 0.2), (half - 0.15, sill, length - 0.2), UNDER, label, skip="td")
    _wheels(
        builder, half - 0.02, (-length * 0.62, length * 0.62), 0.33 if kind in ("hatchback", "sedan") else 0.38, label
    )
    _hull(builder, profile, half, half, (PAINT,) * (len(profile) - 1), PAINT, label)
    wheel = 0.33 if kind in ("hatchback", "sedan") else 0.38
    for sign in (-1, 1):
        for z in (-length * 0.62, length * 0.62):
            builder.disc((sign * (half + 0.01), wheel, z), wheel * 1.12, "x", UNDER, label, (sign, 0, 0))
            builder.disc((sign * (half + 0.02), wheel, z), wheel, "x", TYRE, label, (sign, 0, 0))
            builder.disc((sign * (half + 0.03), wheel, z), wheel * 0.6, "x", TRIM, label, (sign, 0, 0))
    belt = profile[3][1]
    _panel(builder, (-half + 0.04, -half + 0.32), (belt - 0.3, belt - 0.08), -length - 0.01, REAR_LAMP, label)
    _panel(builder, (half - 0.32, half - 0.04), (belt - 0.3, belt - 0.08), -length - 0.01, REAR_LAMP, label)
    _panel(builder, (-0.26, 0.26), (belt - 0.38, belt - 0.24), -length - 0.01, PLATE, label)
    _panel(builder, (-half + 0.05, half - 0.05), (sill, sill + 0.14), -length - 0.01, UNDER, label)
    nose = length + 0.01
    _panel(builder, (-half + 0.06, -half + 0.42), (sill + 0.2, sill + 0.34), nose, HEAD_LAMP, label)
    _panel(builder, (half - 0.42, half - 0.06), (sill + 0.2, sill + 0.34), nose, HEAD_LAMP, label)
    _panel(builder, (-half + 0.46, half - 0.46), (sill + 0.1, sill + 0.32), nose, UNDER, label)
    _panel(builder, (-0.26, 0.26), (sill + 0.02, sill + 0.12), nose, PLATE, label)
    _hull(builder, cabin, shoulder, roof, (GLASS, PAINT, GLASS), GLASS, label)
    _pillars(builder, cabin, shoulder, roof, label, blind=kind == "van")
    return builder.build()


def _pillars(
    builder: MeshBuilder, cabin: Sequence[tuple[float, float]], low: float, high: float, label: int, *, blind: bool
) -> None:
    """Paint the pillars and the roof's edge over a cabin's glass; a blind cabin has side windows in front only."""
    (rear_z, belt), (back_z, top), (front_z, _), (_, _) = cabin
    low, high = low + 0.005, high + 0.005

    def at(z: float, share: float, sign: int) -> tuple[float, float, float]:
        return (sign * (low + (high - low) * share), belt + (top - belt) * share, z)

    for sign in (-1, 1):
        outward = (sign, 0.01, 0)
        pillar = 0.14
        middle = (rear_z + front_z) / 2
        builder.face(
            [
                at(rear_z, 0, sign),
                at(back_z, 1, sign),
                at(back_z + 3 * pillar, 1, sign),
                at(rear_z + 3 * pillar, 0, sign),
            ],
            PAINT,
            label,
            outward,
        )
        rear_edge, front_edge = (rear_z, front_z - 0.7) if blind else (middle, middle + pillar)
        builder.face(
            [at(rear_edge, 0, sign), at(rear_edge, 1, sign), at(front_edge, 1, sign), at(front_edge, 0, sign)],
            PAINT,
            label,
            outward,
        )
        builder.face(
            [at(back_z, 0.86, sign), at(back_z, 1, sign), at(front_z, 1, sign), at(front_z + 0.1, 0.86, sign)],
            PAINT,
            label,
            outward,
        )


@cache
def truck(kind: str, *, coming: bool) -> Mesh:
    """Return a lorry with a cab in front and a load behind; what is nearer to the viewer is painted last."""
    builder, label = MeshBuilder(), code("truck")
    half, length = HALF_SIZES["truck"]
    builder.box((-half + 0.25, 0.45, -length), (half - 0.25, 1.0, length - 0.4), UNDER, label, skip="td")
    _wheels(builder, half - 0.05, (-length * 0.72, -length * 0.45, length * 0.62), 0.5, label)
    if coming:
        _LOADS[kind](builder, half, -length, length - 2.25, label)
        _cab(builder, half, length, label)
    else:
        _cab(builder, half, length, label)
        _LOADS[kind](builder, half, -length, length - 2.25, label)
    for sign in (-1, 1):
        lamp = _ordered(sign * (half - 0.5), sign * (half - 0.1))
        _panel(builder, lamp, (0.72, 0.95), -length - 0.02, REAR_LAMP, label)
    _panel(builder, (-0.26, 0.26), (0.6, 0.74), -length - 0.02, PLATE, label)
    return builder.build()


def _cab(builder: MeshBuilder, half: float, length: float, label: int) -> None:
    """Add a lorry's cab."""
    rear = length - 2.0
    builder.box((-half + 0.05, 0.5, rear), (half - 0.05, 2.7, length), PAINT, label, skip="d")
    _panel(builder, (-half + 0.18, half - 0.18), (1.6, 2.45), length + 0.01, GLASS, label)
    _panel(builder, (-half + 0.3, half - 0.3), (0.95, 1.4), length + 0.01, UNDER, label)
    _panel(builder, (-half + 0.12, -half + 0.45), (0.6, 0.85), length + 0.01, HEAD_LAMP, label)
    _panel(builder, (half - 0.45, half - 0.12), (0.6, 0.85), length + 0.01, HEAD_LAMP, label)
    _side_panels(builder, half - 0.03, [(rear + 0.75, length - 0.25)], (1.6, 2.4), GLASS, label)


def _box_load(builder: MeshBuilder, half: float, rear: float, front: float, label: int) -> None:
    """Add a closed box."""
    builder.box((-half, 1.0, rear), (half, 3.5, front), SECOND, label, skip="d")
    _panel(builder, (-0.03, 0.03), (1.05, 3.4), rear - 0.01, UNDER, label)
    _panel(builder, (-half, half), (3.36, 3.5), rear - 0.01, TRIM, label)
    _side_panels(builder, half + 0.01, [(rear + 0.8, front - 1.0)], (1.9, 2.6), PAINT, label)


def _tipper_load(builder: MeshBuilder, half: float, rear: float, front: float, label: int) -> None:
    """Add an open box with ribs."""
    builder.box((-half, 1.0, rear), (half, 2.3, front), SECOND, label, skip="d")
    spans = [(z, z + 0.15) for z in np.arange(rear, front - 0.2, 0.9)]
    _side_panels(builder, half + 0.01, spans, (1.0, 2.3), UNDER, label)
    for x in (-0.8, 0.0, 0.8):
        _panel(builder, (x - 0.06, x + 0.06), (1.0, 2.3), rear - 0.01, UNDER, label)


def _tank_load(builder: MeshBuilder, half: float, rear: float, front: float, label: int) -> None:
    """Add a round tank."""
    angles = np.arange(10) * (2 * np.pi / 10)
    ring = np.stack((1.15 * np.cos(angles), 2.05 + 1.05 * np.sin(angles)), axis=1)
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        points = [(x0, y0, rear), (x1, y1, rear), (x1, y1, front), (x0, y0, front)]
        builder.face(points, SECOND, label, ((x0 + x1) / 2, (y0 + y1) / 2 - 2.05, 0))
    for z, outward in ((rear, -1), (front, 1)):
        builder.face([(x, y, z) for x, y in ring], SECOND, label, (0, 0, outward))


_LOADS = {"box": _box_load, "tanker": _tank_load, "tipper": _tipper_load}


def _ordered(first: float, second: float) -> tuple[float, float]:
    """Return the two in rising order."""
    return (min(first, second), max(first, second))


@cache
def bus() -> Mesh:
    """Return a city bus."""
    builder, label = MeshBuilder(), code("bus")
    half, length = HALF_SIZES["bus"]
    builder.box((-half + 0.2, 0.2, -length + 0.2), (half - 0.2, 0.5, length - 0.2), UNDER, label, skip="td")
    builder.box((-half, 0.4, -length), (half, 3.1, length), PAINT, label, skip="d")
    _side_panels(builder, half + 0.01, [(-length, length)], (0.4, 0.75), SECOND, label)
    spans = [(z, z + 1.3) for z in np.arange(-length + 0.4, length - 1.2, 1.45)]
    _side_panels(builder, half + 0.02, spans, (1.4, 2.5), GLASS, label)
    for sign in (-1, 1):
        for z in (-length * 0.5, length * 0.55):
            builder.disc((sign * (half + 0.02), 0.5, z), 0.56, "x", UNDER, label, (sign, 0, 0))
            builder.disc((sign * (half + 0.03), 0.48, z), 0.48, "x", TYRE, label, (sign, 0, 0))
            builder.disc((sign * (half + 0.04), 0.48, z), 0.26, "x", TRIM, label, (sign, 0, 0))
    _panel(builder, (-half + 0.12, half - 0.12), (1.2, 2.55), length + 0.01, GLASS, label)
    _panel(builder, (-half + 0.3, half - 0.3), (2.65, 2.95), length + 0.01, UNDER, label)
    _panel(builder, (-half + 0.4, half - 0.6), (2.7, 2.9), length + 0.02, PLATE, label)
    _panel(builder, (-half, half), (0.4, 0.75), length + 0.01, SECOND, label)
    _panel(builder, (-half + 0.2, half - 0.2), (1.7, 2.6), -length - 0.01, GLASS, label)
    _panel(builder, (-half, half), (0.4, 0.75), -length - 0.01, SECOND, label)
    _panel(builder, (-0.7, 0.7), (0.8, 1.4), -length - 0.02, UNDER, label)
    for sign in (-1, 1):
        sides = _ordered(sign * (half - 0.45), sign * (half - 0.1))
        _panel(builder, sides, (0.85, 1.15), length + 0.02, HEAD_LAMP, label)
        _panel(builder, sides, (0.85, 1.35), -length - 0.02, REAR_LAMP, label)
        foot = _ordered(sign * (half - 0.3), sign * half)
        _panel(builder, foot, (0.02, 0.4), -length * 0.5 - 0.5, TYRE, label)
        _panel(builder, foot, (0.02, 0.4), length * 0.55 + 0.5, TYRE, label)
    return builder.build()


@cache
def train() -> Mesh:
    """Return a tram of three cars that looks the same from both ends."""
    builder, label = MeshBuilder(), code("train")
    half, length = HALF_SIZES["train"]
    each = 2 * length / 3
    # From the far end to the near one, since the face nearest the camera has to be painted last.
    for index in (2, 1, 0):
        rear = -length + index * each
        low, high = (-half, 0.35, rear + 0.3), (half, 3.4, rear + each - 0.3)
        inner = (half - 0.3, 3.1, rear + each + 0.3)
        builder.box((-half + 0.3, 0.6, rear + each - 0.3), inner, UNDER, label, skip="fbd")
        builder.box((-half + 0.15, 0.08, low[2]), (half - 0.15, 0.35, high[2]), UNDER, label, skip="td")
        builder.box(low, high, PAINT, label, skip="d")
        _side_panels(builder, half + 0.01, [(low[2], high[2])], (0.35, 0.95), SECOND, label)
        _side_panels(builder, half + 0.01, [(low[2], high[2])], (3.05, 3.4), TRIM, label)
        spans = [(z, z + 1.75) for z in np.arange(low[2] + 0.5, high[2] - 1.8, 2.1)]
        _side_panels(builder, half + 0.02, spans, (1.5, 2.6), GLASS, label)
    for end in (-1, 1):
        face = end * (length - 0.3)
        _panel(builder, (-half + 0.15, half - 0.15), (1.4, 2.75), face + end * 0.01, GLASS, label)
        _panel(builder, (-half, half), (0.35, 0.95), face + end * 0.01, SECOND, label)
        _panel(builder, (-half + 0.3, half - 0.3), (2.85, 3.15), face + end * 0.01, UNDER, label)
        _panel(builder, (-0.5, 0.5), (2.88, 3.1), face + end * 0.02, PLATE, label)
        for sign in (-1, 1):
            sides = _ordered(sign * (half - 0.5), sign * (half - 0.15))
            _panel(builder, sides, (1.0, 1.25), face + end * 0.02, HEAD_LAMP if end > 0 else REAR_LAMP, label)
    return builder.build()
