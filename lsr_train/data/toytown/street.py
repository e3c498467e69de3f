"""The grammar: what a street is made of, block by block, in either domain.

A street is endless. Its plan (lanes, pavements, weather, what lines it) is drawn once from the scene's seed; each block
of `BLOCK` metres is drawn from the seed and its number, so that a block looks the same whenever a camera comes by.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_train.data.toytown import furniture, people, vehicles
from lsr_train.data.toytown.domains import Domain
from lsr_train.data.toytown.frontage import Line, add_building, add_fence, add_hedge, add_open, add_wall
from lsr_train.data.toytown.geometry import Floats, Light, Mesh, Polygons, concatenate, place
from lsr_train.data.toytown.paint_box import PaintBox
from lsr_train.data.toytown.polygon_list import BACKDROP, FRONTAGE, GROUND, STREET, PolygonList
from lsr_train.data.toytown.surfaces import code

__all__ = ["BLOCK", "Agent", "Block", "Plan", "backdrop", "build_block", "draw_plan", "place_agent"]

BLOCK = 48.0
"""Length of a block in metres."""

_SIDEWALK_HEIGHT = 0.13
_STRIP = 6.0  # metres of ground a polygon, so that a bending street looks bent
_CONTACT = 0.35  # what the darkness below a car takes away at least, as a share of the shadow


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
        lamps: whether this side has the lamps.
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
        tram: "none", "street" (on the middle of the road) or "left" / "right" (on its own bed beside it).
        speed: of the camera, m/s.
        colors: of ground and sky, by name of the palette's field.
        eye: x of the camera.
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
    colors: dict[str, Floats]
    eye: float

    def side(self, sign: int) -> Side:
        """Return the side at negative (-1) or positive (+1) x."""
        return self.left if sign < 0 else self.right


@dataclass(frozen=True, kw_only=True)
class Agent:
    """Something that may move.

    Args:
        meshes: one for each phase of its movement.
        colors: [S,3] of their slots.
        position: (x, z) when the camera is one block away.
        velocity: (x, z), m/s.
        yaw: of the mesh.
        mirror: -1 looks to the left, for flat figures.
        scale: size.
        pace: phases a second.
        size: half width, half length and height of its shadow.
        layer: see `Polygons`.
        block: number of the block it belongs to.
    """

    meshes: tuple[Mesh, ...]
    colors: Floats
    position: tuple[float, float]
    velocity: tuple[float, float] = (0.0, 0.0)
    yaw: float = 0.0
    mirror: float = 1.0
    scale: float = 1.0
    pace: float = 0.0
    size: tuple[float, float, float]
    base: float = 0.0
    layer: float = STREET
    block: int = 0


@dataclass(frozen=True, kw_only=True)
class Block:
    """A stretch of street.

    Args:
        standing: polygons of ground and things that do not move.
        shadows: polygons on the ground that are darkened.
        agents: things that may move.
    """

    standing: Polygons
    shadows: list[Floats]
    agents: list[Agent]


def draw_plan(domain: Domain, seed: int) -> Plan:
    """Draw a street."""
    rng = np.random.default_rng([domain.index, seed])
    box = PaintBox(domain.palette, rng)
    lane = rng.uniform(3.0, 3.5)
    lanes = int(rng.choice((1, 2), p=(0.65, 0.35)))
    sides = []
    lamp_side = rng.integers(3)
    for index in range(2):
        parking = bool(rng.random() < domain.parking)
        verge = rng.uniform(1.2, 2.6) if rng.random() < 0.35 else 0.0
        kerb = lanes * lane + (2.3 if parking else rng.uniform(0.2, 0.8))
        path = kerb + verge
        sides.append(
            Side(
                kerb=kerb,
                path=path,
                front=path + rng.uniform(2.2, 4.5),
                parking=parking,
                trees=bool(rng.random() < domain.tree_row),
                tree_kind=str(rng.choice(furniture.TREE_KINDS, p=(0.6, 0.25, 0.15))),
                lamps=lamp_side in (index, 2),
            )
        )
    overcast = bool(rng.random() < domain.overcast)
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.1)
    direction = (np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth))
    ambient, diffuse = rng.uniform(*domain.ambient), rng.uniform(*domain.diffuse)
    if overcast:
        ambient, diffuse, direction = ambient + 0.6 * diffuse, 0.35 * diffuse, (0.0, 1.0, 0.0)
    light = Light(direction=tuple(float(value) for value in direction), ambient=ambient, diffuse=diffuse)
    tram = "none"
    if rng.random() < domain.tram:
        tram = str(rng.choice(("street", "left", "right")))
    names = (
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
        colors={name: box.color(name) for name in names},
        eye=(rng.integers(lanes) + 0.5) * lane + rng.uniform(-0.3, 0.3),
    )


def build_block(plan: Plan, index: int) -> Block:
    """Draw block number `index` of a street, from z = index * BLOCK on."""
    rng = np.random.default_rng([plan.domain.index, plan.seed, 1000 + index])
    builder = _BlockBuilder(plan, index, rng)
    builder.build()
    return Block(
        standing=concatenate([builder.polygons.build(), *builder.placed]),
        shadows=builder.shadows,
        agents=builder.agents,
    )


def _evenly(rng: np.random.Generator, start: float, end: float, per_hundred: float) -> list[float]:
    """Draw places along [start, end] of the given density, no two too near."""
    count = rng.poisson(max(end - start, 0) * per_hundred / 100)
    if count == 0:
        return []
    gap = (end - start) / count
    return [float(start + gap * (number + rng.uniform(0.1, 0.9))) for number in range(count)]


class _BlockBuilder:
    """Collects one block; every method adds one kind of thing."""

    def __init__(self, plan: Plan, index: int, rng: np.random.Generator) -> None:
        self.plan, self.index, self.rng = plan, index, rng
        self.box = PaintBox(plan.domain.palette, rng)
        self.polygons = PolygonList(plan.light)
        self.placed: list[Polygons] = []
        self.shadows: list[Floats] = []
        self.agents: list[Agent] = []
        self.start, self.end = index * BLOCK, (index + 1) * BLOCK
        self.cross = rng.uniform(8, 12) if rng.random() < plan.domain.crossing else 0.0

    def build(self) -> None:
        """Add everything."""
        self._ground()
        self._markings()
        for sign in (-1, 1):
            self._frontage(sign)
            self._pavement(sign)
            self._walkers(sign)
        if self.cross:
            self._crossing()
        self._traffic()
        self._tram()

    # Ground ---------------------------------------------------------------------------------------------------------

    def _strips(self, x: tuple[float, float], z: tuple[float, float], y: float, color: Floats, surface: int) -> None:
        """Add a flat strip from x[0] to x[1], cut every few metres."""
        count = max(1, round((z[1] - z[0]) / _STRIP))
        edges = np.linspace(z[0], z[1], count + 1)
        quads = np.empty((count, 4, 3), dtype=np.float32)
        quads[:, :, 0] = (x[0], x[1], x[1], x[0])
        quads[:, :, 1] = y
        quads[:, 0, 2] = quads[:, 1, 2] = edges[:-1]
        quads[:, 2, 2] = quads[:, 3, 2] = edges[1:]
        self.polygons.add_many(quads, color, surface, normal=(0, 1, 0), layer=GROUND, key=-1.0)

    def _ground(self) -> None:
        plan, colors = self.plan, self.plan.colors
        along = (self.start, self.end)
        road, walk = code("road", "asphalt"), code("sidewalk", "paving")
        grass = code("terrain", "grass")
        self._strips((-90, 90), along, 0.0, colors["grass"], grass)
        for sign in (-1, 1):
            side = plan.side(sign)
            back = side.front + 0.6
            self._strips((sign * side.path, sign * back), along, _SIDEWALK_HEIGHT, colors["sidewalk"], walk)
            if side.path > side.kerb:
                self._strips((sign * side.kerb, sign * side.path), along, _SIDEWALK_HEIGHT, colors["grass"], grass)
            joints = np.arange(self.start, self.end, 2.0)
            lines = np.empty((len(joints), 4, 3), dtype=np.float32)
            lines[:, :, 0] = (sign * side.path, sign * back, sign * back, sign * side.path)
            lines[:, :, 1] = _SIDEWALK_HEIGHT
            lines[:, :2, 2], lines[:, 2:, 2] = joints[:, None], joints[:, None] + 0.09
            self.polygons.add_many(lines, colors["sidewalk"] * 0.84, walk, normal=(0, 1, 0), layer=GROUND, key=-1.0)
        self._strips((-plan.left.kerb, plan.right.kerb), along, 0.0, colors["asphalt"], road)
        for sign in (-1, 1):
            self._kerb(sign)
        if self.cross:
            until = (self.start, self.start + self.cross)
            self._strips((-90, 90), until, 0.0, colors["asphalt"], road)

    def _kerb(self, sign: int) -> None:
        """Add the upright face of the kerb stone and its top."""
        x, walk = sign * self.plan.side(sign).kerb, code("sidewalk")
        color = self.plan.colors["kerb"]
        edges = np.arange(self.start + self.cross, self.end + 0.1, _STRIP)
        edges[-1] = self.end
        near, far = edges[:-1], edges[1:]
        upright = np.empty((len(near), 4, 3), dtype=np.float32)
        upright[:, :, 0] = x
        upright[:, :, 1] = (0, 0, _SIDEWALK_HEIGHT, _SIDEWALK_HEIGHT)
        upright[:, (0, 3), 2], upright[:, (1, 2), 2] = near[:, None], far[:, None]
        self.polygons.add_many(upright, color * 0.8, walk, normal=(-sign, 0, 0), layer=GROUND, key=-2.0)
        self._strips((x, x + sign * 0.22), (self.start + self.cross, self.end), _SIDEWALK_HEIGHT, color, walk)

    def _markings(self) -> None:
        plan, road = self.plan, code("road")
        color = plan.colors["marking"]
        start = self.start + self.cross
        for line in range(-plan.lanes + 1, plan.lanes):
            solid = line == 0 and plan.lanes == 2
            for z in np.arange(start + 1.0, self.end - 1.0, 3.0 if solid else 6.0):
                self._mark((line * plan.lane - 0.08, line * plan.lane + 0.08), (z, min(z + 3.0, self.end)), color, road)
        for sign in (-1, 1):
            edge = sign * plan.lanes * plan.lane
            if plan.side(sign).parking:
                for z in np.arange(start + 2.0, self.end, 6.0):
                    self._mark((edge, edge + sign * 2.2), (z, z + 0.14), color, road)
            self._strips((edge - 0.06, edge + 0.06), (start, self.end), 0.0, color, road)
        for _ in range(self.rng.poisson(2)):
            x = self.rng.uniform(-plan.left.kerb + 1.5, plan.right.kerb - 1.5)
            z = self.rng.uniform(start, self.end - 3)
            shade = self.plan.colors["asphalt"] * self.rng.uniform(0.82, 0.94)
            self._mark(
                (x, x + self.rng.uniform(0.6, 1.6)), (z, z + self.rng.uniform(0.8, 4)), shade, code("road", "asphalt")
            )

    def _mark(self, x: tuple[float, float], z: tuple[float, float], color: Floats, surface: int) -> None:
        """Add one rectangle on the road."""
        corners = [(x[0], 0, z[0]), (x[1], 0, z[0]), (x[1], 0, z[1]), (x[0], 0, z[1])]
        self.polygons.add(corners, color, surface, normal=(0, 1, 0), layer=GROUND, key=-1.0)

    # What lines the street ------------------------------------------------------------------------------------------

    def _frontage(self, sign: int) -> None:
        plan, rng = self.plan, self.rng
        z = self.start + self.cross + (rng.uniform(0.5, 2) if self.cross else 0.0)
        rails = (plan.tram == "left" and sign < 0) or (plan.tram == "right" and sign > 0)
        offset = plan.side(sign).front + (6.0 if rails else 0.0)
        kinds = list(plan.domain.frontage)
        weights = np.asarray([plan.domain.frontage[kind] for kind in kinds])
        while z < self.end - 3:
            kind = str(rng.choice(kinds, p=weights / weights.sum()))
            length = min(rng.uniform(9, 19), self.end - z)
            if self.end - (z + length) < 5:
                length = self.end - z
            line = Line(sign=sign, x=sign * offset, start=z, end=z + length, base=_SIDEWALK_HEIGHT)
            if kind == "building":
                self._house(line)
            else:
                adders = {"wall": add_wall, "fence": add_fence, "hedge": add_hedge, "open": add_open}
                self._behind(line)
                adders[kind](self.polygons, self.placed, line, self.box, rng, plan.light)
            z += length

    def _house(self, line: Line) -> None:
        height = add_building(self.polygons, line, self.box, self.rng)
        self._cast([(line.x, line.start), (line.x, line.end), (line.x + line.sign * 9, line.end),
                    (line.x + line.sign * 9, line.start)], height)  # fmt: skip

    def _behind(self, line: Line) -> None:
        """Add a house set back, or trees, behind a fence or wall."""
        rng = self.rng
        middle = (line.start + line.end) / 2
        choice = rng.random()
        if choice < 0.4:
            back = rng.uniform(6, 14)
            house = Line(
                sign=line.sign, x=line.x + line.sign * back, start=line.start, end=line.end, base=0.0, behind=0.02
            )
            add_building(self.polygons, house, self.box, rng)
        if choice > 0.25:
            for z in sorted(_evenly(rng, line.start, line.end, 18), reverse=True):
                x = line.x + line.sign * rng.uniform(2.5, 6)
                self._tree(x, z, str(rng.choice(furniture.TREE_KINDS)), layer=FRONTAGE, key=middle + 0.01)

    def _tree(self, x: float, z: float, kind: str, *, layer: float = STREET, key: float | None = None) -> None:
        size = self.rng.uniform(0.75, 1.25)
        mesh = furniture.tree(kind, int(self.rng.integers(furniture.VARIANTS)))
        self.placed.append(
            place(
                mesh,
                self.box.leaves(),
                (x, _SIDEWALK_HEIGHT if layer == STREET else 0.0, z),
                self.plan.light,
                scale=(size * self.rng.choice((-1, 1)), size, 1),
                layer=layer,
                key=z if key is None else key,
            )
        )
        self._cast_round(x, z, 1.9 * size, 4.6 * size)

    # What stands on the pavement ------------------------------------------------------------------------------------

    def _pavement(self, sign: int) -> None:
        plan, rng, side = self.plan, self.rng, self.plan.side(sign)
        start = self.start + self.cross + 1
        edge = sign * (side.kerb + 0.5)
        pole = plan.colors["poles"]
        if side.lamps:
            for z in np.arange(self.start + 18, self.end, 24):
                mesh = furniture.lamp(-sign * 1.8)
                self._stand(mesh, [pole, self.box.near(np.asarray((235, 240, 240)))], edge, z)
                self._cast([(edge - 0.07, z), (edge + 0.07, z)], 6.5)
        if side.trees:
            wide = side.kerb + (side.path - side.kerb) / 2 if side.path > side.kerb else side.kerb + 0.9
            for z in np.arange(start + rng.uniform(2, 6), self.end, rng.uniform(8, 13)):
                self._tree(sign * wide, float(z), side.tree_kind)
        for z in _evenly(rng, start, self.end, plan.domain.signs):
            kind = str(rng.choice(furniture.SIGN_KINDS, p=(0.3, 0.22, 0.22, 0.14, 0.12)))
            self._stand(furniture.sign(kind), self.box.sign(pole, kind), edge + sign * rng.uniform(0, 0.5), z)
        if rng.random() < 0.25:
            for z in np.arange(start, self.end, 3.0):
                self._stand(furniture.bollard(), [pole, self.box.near(np.asarray((230, 230, 235)))], edge, float(z))
        for z in _evenly(rng, start, self.end, plan.domain.parked_bikes):
            kind = people.bicycle if rng.random() < 0.55 else people.motorcycle
            view = "side" if rng.random() < 0.6 else "end"
            x = sign * rng.uniform(side.kerb + 0.6, max(side.kerb + 0.9, side.front - 1.0))
            self.agents.append(
                Agent(meshes=(kind(view),), colors=self.box.person(), position=(x, z), size=(0.5, 0.3, 0.8),
                      base=_SIDEWALK_HEIGHT, mirror=rng.choice((-1, 1)), scale=rng.uniform(1.0, 1.12), block=self.index)
            )  # fmt: skip
        if side.path > side.kerb or rng.random() < 0.2:
            for z in _evenly(rng, start, self.end, 12):
                x = sign * (side.front - 0.2) if side.path == side.kerb else sign * (side.kerb + side.path) / 2
                mesh = furniture.bush(int(rng.integers(furniture.VARIANTS)))
                self._stand(mesh, self.box.leaves(), x, z, scale=rng.uniform(0.6, 1.0))

    def _stand(self, mesh: Mesh, colors: Sequence[Floats] | Floats, x: float, z: float, *, scale: float = 1.0) -> None:
        """Put something on the pavement."""
        position = (x, _SIDEWALK_HEIGHT, z)
        self.placed.append(place(mesh, colors, position, self.plan.light, scale=scale, layer=STREET, key=z))

    def _walkers(self, sign: int) -> None:
        plan, rng, side = self.plan, self.rng, self.plan.side(sign)
        for z in _evenly(rng, self.start + self.cross, self.end, plan.domain.walkers):
            x = sign * rng.uniform(side.path + 0.5, side.front - 0.3)
            for _ in range(2 if rng.random() < 0.25 else 1):
                self._walker(x, z, str(rng.choice(("front", "back", "side", "stand"), p=(0.36, 0.36, 0.16, 0.12))))
                x += rng.choice((-0.6, 0.6))

    def _walker(self, x: float, z: float, view: str, *, base: float = _SIDEWALK_HEIGHT) -> None:
        rng = self.rng
        phase = int(rng.integers(people.PHASES))
        meshes = tuple(people.pedestrian(view, (phase + step) % people.PHASES) for step in range(people.PHASES))
        pace = rng.uniform(1.1, 1.6)
        mirror = float(rng.choice((-1, 1)))
        velocity = {"front": (0, -pace), "back": (0, pace), "side": (mirror * pace, 0), "stand": (0, 0)}[view]
        self.agents.append(
            Agent(meshes=meshes, colors=self.box.person(), position=(x, z), velocity=velocity, mirror=mirror,
                  scale=rng.uniform(0.9, 1.1) if rng.random() > 0.12 else rng.uniform(0.62, 0.75), pace=7.0,
                  size=(0.28, 0.2, 1.7), base=base, block=self.index)
        )  # fmt: skip

    # Cross street ---------------------------------------------------------------------------------------------------

    def _crossing(self) -> None:
        plan, rng, start = self.plan, self.rng, self.start
        color, road = plan.colors["marking"], code("road")
        stripes = np.arange(-plan.left.kerb + 0.3, plan.right.kerb - 0.4, 0.95)
        for near in (start - 3.6, start + self.cross + 0.8):
            for x in stripes:
                self._mark((x, x + 0.5), (near, near + 2.8), color, road)
        self._mark((0.1, plan.lanes * plan.lane), (start - 4.8, start - 4.4), color, road)
        middle = start + self.cross / 2
        for x in np.arange(-80, 80, 6.0):
            if not -plan.left.kerb - 3 < x < plan.right.kerb + 3:
                self._mark((x, x + 3), (middle - 0.08, middle + 0.08), color, road)
        state = int(rng.integers(3))
        for sign in (-1, 1):
            edge = sign * (plan.side(sign).kerb + 0.45)
            reach = -sign * 3.2 if rng.random() < 0.5 else 0.0
            for z in (start - 1.0, start + self.cross + 0.6):
                mesh = furniture.traffic_light(state, reach if z > start else 0.0)
                self._stand(
                    mesh, self.box.traffic_light(plan.colors["poles"], plan.colors["light_boxes"], state), edge, z
                )
        for _ in range(rng.poisson(1.4)):
            self._walker(
                rng.uniform(-plan.left.kerb, plan.right.kerb), start - 2.2 + rng.uniform(-0.8, 0.8), "side", base=0.0
            )
        for _ in range(rng.poisson(0.9)):
            self._crosser(middle)

    def _crosser(self, middle: float) -> None:
        """Add a vehicle or rider on the cross street."""
        rng, sign = self.rng, float(self.rng.choice((-1, 1)))
        x = rng.uniform(-22, 22)
        z = middle - sign * 2.0
        if rng.random() < 0.3:
            self._rider(x, z, "side", sign)
            return
        self._vehicle(x, z, (sign * 4.0, 0.0), sign * np.pi / 2)

    # Traffic --------------------------------------------------------------------------------------------------------

    def _traffic(self) -> None:
        plan, rng = self.plan, self.rng
        start = self.start + self.cross + 2
        for lane in range(-plan.lanes, plan.lanes):
            x = (lane + 0.5) * plan.lane
            ahead = lane >= 0
            if plan.tram == "street" and lane in (-1, 0) and plan.lanes == 2:
                continue
            velocity = (0.0, plan.speed) if ahead else (0.0, -plan.speed)
            for z in self._spaced(start, self.end, plan.domain.traffic, 11):
                if abs(x - plan.eye) < 2 and 0 < z - plan_start(plan) < 7:
                    continue
                self._vehicle(x + rng.uniform(-0.25, 0.25), z, velocity, 0.0 if ahead else np.pi)
            for z in _evenly(rng, start, self.end, plan.domain.riders):
                outer = (1 if ahead else -1) * (plan.lanes * plan.lane - rng.uniform(0.3, 0.8))
                self._rider(outer, z, "back" if ahead else "front", 1 if ahead else -1)
        for sign in (-1, 1):
            side = plan.side(sign)
            if side.parking:
                for z in np.arange(start + 3, self.end - 2, 6.0):
                    if rng.random() < 0.62:
                        yaw = 0.0 if sign > 0 else np.pi
                        self._vehicle(sign * (side.kerb - 1.1), z + rng.uniform(-0.3, 0.3), (0, 0), yaw, parked=True)

    def _spaced(self, start: float, end: float, per_hundred: float, gap: float) -> list[float]:
        """Return places that are at least `gap` metres apart."""
        places: list[float] = []
        for z in _evenly(self.rng, start, end, per_hundred):
            if not places or z - places[-1] > gap:
                places.append(z)
        return places

    def _vehicle(self, x: float, z: float, velocity: tuple[float, float], yaw: float, *, parked: bool = False) -> None:
        rng, weights = self.rng, self.plan.domain.vehicles
        kinds = list(weights)
        shares = np.asarray([weights[kind] for kind in kinds])
        kind = "car" if parked and rng.random() < 0.94 else str(rng.choice(kinds, p=shares / shares.sum()))
        if kind == "car":
            name = str(rng.choice(vehicles.CAR_KINDS, p=(0.32, 0.28, 0.24, 0.16)))
            mesh, colors = vehicles.car(name), self.box.vehicle("paints")
        elif kind == "truck":
            name = "truck"
            mesh, colors = (
                vehicles.truck(str(rng.choice(vehicles.TRUCK_KINDS, p=(0.6, 0.2, 0.2)))),
                self.box.vehicle("paints"),
            )
        else:
            name = "bus"
            mesh, colors = vehicles.bus(), self.box.vehicle("buses")
        if parked and kind != "car":
            velocity = (0.0, 0.0)
        half, length = vehicles.HALF_SIZES[name]
        height = {"truck": 3.2, "bus": 3.0}.get(kind, 1.4)
        limit = self.plan.side(int(np.sign(x)) or 1).front
        self.agents.append(
            Agent(meshes=(mesh,), colors=colors, position=(x, z), velocity=velocity, yaw=yaw + rng.normal(0, 0.015),
                  size=(half, length, height), layer=FRONTAGE if abs(x) > limit - 1 else STREET, block=self.index)
        )  # fmt: skip

    def _rider(self, x: float, z: float, view: str, direction: float) -> None:
        rng = self.rng
        maker = people.cyclist if rng.random() < 0.55 else people.motorcyclist
        phase = int(rng.integers(people.PHASES))
        meshes = tuple(maker(view, (phase + step) % people.PHASES) for step in range(people.PHASES))
        pace = 4.5 if maker is people.cyclist else 7.0
        velocity = (direction * pace, 0.0) if view == "side" else (0.0, direction * pace)
        self.agents.append(
            Agent(meshes=meshes, colors=self.box.person(), position=(x, z), velocity=velocity,
                  mirror=direction if view == "side" else 1.0, scale=rng.uniform(0.98, 1.1), pace=9.0,
                  size=(0.3, 0.8, 1.6), block=self.index)
        )  # fmt: skip

    def _tram(self) -> None:
        plan, rng = self.plan, self.rng
        if plan.tram == "none":
            return
        beside = {"left": -1, "right": 1}.get(plan.tram, 0)
        center = beside * (plan.side(beside).front + 3.4) if beside else -0.5 * plan.lane
        surface = code("terrain", "grass") if beside else code("road")
        steel = self.plan.colors["asphalt"] * 0.7
        if beside:
            bed = plan.colors["sidewalk"] * 0.75
            self._strips((center - 2.2, center + 2.2), (self.start + self.cross, self.end), 0.02, bed, surface)
        for rail in (-0.72, 0.72):
            x = center + rail
            self._strips((x - 0.06, x + 0.06), (self.start, self.end), 0.03, steel, surface)
        if rng.random() < 0.62:
            z = rng.uniform(self.start + 8, self.end)
            half, length = vehicles.HALF_SIZES["train"]
            direction = -1.0 if rng.random() < 0.6 else 1.0
            self.agents.append(
                Agent(meshes=(vehicles.train(),), colors=self.box.vehicle("trains"), position=(center, z + length),
                      velocity=(0.0, 7.0 * direction), yaw=0.0,
                      size=(half, length, 3.0), layer=FRONTAGE if beside else STREET, block=self.index)
            )  # fmt: skip

    # Shadows --------------------------------------------------------------------------------------------------------

    def _cast(self, base: Sequence[tuple[float, float]], height: float) -> None:
        """Darken the ground where the sun does not reach behind an upright thing with the given footprint."""
        if not self.plan.overcast:
            self.shadows.append(shadow_outline(base, height, self.plan.light))

    def _cast_round(self, x: float, z: float, radius: float, height: float) -> None:
        """Darken the ground below or behind a crown."""
        if self.plan.overcast:
            shift_x = shift_z = 0.0
        else:
            shift_x, shift_z = shadow_shift(height, self.plan.light)
            self.shadows.append(shadow_outline([(x - 0.15, z), (x + 0.15, z)], height, self.plan.light))
        angles = np.arange(10) * (2 * np.pi / 10)
        outline = np.stack((x + shift_x + radius * np.cos(angles), z + shift_z + radius * np.sin(angles)), axis=1)
        self.shadows.append(outline.astype(np.float32))


def plan_start(plan: Plan) -> float:
    """Return the camera's z when a clip of this street starts."""
    return 4.0 + 24.0 * ((plan.seed * 0.6180339887) % 1.0)


