"""Builds what stands and moves in a street as meshes: furniture, plants, people, two-wheelers and vehicles.

Meshes are built once a process. Flat things face the camera (plane z = 0, x to the right, y up). Vehicles have their
origin on the ground below their middle and look along z. A mesh has colour slots; `FURNITURE_COLORS`, `PERSON_COLORS`
and `VEHICLE_COLORS` name what each slot picks from a domain's colours.
"""

from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from lsr_train.toytown.geometry import BAR, DISC, OCTAGON, POLYGON, TRIANGLE, Floats, Mesh, MeshBuilder

CLASSES: Final = (
    *(
        "road",
        "sidewalk",
        "building",
        "wall",
        "fence",
        "pole",
        "traffic light",
        "traffic sign",
        "vegetation",
        "terrain",
    ),
    *("sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"),
)
"""The nineteen classes in the order of their train ids."""

MATERIALS: Final = ("plain", "asphalt", "paving", "grass", "plaster", "brick", "leaves", "sky")
"""What a surface is made of, as far as the sensor's textures care."""

Shape = tuple[float, ...]
Point = tuple[float, float]

POLE, LIGHT, RIM, FACE, MARK, BOX, EDGE, OFF, RED, *_ = range(11)
FURNITURE_COLORS = (
    *("poles", "lamps", "sign_rims", "sign_faces", "sign_marks"),
    *("light_boxes", "light_rims", "light_off", "red", "amber", "green"),
)

SIGNS = {"disc": 0.3, "triangle": 0.22, "square": 0.22, "board": 0.14, "octagon": 0.12}  # weights of their kinds

SKIN, HAIR, TOP, TROUSERS, SHOES, BAG, FRAME, TYRE, INSIDE, LAMP = range(10)
PERSON_COLORS = ("skins", "hairs", "clothes", "trousers", "tyres", "clothes", "frames", "tyres", "rims", "rear_lamps")

PAINT, GLASS, WHEEL, TRIM, REAR_LAMP, HEAD_LAMP, PLATE, SECOND, UNDER = range(9)
VEHICLE_COLORS = ("paints", "glass", "tyres", "rims", "rear_lamps", "head_lamps", "plates", "loads", "tyres")

# fmt: off
SIZES = {  # half width, half length and height of vehicles, metres
    "hatchback": (0.88, 1.95, 1.5), "sedan": (0.9, 2.25, 1.45), "suv": (0.95, 2.25, 1.74), "van": (1.0, 2.5, 2.08),
    "truck": (1.25, 4.0, 3.5), "bus": (1.27, 5.9, 3.1), "train": (1.4, 22.0, 3.4),
}

# Heights of sill, belt and nose; z of the bonnet's end and of the cabin's rear, its roof's rear and its roof's front;
# half width of the cabin at the belt and at the roof.
_CARS = {
    "hatchback": (0.3, 0.95, 0.8, 0.9, -1.85, -1.4, 0.1, 0.84, 0.68),
    "sedan": (0.3, 0.95, 0.78, 1.0, -1.75, -1.05, 0.1, 0.86, 0.68),
    "suv": (0.4, 1.1, 1.0, 1.1, -2.2, -1.95, 0.2, 0.92, 0.78),
    "van": (0.35, 1.15, 1.0, 1.5, -2.48, -2.42, 0.9, 0.97, 0.9),
}

