"""Who and what may move: people, riders, vehicles and trams."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lsr_train.toytown import people, vehicles
from lsr_train.toytown.geometry import Floats, Mesh, Placed
from lsr_train.toytown.paint_box import PaintBox
from lsr_train.toytown.plan import Plan, choose
from lsr_train.toytown.polygon_list import FRONTAGE, STREET
from lsr_train.toytown.shadows import ShadowBox

__all__ = ["Agent", "AgentMaker"]

_CARS = dict(zip(vehicles.CAR_KINDS, (0.32, 0.28, 0.24, 0.16), strict=True))
_TRUCKS = dict(zip(vehicles.TRUCK_KINDS, (0.6, 0.2, 0.2), strict=True))
_HEIGHTS = {"truck": 3.2, "bus": 3.0, "train": 3.2}
_VIEWS = {"front": 0.36, "back": 0.36, "side": 0.16, "stand": 0.12}


@dataclass(frozen=True, kw_only=True)
class Agent:
    """Something that may move.

    Args:
        meshes: one for each phase of its movement.
        colors: [S,3] of their slots.
        position: (x, z) at its time 0.
        velocity: (x, z), m/s.
        yaw: of the mesh.
        mirror: -1 looks to the left, for flat figures.
        scale: size.
        pace: phases a second.
        size: half width, half length and height of its shadow, before it is turned.
        base: height of the ground it stands on.
        layer: see `Polygons`.
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

    def at(self, time: float) -> tuple[Placed, ShadowBox]:
        """Return what is to be painted at its time `time`, and what casts its shadow."""
        mesh = self.meshes[int(time * self.pace) % len(self.meshes)]
        x, z = self.position[0] + self.velocity[0] * time, self.position[1] + self.velocity[1] * time
        half, length, height = self.size
        across, along = (length, half) if abs(np.sin(self.yaw)) > 0.5 else (half, length)
        placed = Placed(
            mesh=mesh,
            colors=self.colors,
            position=(x, self.base, z),
            yaw=self.yaw,
            scale=(self.scale * self.mirror, self.scale, self.scale),
            layer=self.layer,
            key=z - along,
        )
        return placed, (x, z, across, along, height)


class AgentMaker:
    """Draws agents of a street."""

    def __init__(self, plan: Plan, rng: np.random.Generator) -> None:
        self._plan, self._rng, self._box = plan, rng, PaintBox(plan.domain.palette, rng)

    def _sign(self) -> float:
        return 1.0 if self._rng.random() < 0.5 else -1.0

    def _phases(self, meshes: Sequence[Mesh]) -> tuple[Mesh, ...]:
        """Return the meshes of a stride from a random one on."""
        first = int(self._rng.integers(people.PHASES))
        return (*meshes[first:], *meshes[:first])

    def walker(self, x: float, z: float, *, base: float, view: str = "") -> Agent:
        """Draw somebody on foot, some of them children."""
        rng = self._rng
        view = view or choose(rng, _VIEWS)
        pace, mirror = rng.uniform(1.1, 1.6), self._sign()
        velocity = {"front": (0.0, -pace), "back": (0.0, pace), "side": (mirror * pace, 0.0), "stand": (0.0, 0.0)}[view]
        return Agent(
            meshes=self._phases([people.pedestrian(view, phase) for phase in range(people.PHASES)]),
            colors=self._box.person(),
            position=(x, z),
            velocity=velocity,
            mirror=mirror,
            scale=rng.uniform(0.9, 1.1) if rng.random() > 0.12 else rng.uniform(0.62, 0.75),
            pace=7.0,
            size=(0.28, 0.2, 1.7),
            base=base,
        )

    def parked_bike(self, x: float, z: float, *, base: float) -> Agent:
        """Draw a bicycle or motorcycle that nobody rides."""
        rng = self._rng
        kind = people.bicycle if rng.random() < 0.55 else people.motorcycle
        mesh = kind("side" if rng.random() < 0.65 else "end")
        scale, mirror = rng.uniform(1.0, 1.12), self._sign()
        return Agent(
            meshes=(mesh,),
            colors=self._box.person(),
            position=(x, z),
            mirror=mirror,
            scale=scale,
            size=(0.5, 0.3, 0.8),
            base=base,
        )

    def rider(self, x: float, z: float, view: str, direction: float) -> Agent:
        """Draw somebody on a bicycle or motorcycle; `direction` is the sign of its movement."""
        rng = self._rng
        maker, speed = (people.cyclist, 4.5) if rng.random() < 0.55 else (people.motorcyclist, 6.5)
        side = view == "side"
        return Agent(
            meshes=self._phases([maker(view, phase) for phase in range(people.PHASES)]),
            colors=self._box.person(),
            position=(x, z),
            velocity=(direction * speed, 0.0) if side else (0.0, direction * speed),
            mirror=direction if side else 1.0,
            scale=rng.uniform(0.98, 1.1),
            pace=9.0,
            size=(0.8, 0.3, 1.6) if side else (0.3, 0.8, 1.6),
        )

    def vehicle(self, x: float, z: float, *, velocity: tuple[float, float], yaw: float, parked: bool = False) -> Agent:
        """Draw a car, a truck or a bus; parked ones are nearly always cars."""
        rng = self._rng
        kind = "car" if parked and rng.random() < 0.94 else choose(rng, self._plan.domain.vehicles)
        if kind == "car":
            name = choose(rng, _CARS)
            mesh, colors = vehicles.car(name), self._box.vehicle("paints")
        elif kind == "truck":
            name = kind
            mesh, colors = (
                vehicles.truck(choose(rng, _TRUCKS), coming=float(np.cos(yaw)) < 0),
                self._box.vehicle("paints"),
            )
        else:
            name = kind
            mesh, colors = vehicles.bus(), self._box.vehicle("buses")
        half, length = vehicles.HALF_SIZES[name]
        limit = self._plan.side(-1 if x < 0 else 1).front
        return Agent(
            meshes=(mesh,),
            colors=colors,
            position=(x, z),
            velocity=velocity,
            yaw=yaw + rng.normal(0, 0.015),
            size=(half, length, _HEIGHTS.get(name, 1.4)),
            layer=FRONTAGE if abs(x) > limit - 1 else STREET,
        )

    def tram(self, x: float, z: float, *, speed: float, beside: bool) -> Agent:
        """Draw a tram whose near end is at `z`."""
        half, length = vehicles.HALF_SIZES["train"]
        return Agent(
            meshes=(vehicles.train(),),
            colors=self._box.vehicle("trains"),
            position=(x, z + length),
            velocity=(0.0, speed),
            size=(half, length, _HEIGHTS["train"]),
            layer=FRONTAGE if beside else STREET,
        )