def shadow_shift(height: float, light: Light) -> tuple[float, float]:
    """Return how far (x, z) the shadow of a point lies from it."""
    x, y, z = light.direction
    return -x / y * height, -z / y * height


def shadow_outline(base: Sequence[tuple[float, float]], height: float, light: Light) -> Floats:
    """Return the convex outline [n,2] of the shadow of an upright thing over its footprint (x, z)."""
    foot = np.asarray(base, dtype=np.float32)
    moved = foot + np.asarray(shadow_shift(height, light), dtype=np.float32)
    hull: NDArray[np.float32] = cv2.convexHull(np.concatenate((foot, moved)))[:, 0]
    return hull


def place_agent(agent: Agent, time: float, plan: Plan) -> tuple[Polygons, Floats]:
    """Return an agent's polygons and the outline of its shadow `time` seconds after its block came near."""
    mesh = agent.meshes[int(time * agent.pace) % len(agent.meshes)]
    x, z = agent.position[0] + agent.velocity[0] * time, agent.position[1] + agent.velocity[1] * time
    half, length, height = agent.size
    turned = abs(np.sin(agent.yaw)) > 0.5
    across, along = (length, half) if turned else (half, length)
    scale = (agent.scale * agent.mirror, agent.scale, agent.scale)
    polygons = place(
        mesh, agent.colors, (x, agent.base, z), plan.light, yaw=agent.yaw, scale=scale, layer=agent.layer, key=z - along
    )
    foot = [(x - across, z - along), (x + across, z - along), (x + across, z + along), (x - across, z + along)]
    return polygons, shadow_outline(foot, 0.0 if plan.overcast else height, plan.light)