# Furniture and two-wheelers: flat shapes by name and class, as `MeshBuilder.draw` takes them.
_POST = (BAR, POLE, 0, 0, 0, 2.5, 0.1)
_SHAPES: dict[str, dict[str, Sequence[Shape]]] = {
    "lamp": {"pole": (
        (BAR, POLE, 0, 0, 0, 1, 0.24), (BAR, POLE, 0, 0.9, 0, 6.4, 0.15), (BAR, POLE, 0, 6.3, 0.72, 6.9, 0.11),
        (BAR, POLE, 0.72, 6.9, 1.8, 7, 0.11), (BAR, LIGHT, 1.35, 6.95, 2.25, 7, 0.2),
    )},
    "bollard": {"pole": ((BAR, POLE, 0, 0, 0, 0.95, 0.16), (BAR, LIGHT, 0, 0.7, 0, 0.85, 0.17))},
    "disc": {"pole": (_POST,), "traffic sign": (
        (DISC, RIM, 0, 2.6, 0.44, 0.44), (DISC, FACE, 0, 2.6, 0.33, 0.33), (BAR, MARK, -0.2, 2.6, 0.2, 2.6, 0.14),
    )},
    "triangle": {"pole": (_POST,), "traffic sign": (
        (TRIANGLE, RIM, 0, 2.5, 0.6, 0.6), (TRIANGLE, FACE, 0, 2.5, 0.35, 0.35), (BAR, MARK, 0, 2.4, 0, 2.7, 0.1),
    )},
    "square": {"pole": (_POST,), "traffic sign": (
        (BAR, FACE, 0, 2.2, 0, 3, 0.8), (BAR, RIM, 0, 2.26, 0, 2.94, 0.68), (BAR, FACE, -0.1, 2.35, -0.1, 2.85, 0.12),
        (DISC, FACE, 0.04, 2.72, 0.15, 0.13),
    )},
    "board": {"pole": (_POST, (BAR, POLE, 1.4, 0, 1.4, 2.6, 0.12)), "traffic sign": (
        (BAR, FACE, 0.8, 2.2, 0.8, 3.5, 2.2), (BAR, RIM, 0.8, 2.28, 0.8, 3.42, 2.04),
        (BAR, FACE, 0, 3.1, 1.2, 3.1, 0.16), (BAR, FACE, 0, 2.6, 1.5, 2.6, 0.16),
    )},
    "octagon": {"pole": (_POST,), "traffic sign": (
        (OCTAGON, FACE, 0, 2.6, 0.48, 0.48), (OCTAGON, RIM, 0, 2.6, 0.42, 0.42),
        (BAR, FACE, -0.28, 2.6, 0.28, 2.6, 0.13),
    )},
    "bicycle side": {"bicycle": (
        *((DISC, slot, x, 0.34, size, size) for x in (-0.52, 0.52) for slot, size in ((TYRE, 0.34), (INSIDE, 0.27))),
        (BAR, FRAME, -0.52, 0.34, -0.22, 0.86, 0.06), (BAR, FRAME, -0.52, 0.34, -0.08, 0.3, 0.06),
        (BAR, FRAME, -0.08, 0.3, -0.22, 0.86, 0.06), (BAR, FRAME, -0.08, 0.3, 0.38, 0.85, 0.06),
        (BAR, FRAME, -0.22, 0.86, 0.38, 0.85, 0.06), (BAR, FRAME, 0.52, 0.34, 0.34, 1, 0.06),
        (BAR, TYRE, 0.25, 1.02, 0.45, 1, 0.05), (BAR, TYRE, -0.34, 0.9, -0.1, 0.9, 0.07),
    )},
    "bicycle end": {"bicycle": (
        (DISC, TYRE, 0, 0.34, 0.06, 0.34), (BAR, FRAME, 0, 0.5, 0, 0.95, 0.07), (BAR, TYRE, -0.28, 1, 0.28, 1, 0.05),
        (BAR, TYRE, -0.1, 0.88, 0.1, 0.88, 0.08),
    )},
    "motorcycle side": {"motorcycle": (
        *((DISC, slot, x, 0.32, size, size) for x in (-0.68, 0.7) for slot, size in ((TYRE, 0.33), (INSIDE, 0.17))),
        (POLYGON, INSIDE, -0.4, 0.3, 0.35, 0.25, 0.42, 0.62, -0.3, 0.66),
        (POLYGON, FRAME, -0.95, 0.68, -0.5, 0.56, 0.4, 0.6, 0.52, 0.85, 0.2, 0.98, -0.25, 0.82, -0.9, 0.84),
        (BAR, TYRE, -0.85, 0.86, -0.1, 0.84, 0.1), (BAR, INSIDE, 0.7, 0.32, 0.42, 0.95, 0.09),
        (BAR, TYRE, 0.3, 1.05, 0.46, 1, 0.07), (DISC, LAMP, 0.56, 0.86, 0.09, 0.1),
    )},
    "motorcycle end": {"motorcycle": (
        (DISC, TYRE, 0, 0.32, 0.11, 0.32), (BAR, TYRE, -0.38, 1.05, 0.38, 1.05, 0.07),
        (POLYGON, FRAME, -0.2, 0.45, 0.2, 0.45, 0.25, 0.85, 0.12, 1, -0.12, 1, -0.25, 0.85),
        (DISC, LAMP, 0, 0.76, 0.1, 0.08),
    )},
}
# fmt: on

