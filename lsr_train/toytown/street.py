"""The grammar: what a street is made of, block by block, in either domain.

A street is endless. Its plan (lanes, pavements, weather, what lines it) is drawn once from the scene's seed; each block
of `BLOCK` metres is drawn from the seed and its number, so that a block looks the same whenever a camera comes by.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lsr_train.toytown import furniture
from lsr_train.toytown.agents import Agent, AgentMaker
from lsr_train.toytown.frontage import Line, add_building, add_fence, add_hedge, add_open, add_wall
from lsr_train.toytown.geometry import Floats, Mesh, Placed, Polygons, concatenate, place_all
from lsr_train.toytown.paint_box import PaintBox
from lsr_train.toytown.plan import Plan, choose, evenly
from lsr_train.toytown.polygon_list import BACKDROP, FRONTAGE, GROUND, STREET, PolygonList
from lsr_train.toytown.shadows import ShadowBox, ShadowRound, outlines
from lsr_train.toytown.surfaces import code

__all__ = ["BLOCK", "Block", "backdrop", "build_block", "convoy"]

BLOCK = 48.0
"""Length of a block in metres."""

_SIDEWALK_HEIGHT = 0.13
_STRIP = 6.0  # metres of ground a polygon, so that a bending street looks bent
_TREES = dict.fromkeys(furniture.TREE_KINDS, 1.0)
_SIGNS = dict(zip(furniture.SIGN_KINDS, (0.3, 0.22, 0.22, 0.14, 0.12), strict=True))


@dataclass(frozen=True, kw_only=True)
class Block:
    """A stretch of street.

    Args:
        standing: polygons of ground and things that do not move.
        shadows: outlines on the ground, as `shadows.outlines` returns them.
        agents: things that may move.
    """

    standing: Polygons
    shadows: tuple[Floats, Floats]
    agents: tuple[Agent, ...]


def build_block(plan: Plan, index: int) -> Block:
    """Draw block number `index` of a street, from z = index * BLOCK on."""
    rng = np.random.default_rng([plan.domain.index, plan.seed, 1000 + index])
    builder = _BlockBuilder(plan, index, rng)
    builder.build()
    standing = [builder.polygons.build(), place_all(builder.placed, plan.light)]
    shapes = outlines(builder.boxes, builder.rounds, plan.light, overcast=plan.overcast)
    return Block(standing=concatenate(standing), shadows=shapes, agents=tuple(builder.agents))


class _BlockBuilder:
    """Collects one block; every method adds one kind of thing."""

    def __init__(self, plan: Plan, index: int, rng: np.random.Generator) -> None:
        self.plan, self.index, self.rng = plan, index, rng
        self.box = PaintBox(plan.domain.palette, rng)
        self.polygons = PolygonList(plan.light)
        self.maker = AgentMaker(plan, rng)
        self.placed: list[Placed] = []
        self.boxes: list[ShadowBox] = []
        self.rounds: list[ShadowRound] = []
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
        while z < self.end - 3:
            kind = choose(rng, plan.domain.frontage)
            length = min(rng.uniform(9, 19), self.end - z)
            if self.end - (z + length) < 5:
                length = self.end - z
            line = Line(sign=sign, x=sign * offset, start=z, end=z + length, base=_SIDEWALK_HEIGHT)
            if kind == "building":
                self._house(line)
            else:
                adders = {"wall": add_wall, "fence": add_fence, "hedge": add_hedge, "open": add_open}
                self._behind(line)
                adders[kind](self.polygons, self.placed, line, self.box, rng)
            z += length

    def _house(self, line: Line) -> None:
        """Add a house and its shadow."""
        height = add_building(self.polygons, line, self.box, self.rng)
        if not self.plan.overcast:
            middle, half = (line.start + line.end) / 2, (line.end - line.start) / 2
            self.boxes.append((line.x + line.sign * 5, middle, 5.0, half, height))

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
            for z in sorted(evenly(rng, line.start, line.end, 18), reverse=True):
                x = line.x + line.sign * rng.uniform(2.5, 6)
                self._tree(x, z, choose(rng, _TREES), layer=FRONTAGE, key=middle + 0.01)

    def _tree(self, x: float, z: float, kind: str, *, layer: float = STREET, key: float | None = None) -> None:
        size = self.rng.uniform(0.75, 1.25)
        self.placed.append(
            Placed(
                mesh=furniture.tree(kind, int(self.rng.integers(furniture.VARIANTS))),
                colors=self.box.leaves(),
                position=(x, _SIDEWALK_HEIGHT if layer == STREET else 0.0, z),
                scale=(size if self.rng.random() < 0.5 else -size, size, 1.0),
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
                self._stand(mesh, [pole, *self.box.near([(235, 240, 240)])], edge, z)
                if not plan.overcast:
                    self.boxes.append((edge, float(z), 0.07, 0.07, 6.5))
        if side.trees:
            wide = side.kerb + (side.path - side.kerb) / 2 if side.path > side.kerb else side.kerb + 0.9
            for z in np.arange(start + rng.uniform(2, 6), self.end, rng.uniform(8, 13)):
                self._tree(sign * wide, float(z), side.tree_kind)
        for z in evenly(rng, start, self.end, plan.domain.signs):
            kind = choose(rng, _SIGNS)
            self._stand(furniture.sign(kind), self.box.sign(pole, kind), edge + sign * rng.uniform(0, 0.5), z)
        if rng.random() < 0.25:
            for z in np.arange(start, self.end, 3.0):
                self._stand(furniture.bollard(), [pole, *self.box.near([(230, 230, 235)])], edge, float(z))
        for z in evenly(rng, start, self.end, plan.domain.parked_bikes):
            x = sign * rng.uniform(side.kerb + 0.6, max(side.kerb + 0.9, side.front - 1.0))
            self.agents.append(self.maker.parked_bike(x, z, base=_SIDEWALK_HEIGHT))
        if side.path > side.kerb or rng.random() < 0.2:
            for z in evenly(rng, start, self.end, 12):
                x = sign * (side.front - 0.2) if side.path == side.kerb else sign * (side.kerb + side.path) / 2
                mesh = furniture.bush(int(rng.integers(furniture.VARIANTS)))
                self._stand(mesh, self.box.leaves(), x, z, size=rng.uniform(0.6, 1.0))

    def _stand(self, mesh: Mesh, colors: Sequence[Floats] | Floats, x: float, z: float, *, size: float = 1.0) -> None:
        """Put something on the pavement."""
        self.placed.append(
            Placed(
                mesh=mesh,
                colors=np.asarray(colors, dtype=np.float32),
                position=(x, _SIDEWALK_HEIGHT, z),
                scale=(size, size, size),
                layer=STREET,
                key=z,
            )
        )

    def _walkers(self, sign: int) -> None:
        """Add people on the pavement, some of them in pairs."""
        plan, rng, side = self.plan, self.rng, self.plan.side(sign)
        for z in evenly(rng, self.start + self.cross, self.end, plan.domain.walkers):
            x = sign * rng.uniform(side.path + 0.5, side.front - 0.3)
            self.agents.append(self.maker.walker(x, z, base=_SIDEWALK_HEIGHT))
            if rng.random() < 0.25:
                self.agents.append(self.maker.walker(x + 0.6, z + 0.1, base=_SIDEWALK_HEIGHT))

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
            x, z = rng.uniform(-plan.left.kerb, plan.right.kerb), start - 2.2 + rng.uniform(-0.8, 0.8)
            self.agents.append(self.maker.walker(x, z, base=0.0, view="side"))
        for _ in range(rng.poisson(0.9)):
            sign = 1 if rng.random() < 0.5 else -1
            x, z = rng.uniform(-22, 22), middle - sign * 2.0
            if rng.random() < 0.3:
                self.agents.append(self.maker.rider(x, z, "side", sign))
            else:
                self._vehicle(x, z, (sign * 4.0, 0.0), sign * np.pi / 2)

    # Traffic --------------------------------------------------------------------------------------------------------

    def _traffic(self) -> None:
        """Add what comes towards the camera, riders, and parked cars; `convoy` has what drives ahead."""
        plan, rng = self.plan, self.rng
        start = self.start + self.cross + 2
        for lane in range(-plan.lanes, plan.lanes):
            ahead = lane >= 0
            taken = plan.tram == "street" and lane == -1
            if not ahead and not taken:
                x = (lane + 0.5) * plan.lane
                for z in _spaced(evenly(rng, start, self.end, plan.domain.traffic), 11):
                    self._vehicle(x + rng.uniform(-0.25, 0.25), z, (0.0, -plan.speed), np.pi)
            if lane in (-plan.lanes, plan.lanes - 1):
                direction = 1 if ahead else -1
                for z in evenly(rng, start, self.end, plan.domain.riders):
                    x = direction * (plan.lanes * plan.lane - rng.uniform(0.3, 0.8))
                    self.agents.append(self.maker.rider(x, z, "back" if ahead else "front", direction))
        for sign in (-1, 1):
            side = plan.side(sign)
            if side.parking:
                for z in np.arange(start + 3, self.end - 2, 6.0):
                    if rng.random() < 0.62:
                        yaw = 0.0 if sign > 0 else np.pi
                        place = float(z) + rng.uniform(-0.3, 0.3)
                        self._vehicle(sign * (side.kerb - 1.1), place, (0.0, 0.0), yaw, parked=True)

    def _vehicle(self, x: float, z: float, velocity: tuple[float, float], yaw: float, *, parked: bool = False) -> None:
        """Add a vehicle."""
        self.agents.append(self.maker.vehicle(x, z, velocity=velocity, yaw=yaw, parked=parked))

    def _tram(self) -> None:
        """Add rails, and perhaps a tram on them."""
        plan, rng = self.plan, self.rng
        if plan.tram == "none":
            return
        beside = {"left": -1, "right": 1}.get(plan.tram, 0)
        center = beside * (plan.side(beside).front + 3.4) if beside else -0.5 * plan.lane
        surface = code("terrain", "grass") if beside else code("road")
        steel = plan.colors["asphalt"] * 0.7
        if beside:
            bed = plan.colors["sidewalk"] * 0.75
            self._strips((center - 2.2, center + 2.2), (self.start + self.cross, self.end), 0.02, bed, surface)
        for rail in (-0.72, 0.72):
            x = center + rail
            self._strips((x - 0.06, x + 0.06), (self.start, self.end), 0.03, steel, surface)
        if rng.random() < 0.62:
            z = rng.uniform(self.start + 8, self.end)
            speed = 7.0 if rng.random() < 0.4 else -7.0
            self.agents.append(self.maker.tram(center, z, speed=speed, beside=bool(beside)))

    # Shadows --------------------------------------------------------------------------------------------------------

    def _cast_round(self, x: float, z: float, radius: float, height: float) -> None:
        """Darken the ground below or behind a crown, and along its trunk."""
        self.rounds.append((x, z, radius, height))
        if not self.plan.overcast:
            self.boxes.append((x, z, 0.15, 0.1, height))


def _spaced(places: Sequence[float], gap: float) -> list[float]:
    """Return those of rising `places` that are at least `gap` metres from the last one kept."""
    kept: list[float] = []
    for place in places:
        if not kept or place - kept[-1] > gap:
            kept.append(place)
    return kept


def convoy(plan: Plan) -> list[Agent]:
    """Draw the vehicles that drive ahead of the camera at its own speed, for the whole of a clip."""
    rng = np.random.default_rng([plan.domain.index, plan.seed, 6])
    maker = AgentMaker(plan, rng)
    agents = []
    for lane in range(plan.lanes):
        x = (lane + 0.5) * plan.lane
        own = abs(x - plan.eye) < 1.5
        for gap in _spaced(evenly(rng, 10.0 if own else 4.0, 130.0, plan.domain.traffic), 11):
            place = (x + rng.uniform(-0.25, 0.25), plan.start + gap + (4.0 if own else 0.0))
            agents.append(maker.vehicle(*place, velocity=(0.0, plan.speed), yaw=0.0))
    return agents


def backdrop(plan: Plan, position: float) -> Polygons:
    """Return the skyline far ahead of a camera at z = `position`."""
    rng = np.random.default_rng([plan.domain.index, plan.seed, 7])
    box = PaintBox(plan.domain.palette, rng)
    polygons = PolygonList(plan.light)
    z = position + 170
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