def backdrop(plan: Plan, position: float) -> Polygons:
    """Return the skyline far ahead of a camera at z = `position`."""
    rng = np.random.default_rng([plan.domain.index, plan.seed, 7])
    box = PaintBox(plan.domain.palette, rng)
    polygons = PolygonList(plan.light)
    z = position + 190
    leaves = box.leaves()
    x = -260.0
    while x < 260:
        wide = rng.uniform(7, 20)
        if rng.random() < 0.4:
            top = rng.uniform(8, 22)
            corners = [(x, -4, z), (x + wide, -4, z), (x + wide, top, z), (x, top, z)]
            polygons.add(corners, box.color("facades"), code("building", "plaster"), layer=BACKDROP, key=z)
        else:
            top = rng.uniform(5, 12)
            angles = np.linspace(0, np.pi, 8)
            outline = [(x + wide / 2 + wide * 0.75 * np.cos(a), top * (0.6 + 0.4 * np.sin(a)), z) for a in angles]
            corners = [*outline, (x - wide * 0.25, -4, z), (x + wide * 1.25, -4, z)]
            shade = leaves[int(rng.integers(1, 3))]
            polygons.add(corners, shade, code("vegetation", "leaves"), layer=BACKDROP, key=z)
        x += wide
    return polygons.build()