# Half width, half height and middle of the crown of each kind of plant.
PLANTS = {"round": (2.3, 2.2, 4.7), "tall": (1.25, 3.0, 4.4), "conifer": (1.9, 3.0, 4.0), "bush": (0.9, 0.6, 0.55)}
VARIANTS = 6  # shapes of each kind of plant
PHASES = 8  # meshes in a stride or a turn of the pedals


def code(label: str, material: str = "plain") -> int:
    """Pack a class (low five bits) and a material (high three) into the canvas's fourth channel."""
    return CLASSES.index(label) | MATERIALS.index(material) << 5


@cache
def shape(name: str) -> Mesh:
    """Return a piece of furniture or a two-wheeler that nobody rides."""
    builder = MeshBuilder()
    for label, shapes in _SHAPES[name].items():
        builder.draw(shapes, code(label))
    return builder.build()


@cache
def traffic_light(state: int, *, arm: bool) -> Mesh:
    """Return a traffic light whose lens `state` (0 red, 1 amber, 2 green) is lit; an arm holds a second one."""
    builder = MeshBuilder()
    poles = [(BAR, POLE, 0, 0, 0, 6 if arm else 2.5, 0.17), (BAR, POLE, 0, 5.9, 3.2, 6.1, 0.13)]
    builder.draw(poles[: 1 + arm], code("pole"))
    for x, y in ((0, 2.9), (3.2, 5.9))[: 1 + arm]:
        lenses = [(DISC, RED + k if k == state else OFF, x, y + 0.42 * (1 - k), 0.17, 0.17) for k in range(3)]
        box = (BAR, EDGE, x, y - 0.72, x, y + 0.72, 0.6), (BAR, BOX, x, y - 0.66, x, y + 0.66, 0.48)
        builder.draw([*box, *lenses], code("traffic light"))
    return builder.build()


def blob(rng: np.random.Generator, x: float, y: float, across: float, up: float) -> Floats:
    """Return an uneven outline, convex enough to be painted as one polygon."""
    angles = np.arange(10) * (2 * np.pi / 10) + rng.uniform(0, 0.6)
    radii = rng.uniform(0.86, 1.0, 10)
    return np.stack((x + across * radii * np.cos(angles), y + up * radii * np.sin(angles), np.zeros(10)), axis=1)


