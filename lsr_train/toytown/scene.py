"""Frames with labels: one of a scene, or a clip that drives through it."""

from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_train.toytown.domains import DOMAINS, Domain
from lsr_train.toytown.geometry import Camera, Floats, Placed, Polygons, concatenate, paint, place_all
from lsr_train.toytown.plan import draw_plan
from lsr_train.toytown.polygon_list import GROUND
from lsr_train.toytown.sensor import draw_exposure, expose, sky, texture
from lsr_train.toytown.shadows import ShadowBox, darken, outlines
from lsr_train.toytown.street import BLOCK, Block, backdrop, build_block, convoy
from lsr_train.toytown.surfaces import code

__all__ = ["Scene", "clip", "render"]

_SAMPLES = 2  # each way in a pixel; the label is that of one of them
_AHEAD = 125.0  # metres of street that are built
_LABEL_BITS = 0b11111


def render(domain: str, seed: int, *, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Paint one frame of a street.

    Args:
        domain: "game" or "camera".
        seed: the number of the scene, 0 or more. The same number in the other domain is another street.
        height: in pixels, at least 16.
        width: in pixels, at least 16. The field of view across is the same at every size.

    Returns:
        The frame [height,width,3] uint8, blue, green, red, and its labels [height,width] uint8, Cityscapes train ids
        0..18 at every pixel. The same arguments give the same bytes.

    Raises:
        ValueError: there is no such domain, the seed is negative or the size too small.
    """
    return Scene(domain, seed).frame(0.0, height=height, width=width)


def clip(
    domain: str, seed: int, *, frames: int, fps: float, height: int, width: int
) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """Drive through a street; the first frame is that of `render`.

    Args:
        domain: "game" or "camera".
        seed: the number of the scene.
        frames: how many.
        fps: frames a second; the camera moves at 7 to 11 m/s.
        height: in pixels.
        width: in pixels.

    Yields:
        Frames and labels as `render` returns them.

    Raises:
        ValueError: as `render`, or `frames` is negative or `fps` not positive.
    """
    if frames < 0 or not fps > 0:
        raise ValueError(f"frames is {frames} and fps {fps}; allowed: frames >= 0, fps > 0.")
    scene = Scene(domain, seed)
    return (scene.frame(number / fps, height=height, width=width) for number in range(frames))


class Scene:
    """A street and the camera that drives through it.

    Args:
        domain: "game" or "camera".
        seed: the number of the scene, 0 or more.

    Raises:
        ValueError: there is no such domain, or the seed is negative.
    """

    def __init__(self, domain: str, seed: int) -> None:
        if domain not in DOMAINS:
            raise ValueError(f"domain is {domain!r}; allowed: {', '.join(DOMAINS)}.")
        if seed < 0:
            raise ValueError(f"seed is {seed}; allowed: 0 or more.")
        self._domain: Domain = DOMAINS[domain]
        self._seed = (self._domain.index, int(seed))
        self._plan = draw_plan(self._domain, int(seed))
        self._exposure = draw_exposure(self._domain.sensor, self._seed)
        self._block = lru_cache(maxsize=8)(self._build)
        self._convoy = convoy(self._plan)
        rng = np.random.default_rng([*self._seed, 2])
        self._eye = float(rng.uniform(*self._domain.height))
        self._pitch = float(rng.uniform(*self._domain.pitch))
        self._focal = float(rng.uniform(*self._domain.focal))
        self._yaw = float(rng.normal(0, 0.03))
        self._bend, self._bend_phase = float(rng.normal(0, 0.0015)), float(rng.uniform(0, 2 * np.pi))
        self._rise = float(rng.uniform(-0.00005, 0.0003))

    def _build(self, index: int) -> Block:
        return build_block(self._plan, index)

    def camera(self, time: float) -> Camera:
        """Return where the camera is `time` seconds after the start."""
        sway = 0.004 * np.sin(2.1 * time) * (time > 0)
        return Camera(
            position=(self._plan.eye, self._eye, self._plan.start + self._plan.speed * time),
            pitch=self._pitch + sway,
            yaw=self._yaw,
            focal=self._focal,
            bend=float(self._bend * np.cos(0.12 * time)),
            rise=self._rise,
        )

    def frame(self, time: float, *, height: int, width: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Paint the frame `time` seconds after the start; see `render`."""
        if height < 16 or width < 16:
            raise ValueError(f"the size is {width}x{height}; allowed: 16x16 or more.")
        camera, plan, exposure = self.camera(time), self._plan, self._exposure
        canvas = self._sky(camera, height * _SAMPLES, width * _SAMPLES)
        polygons, shadows = self._things(camera, time)
        haze, fog = exposure.haze, plan.colors["sky_bottom"] * 0.96
        on_ground = polygons.layers == GROUND
        paint(canvas, polygons.select(on_ground), camera, haze=haze, haze_color=fog)
        darken(canvas, shadows, camera, 1 - plan.shadow, soft=plan.overcast)
        paint(canvas, polygons.select(~on_ground), camera, haze=haze, haze_color=fog)

        offset = _SAMPLES // 2
        codes: NDArray[np.uint8] = np.ascontiguousarray(canvas[offset::_SAMPLES, offset::_SAMPLES, 3])
        labels = (codes & _LABEL_BITS).astype(np.uint8)
        frame = cv2.resize(canvas[:, :, :3], (width, height), interpolation=cv2.INTER_AREA)
        image = frame.astype(np.float32)
        if exposure.texture:
            fronts = (-plan.left.front, plan.right.front)
            image = texture(image, (codes >> 5).astype(np.uint8), camera, fronts, exposure.texture)
        noise = np.random.default_rng([*self._seed, 5, round(time * 1000)])
        return expose(image, exposure, noise), labels

    def _sky(self, camera: Camera, height: int, width: int) -> NDArray[np.uint8]:
        """Return a canvas with nothing but sky."""
        horizon = height / 2 - camera.focal * width * np.tan(camera.pitch)
        canvas = np.empty((height, width, 4), dtype=np.uint8)
        softness = self._domain.sensor.cloud_softness
        small = sky(
            (height // 4, width // 4), horizon / 4, self._plan.colors, softness, self._seed, grey=self._plan.overcast
        )
        canvas[:, :, :3] = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        canvas[:, :, 3] = code("sky", "sky")
        return canvas

    def _things(self, camera: Camera, time: float) -> tuple[Polygons, list[Floats]]:
        """Return everything near the camera, and the outlines of the shadows."""
        plan, here = self._plan, camera.position[2]
        standing = [backdrop(plan, here)]
        shapes: list[Floats] = []
        moving = [(agent, time) for agent in self._convoy]
        for index in range(max(0, int((here - 12) // BLOCK)), int((here + _AHEAD) // BLOCK) + 1):
            block = self._block(index)
            standing.append(block.standing)
            shapes.extend(block.shadows)
            # Things start to move when the camera is as near as it is to the first blocks at the start.
            local = time - max(0.0, (index * BLOCK - _AHEAD - plan.start) / plan.speed)
            moving.extend((agent, local) for agent in block.agents)
        things: list[Placed] = []
        boxes: list[ShadowBox] = []
        for agent, local in moving:
            thing, box = agent.at(local)
            if _clear(box, camera):
                things.append(thing)
                boxes.append(box if not plan.overcast else (*box[:4], 0.0))
        shapes.append(outlines(boxes, [], plan.light, overcast=plan.overcast)[0])
        return concatenate([*standing, place_all(things, plan.light)] if things else standing), shapes


def _clear(box: ShadowBox, camera: Camera) -> bool:
    """Tell whether something is before the camera and not in its way."""
    x, z, half, length, _ = box
    eye, _, here = camera.position
    if z + length < here + 1.5 or z - length > here + _AHEAD:
        return False
    in_the_way = abs(x - eye) < half + 1.0
    return z - length > here + (5.5 if in_the_way else 1.5) or (not in_the_way and length > 1.5)
