"""Frames with labels: one of a scene, or a clip that drives through it."""

from collections.abc import Iterator
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_train.data.toytown.domains import DOMAINS, Domain
from lsr_train.data.toytown.geometry import Camera, Floats, Polygons, concatenate, paint
from lsr_train.data.toytown.polygon_list import GROUND
from lsr_train.data.toytown.sensor import draw_exposure, expose, sky, texture
from lsr_train.data.toytown.street import BLOCK, Block, backdrop, build_block, draw_plan, place_agent, plan_start
from lsr_train.data.toytown.surfaces import code

__all__ = ["Scene", "clip", "render"]

_SAMPLES = 2  # each way in a pixel; the label is that of one of them
_AHEAD = 175.0  # metres of street that are built
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
            position=(self._plan.eye, self._eye, plan_start(self._plan) + self._plan.speed * time),
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
        fog = {"haze": exposure.haze, "haze_color": plan.colors["sky_bottom"] * 0.96}
        on_ground = polygons.layers == GROUND
        paint(canvas, polygons.select(on_ground), camera, **fog)
        self._darken(canvas, shadows, camera)
        paint(canvas, polygons.select(~on_ground), camera, **fog)

        offset = _SAMPLES // 2
        codes = np.ascontiguousarray(canvas[offset::_SAMPLES, offset::_SAMPLES, 3])
        labels = codes & _LABEL_BITS
        frame = cv2.resize(canvas[:, :, :3], (width, height), interpolation=cv2.INTER_AREA)
        image = frame.astype(np.float32)
        if exposure.texture:
            fronts = (-plan.left.front, plan.right.front)
            image = texture(image, codes >> 5, camera, fronts, exposure.texture)
        noise = np.random.default_rng([*self._seed, 5, round(time * 1000)])
        return expose(image, exposure, noise), labels

    def _sky(self, camera: Camera, height: int, width: int) -> NDArray[np.uint8]:
        """Return a canvas with nothing but sky."""
        horizon = height / 2 - camera.focal * width * np.tan(camera.pitch)
        canvas = np.empty((height, width, 4), dtype=np.uint8)
        softness = self._domain.sensor.cloud_softness
        canvas[:, :, :3] = sky(
            height, width, horizon, self._plan.colors, softness, self._seed, grey=self._plan.overcast
        )
        canvas[:, :, 3] = code("sky", "sky")
        return canvas

    def _things(self, camera: Camera, time: float) -> tuple[Polygons, list[Floats]]:
        """Return everything near the camera, and the outlines of the shadows."""
        plan, start = self._plan, plan_start(self._plan)
        here = camera.position[2]
        parts = [backdrop(plan, here)]
        shadows: list[Floats] = []
        for index in range(int((here - 30) // BLOCK), int((here + _AHEAD) // BLOCK) + 1):
            block = self._block(index)
            parts.append(block.standing)
            shadows.extend(block.shadows)
            # Things start to move when the camera is as near as it is to the first blocks at the start.
            local = time - max(0.0, (index * BLOCK - _AHEAD - start) / plan.speed)
            for agent in block.agents:
                polygons, shadow = place_agent(agent, local, plan)
                if shadow[:, 1].max() > here + 1.0 and _clear(polygons, camera):
                    parts.append(polygons)
                    shadows.append(shadow)
        return concatenate(parts), shadows

    def _darken(self, canvas: NDArray[np.uint8], shadows: list[Floats], camera: Camera) -> None:
        """Take light from the ground below `shadows`."""
        height, width = canvas.shape[:2]
        light = np.full((height, width), 255, dtype=np.uint8)
        shade = int(255 * (1 - self._plan.shadow))
        for outline in shadows:
            points = np.zeros((len(outline), 3), dtype=np.float32)
            points[:, (0, 2)] = outline
            pixels, depths = camera.project(points, height, width)
            if depths.max() > 0.6:
                corners = np.rint(np.clip(pixels - 0.5, -(1 << 20), 1 << 20) * 8).astype(np.int32)
                cv2.fillConvexPoly(light, corners, shade, cv2.LINE_8, 3)
        if self._plan.overcast:
            light = cv2.blur(light, (2 * (width // 128) + 1, 2 * (width // 256) + 1))
        whole = np.full_like(light, 255)
        cv2.multiply(canvas, cv2.merge((light, light, light, whole)), dst=canvas, scale=1 / 255)


def _clear(polygons: Polygons, camera: Camera) -> bool:
    """Tell whether something does not stand in the camera's way."""
    low, high = polygons.vertices.min(axis=(0, 1)), polygons.vertices.max(axis=(0, 1))
    x, _, z = camera.position
    in_lane = low[0] < x + 1.0 and high[0] > x - 1.0
    gap = 5.5 if in_lane else 1.5
    return bool(low[2] > z + gap or (high[2] > z + 2 and not in_lane and high[2] - low[2] > 3))