@cache
def plant(kind: str, variant: int) -> Mesh:
    """Return a tree about 7 m tall, or a bush; slots: trunk, dark, middle and light leaves."""
    rng = np.random.default_rng([list(PLANTS).index(kind), variant])
    builder, leaves = MeshBuilder(), code("vegetation", "leaves")
    across, up, middle = PLANTS[kind]
    if kind != "bush":
        branches = [(BAR, 0, 0, 2.4, sign * across * 0.45, middle, 0.13) for sign in (-1, 1)]
        builder.draw([(POLYGON, 0, -0.2, 0, 0.2, 0, 0.11, 3.2, -0.11, 3.2), *branches], code("vegetation"))
    if kind == "conifer":
        for y, half, slot in zip(np.arange(1, 7, 1.2), across - 0.34 * np.arange(5), (1, 1, 2, 2, 2), strict=True):
            lean = rng.uniform(-0.15, 0.15)
            layer = (POLYGON, slot, -half, y, half, y - 0.1, lean, y + 2.3)
            lit = (POLYGON, slot + 1, -half * 0.9, y + 0.1, -0.1, y + 0.15, lean, y + 2.2)
            builder.draw((layer, lit), leaves)
        return builder.build()
    builder.add(blob(rng, 0, middle, across * 0.86, up * 0.86), 1, leaves)
    for slot, count, lift in ((1, 6, -0.15), (2, 8, 0.06), (3, 5, 0.25)):
        for _ in range(count if kind != "bush" else slot):
            angle, radius, size = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 1) ** 0.5 * 0.72, rng.uniform(0.25, 0.42)
            size = size if kind != "bush" else size * 1.4
            x = across * (radius * np.cos(angle) - 0.12 * (slot - 2))
            y = middle + up * (radius * np.sin(angle) * 0.8 + lift)
            builder.add(blob(rng, x, y, across * size, up * size * 0.85), slot, leaves)
    return builder.build()


def _limb(start: Point, end: Point, bend: Point, widths: Point, slots: tuple[int, int]) -> list[Shape]:
    """Return two bars that meet `bend` away from the middle of the line from start to end."""
    x, y = (start[0] + end[0]) / 2 + bend[0], (start[1] + end[1]) / 2 + bend[1]
    return [(BAR, slots[0], *start, x, y, widths[0]), (BAR, slots[1], x, y, *end, widths[1])]


def _figure(
    hip: Point, neck: Point, feet: Sequence[Point], hands: Sequence[Point], knee: Point, *, view: str, helmet: bool
) -> list[Shape]:
    """Return the shapes of somebody in a pose; seen from the side they look to the right."""
    side, half = (1, 0.0) if view == "side" else (0, 1.0)
    shapes: list[Shape] = []
    arms: list[list[Shape]] = []
    for sign, foot, hand in zip((-1, 1), feet, hands, strict=True):
        bend = (knee[0] * (1 if side else sign), knee[1])
        shapes += _limb((hip[0] + sign * half * 0.1, hip[1]), foot, bend, (0.18, 0.14), (TROUSERS, TROUSERS))
        shapes.append((BAR, SHOES, foot[0] - 0.07, foot[1], foot[0] + (0.17 if side else 0.07), foot[1], 0.1))
        shoulder, elbow = (neck[0] + sign * half * 0.23, neck[1] - 0.04), (-0.06 * side + sign * half * 0.05, -0.03)
        arms.append(_limb(shoulder, hand, elbow, (0.12, 0.09), (TOP, SKIN)))
    low, high = (0.14, 0.16) if side else (0.19, 0.27)
    x, y = neck[0] + (hip[0] - neck[0]) * 0.1, neck[1] - 0.06
    torso = (hip[0] - low, hip[1] - 0.06, hip[0] + low, hip[1] - 0.06, x + high, y, neck[0] + 0.1, neck[1] + 0.06)
    body = (POLYGON, TOP, *torso, neck[0] - 0.1, neck[1] + 0.06, x - high, y)
    x, y = neck[0] + 0.03 * side, neck[1] + 0.18
    hair = (HAIR, x, y + 0.02, 0.11, 0.13) if view == "back" else (HAIR, x - 0.04 * side, y + 0.07, 0.11, 0.08)
    head = [(BAR, SKIN, x, y - 0.2, x, y - 0.05, 0.11), (DISC, SKIN, x, y, 0.105, 0.135)]
    top = (DISC, *((BAG, x, y + 0.04, 0.14, 0.12) if helmet else hair))
    return [*shapes, *arms[0], body, *arms[1], *head, top]


def _pedestrian(view: str, turn: float) -> list[Shape]:
    swing = 0.0 if view == "stand" else float(np.sin(turn))
    if view == "side":
        feet = [(sign * 0.4 * swing, 0.05 + 0.12 * max(0.0, sign * np.cos(turn))) for sign in (1, -1)]
        hands = [(0.06 - sign * 0.3 * swing, 0.88) for sign in (1, -1)]
    else:
        feet = [(sign * 0.12, 0.05 + 0.1 * max(0.0, swing * sign)) for sign in (-1, 1)]
        hands = [(sign * 0.31, 0.86) for sign in (-1, 1)]
    shapes = _figure((0, 0.92), (0, 1.45), feet, hands, (0.07 if view == "side" else 0, 0.02), view=view, helmet=False)
    bag = {"side": (-0.2, 0.1, 0.2), "back": (0, 0.15, 0.22)}.get(view)
    return [*shapes, (DISC, BAG, bag[0], 1.24, *bag[1:])] if bag else shapes


def _rider(ride: str, view: str, turn: float) -> list[Shape]:
    cycle, signs = ride == "bicycle", (-1, 1)
    if view == "side":
        pedals = [(-0.08 - sign * 0.16 * np.cos(turn), 0.3 + sign * 0.16 * np.sin(turn)) for sign in signs]
        feet, knee = (pedals, (0.2, 0.06)) if cycle else ([(0.02, 0.3)] * 2, (0.28, 0.12))
        return _figure((-0.23, 0.91), (0.06, 1.43), feet, [(0.39, 1.04)] * 2, knee, view=view, helmet=True)
    feet = [(sign * 0.14, 0.06 + 0.15 * (1 + np.sin(turn) * sign)) if cycle else (sign * 0.25, 0.22) for sign in signs]
    hands, knee = [(sign * (0.27 if cycle else 0.35), 1.04) for sign in signs], (0.05 if cycle else 0.12, 0.02)
    return _figure((0, 0.92), (0, 1.46), feet, hands, knee, view=view, helmet=True)


@cache
def person(ride: str, view: str) -> tuple[Mesh, ...]:
    """Return the phases of somebody 1.75 m tall on foot, or of a rider.

    Args:
        ride: "", "bicycle" or "motorcycle".
        view: "side" moves to the right, "front" comes, "back" goes, "stand" (on foot) waits.
    """
    phases = []
    for turn in np.arange(PHASES) * 2 * np.pi / PHASES:
        builder = MeshBuilder()
        if ride:
            builder.draw(_SHAPES[f"{ride} {'side' if view == 'side' else 'end'}"][ride], code(ride))
        shapes = _rider(ride, view, turn) if ride else _pedestrian(view, turn)
        builder.draw(shapes, code("rider" if ride else "person"))
        phases.append(builder.build())
    return tuple(phases)


class _VehicleBuilder(MeshBuilder):
    """Collects the polygons of a vehicle, which is the same on its left and on its right."""

    def __init__(self, kind: str, label: str) -> None:
        super().__init__()
        self.half, self.length, self.height = SIZES[kind]
        self.code = code(label)

    def block(self, half: float, y: Point, z: Point, slot: int) -> None:
        self.box((-half, y[0], z[0]), (half, y[1], z[1]), slot, self.code)

    def sides(self, spans: ArrayLike, y: Point, slot: int) -> None:
        for sign in (-1, 1):
            self.panels(0, sign * (self.half + 0.01), y, spans, slot, self.code, sign)

    def ends(self, *rows: tuple[int, float, float, float, float, int]) -> None:
        """Add rectangles (end, x, x, y, y, slot) on the rear (-1) or front (1), mirrored where x is positive."""
        for end, x0, x1, y0, y1, slot in rows:
            spans = [(x0, x1), (-x1, -x0)] if x0 > 0 else [(x0, x1)]
            self.panels(2, end * (self.length + 0.01), spans, (y0, y1), slot, self.code, end)

    def wheels(self, places: Sequence[float], radius: float) -> None:
        angles = np.arange(12) * np.pi / 6
        for sign, z in product((-1, 1), places):
            end, x = (1 if z > 0 else -1), sign * self.half
            self.panels(2, z + end * 0.8 * radius, (x - sign * 0.22, x), (0, radius), WHEEL, self.code, end)
            for size, slot in ((1.12, UNDER), (1, WHEEL), (0.6, TRIM)):
                up = np.maximum(radius + size * radius * np.sin(angles), 0)
                points = np.stack((np.full(12, x + sign * 0.02), up, z + size * radius * np.cos(angles)), axis=1)
                self.add(points, slot, self.code, (sign, 0, 0))

    def extrude(
        self, outline: Sequence[Point], low: float, high: float, slots: Sequence[int], side: int = PAINT
    ) -> None:
        """Add the sides of an outline (z, y), and faces with `slots` from one corner to the next.

        It goes from the rear over the top to the front; half its width is `low` at its foot and `high` at its top.
        """
        z, y = np.asarray(outline).T
        wide = low + (high - low) * (y - y.min()) / np.ptp(y)
        for sign in (-1, 1):
            self.add(np.stack((sign * wide, y, z), axis=1), side, self.code, (sign, 0, 0))
        points = np.stack((wide, y, z), axis=1)
        mirrored = points * (-1, 1, 1)
        quads = np.stack((mirrored[:-1], points[:-1], points[1:], mirrored[1:]), axis=1)
        normals = np.stack((np.zeros(len(z) - 1), np.diff(z), -np.diff(y)), axis=1)
        if slots:
            self.add(quads, slots, self.code, normals / np.linalg.norm(normals, axis=1, keepdims=True))


def _car(kind: str) -> Mesh:
    car = _VehicleBuilder(kind, "car")
    half, length, roof = car.half, car.length, car.height
    sill, belt, nose, bonnet, rear, back, front, shoulder, top = _CARS[kind]
    car.block(half - 0.15, (0.12, sill), (-length + 0.2, length - 0.2), UNDER)
    tail = [(-length, sill), (-length, belt - 0.18), (-length + 0.08, belt)]
    snout = [(bonnet, belt), (length - 0.15, nose), (length, nose - 0.2), (length, sill)]
    car.extrude(tail + snout, half, half, [PAINT] * 6)
    car.wheels((-length * 0.62, length * 0.62), 0.33 if sill < 0.35 else 0.38)
    car.ends(
        (-1, -half + 0.05, half - 0.05, sill, sill + 0.14, UNDER),
        (-1, half - 0.32, half - 0.04, belt - 0.3, belt - 0.08, REAR_LAMP),
        (-1, -0.26, 0.26, belt - 0.38, belt - 0.24, PLATE),
        (1, half - 0.42, half - 0.06, sill + 0.2, sill + 0.34, HEAD_LAMP),
        (1, -half + 0.46, half - 0.46, sill + 0.1, sill + 0.32, UNDER),
        (1, -0.26, 0.26, sill + 0.02, sill + 0.12, PLATE),
    )  # fmt: skip
    car.extrude([(rear, belt), (back, roof), (front, roof), (bonnet, belt)], shoulder, top, [GLASS, PAINT, GLASS])
    low, high, middle = belt + 0.04, roof - 0.08, (rear + front) / 2 + 0.05
    rear_window = [(rear + 0.4, low), (back + 0.3, high), (middle - 0.07, high), (middle - 0.07, low)]
    front_window = [(middle + 0.07, low), (middle + 0.07, high), (front - 0.02, high), (bonnet - 0.2, low)]
    for window in (rear_window, front_window):
        car.extrude(window, shoulder + 0.01, top + 0.02, [], GLASS)
    return car.build()


def _truck(load: str, *, coming: bool) -> Mesh:
    truck = _VehicleBuilder("truck", "truck")
    half, length, top = truck.half, truck.length, 3.5 if load == "box" else 2.3
    truck.block(half - 0.25, (0.45, 1), (-length, length - 0.4), UNDER)
    truck.wheels((-length * 0.72, -length * 0.45, length * 0.62), 0.5)
    for part in ("load", "cab") if coming else ("cab", "load"):  # what is nearer is painted last
        if part == "cab":
            truck.block(half - 0.05, (0.5, 2.7), (length - 2, length), PAINT)
            truck.ends(
                (1, -half + 0.18, half - 0.18, 1.6, 2.45, GLASS), (1, -half + 0.3, half - 0.3, 0.95, 1.4, UNDER),
                (1, half - 0.45, half - 0.12, 0.6, 0.85, HEAD_LAMP),
            )  # fmt: skip
            truck.sides([(length - 1.25, length - 0.25)], (1.6, 2.4), GLASS)
            continue
        truck.block(half, (1, top), (-length, length - 2.25), SECOND)
        if load == "box":
            truck.ends((-1, -0.03, 0.03, 1.05, 3.4, UNDER), (-1, -half, half, 3.36, 3.5, TRIM))
            truck.sides([(-length + 0.8, length - 3.25)], (1.9, 2.6), PAINT)
        else:
            truck.ends((-1, 0.74, 0.86, 1, top, UNDER), (-1, -0.06, 0.06, 1, top, UNDER))
            truck.sides([(z, z + 0.15) for z in np.arange(-length, length - 2.45, 0.9)], (1, top), UNDER)
    truck.ends((-1, half - 0.5, half - 0.1, 0.72, 0.95, REAR_LAMP), (-1, -0.26, 0.26, 0.6, 0.74, PLATE))
    return truck.build()


def _coach(kind: str) -> Mesh:
    """Return a bus, or a tram of three such parts that looks nearly the same from both ends."""
    coach = _VehicleBuilder(kind, kind)
    half, length, height = coach.half, coach.length, coach.height
    edges, gap = np.linspace(-length, length, 4 if kind == "train" else 2), 0.25 * (kind == "train")
    for rear, front in reversed(
        list(zip(edges[:-1] + gap, edges[1:] - gap, strict=True))
    ):  # the nearest is painted last
        coach.block(half - 0.3, (0.6, height - 0.3), (front, front + 2 * gap), UNDER)
        coach.block(half - 0.15, (0.1, 0.4), (rear, front), UNDER)
        coach.block(half, (0.38, height), (rear, front), PAINT)
        coach.sides([(rear, front)], (0.38, 0.8), SECOND)
        coach.sides([(z, z + 1.3) for z in np.arange(rear + 0.4, front - 1.2, 1.45)], (1.4, 2.5), GLASS)
    if kind == "bus":
        coach.wheels((-length * 0.5, length * 0.55), 0.48)
    coach.length -= gap
    for end, lamps, glass in ((-1, REAR_LAMP, 1.7), (1, HEAD_LAMP, 1.25)):
        coach.ends(
            (end, -half + 0.15, half - 0.15, glass, 2.6, GLASS), (end, -half, half, 0.38, 0.8, SECOND),
            (end, -half + 0.3, half - 0.3, height - 0.42, height - 0.14, UNDER),
            (end, -0.6, 0.6, height - 0.38, height - 0.18, PLATE), (end, half - 0.45, half - 0.1, 0.9, 1.2, lamps),
        )  # fmt: skip
    return coach.build()


@cache
def vehicle(kind: str, variant: str = "", *, coming: bool = False) -> Mesh:
    """Return a "car" (hatchback, sedan, suv, van), a "truck" (box, tipper), a "bus" or a "train"."""
    if kind == "truck":
        return _truck(variant, coming=coming)
    return _car(variant) if kind == "car" else _coach(kind)
