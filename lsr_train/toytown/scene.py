"""Renders frames with labels: one of a scene, or a clip that drives through it.

Two samples each way are painted in a pixel, its label is that of one of them. Textures, lens and sensor work on the
frame alone; the game domain's sensor changes nothing.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache, lru_cache
from typing import Final

import cv2
import numpy as np

from lsr_train.toytown.domains import DOMAINS
from lsr_train.toytown.geometry import (
    Bytes,
    Camera,
    Floats,
    Placed,
    Polygons,
    concatenate,
    darken,
    paint,
    place,
    shadows,
)
from lsr_train.toytown.objects import MATERIALS, code
from lsr_train.toytown.street import BLOCK, Street, backdrop, build_block, convoy

_SAMPLES = 2
_AHEAD = 125.0  # metres of street that are built
_LABEL_BITS = 0b11111
_TILE = 256
_SCREEN, _GROUND, _WALL = range(3)
# By material: how strongly its texture shows, the texture's pixels in a metre, and what it lies on.
# fmt: off
_TEXTURES: Final = {
    "plain": (0.05, 1.0, _SCREEN), "leaves": (0.5, 1.0, _SCREEN), "sky": (0.0, 1.0, _SCREEN),
    "asphalt": (0.14, _TILE / 7, _GROUND), "paving": (0.14, _TILE / 7, _GROUND), "grass": (0.3, _TILE / 9, _GROUND),
    "plaster": (0.12, _TILE / 12, _WALL), "brick": (0.16, _TILE / 12, _WALL),
}
# fmt: on


def render(domain: str, seed: int, *, height: int, width: int) -> tuple[Bytes, Bytes]:
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


def clip(domain: str, seed: int, *, frames: int, fps: float, height: int, width: int) -> Iterator[tuple[Bytes, Bytes]]:
    """Drive through a street at 7 to 11 m/s; the first of the frames, with labels, is that of `render`.

    Raises:
        ValueError: as `render`, or `frames` is negative or `fps` not positive.
    """
    if frames < 0 or not fps > 0:
        raise ValueError(f"frames is {frames} and fps {fps}; allowed: frames >= 0, fps > 0.")
    scene = Scene(domain, seed)
    return (scene.frame(number / fps, height=height, width=width) for number in range(frames))


class Scene:
    """A street and the camera that drives through it; see `render`."""

    def __init__(self, domain: str, seed: int) -> None:
        if domain not in DOMAINS:
            raise ValueError(f"domain is {domain!r}; allowed: {', '.join(DOMAINS)}.")
        if seed < 0:
            raise ValueError(f"seed is {seed}; allowed: 0 or more.")
        self._domain = DOMAINS[domain]
        self._seed = (self._domain.index, int(seed))
        self._street = Street(self._domain, int(seed))
        self._block = lru_cache(maxsize=8)(lambda index: build_block(self._street, index))
        self._convoy, self._backdrop = convoy(self._street), backdrop(self._street)
        rng = np.random.default_rng([*self._seed, 2])
        position = (self._street.eye, rng.uniform(*self._domain.height), self._street.start)
        pitch, focal, yaw = rng.uniform(*self._domain.pitch), rng.uniform(*self._domain.focal), rng.normal(0, 0.03)
        bend, rise = rng.normal(0, 0.0015), rng.uniform(-0.00005, 0.0003)
        self._camera = Camera(position=position, pitch=pitch, yaw=yaw, focal=focal, bend=bend, rise=rise)
        self._expose()

    def _expose(self) -> None:
        """Draw what the sensor is set to."""
        sensor, rng = self._domain.sensor, np.random.default_rng([*self._seed, 3])
        names = ("texture", "haze", "blur", "noise", "vignette", "exposure", "contrast", "saturation", "lift")
        self._setting = drawn = {name: float(rng.uniform(*getattr(sensor, name))) for name in names}
        gain = (1 + rng.uniform(-sensor.cast, sensor.cast, 3)) * drawn["exposure"]
        mix = drawn["saturation"] * np.eye(3) + (1 - drawn["saturation"]) / 3
        offset = np.full((3, 1), 128 * (1 - drawn["contrast"]) + drawn["lift"])
        self._matrix = np.concatenate((drawn["contrast"] * mix * gain, offset), axis=1)  # [3,4], of colours

    def frame(self, time: float, *, height: int, width: int) -> tuple[Bytes, Bytes]:
        """Paint the frame `time` seconds after the start; see `render`."""
        if height < 16 or width < 16:
            raise ValueError(f"the size is {width}x{height}; allowed: 16x16 or more.")
        camera, street = self._camera, self._street
        position = (street.eye, camera.position[1], street.start + street.speed * time)
        pitch, bend = camera.pitch + 0.004 * math.sin(2.1 * time), camera.bend * math.cos(0.12 * time)
        camera = replace(camera, position=position, pitch=pitch, bend=bend)
        ground, standing, outlines = self._things(camera, time)
        canvas = self._sky(camera, height * _SAMPLES, width * _SAMPLES)
        haze, fog = self._setting["haze"], street.colors["sky_bottom"] * 0.96
        paint(canvas, ground, camera, haze=haze, haze_color=fog)
        darken(canvas, outlines, camera, 1 - street.shadow, soft=street.overcast)
        paint(canvas, standing, camera, haze=haze, haze_color=fog)

        offset = _SAMPLES // 2
        codes: Bytes = canvas[offset::_SAMPLES, offset::_SAMPLES, 3]
        materials, labels = codes >> np.uint8(5), codes & np.uint8(_LABEL_BITS)
        image = np.asarray(cv2.resize(canvas[:, :, :3], (width, height), interpolation=cv2.INTER_AREA), np.uint8)
        rng = np.random.default_rng([*self._seed, 5, round(time * 1000)])
        return self._sense(image, materials, camera, rng), labels

    def _sense(self, frame: Bytes, materials: Bytes, camera: Camera, rng: np.random.Generator) -> Bytes:
        """Return the frame with textures as the sensor delivers it; `rng` gives the noise."""
        height, width = frame.shape[:2]
        if not self._setting["texture"]:
            return frame
        fronts = (-self._street.sides[-1].front, self._street.sides[1].front)
        image = frame * (1 + self._setting["texture"] * texture(materials, camera, fronts))[:, :, None]
        y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        corners = ((x * x + y * y) / 2)[:, :, None].astype(np.float32)
        image = cv2.transform(image, self._matrix) * (1 - self._setting["vignette"] * corners)
        image = cv2.GaussianBlur(image, (0, 0), self._setting["blur"] * width / 256)
        image += rng.standard_normal((height, width, 3), dtype=np.float32) * np.float32(self._setting["noise"])
        return np.asarray(np.clip(np.rint(image), 0, 255), dtype=np.uint8)

    def _sky(self, camera: Camera, height: int, width: int) -> Bytes:
        """Return a canvas with nothing but a sky with clouds, which are painted at a quarter of the size."""
        rng, colors = np.random.default_rng([*self._seed, 4]), self._street.colors
        rows, columns, softness = height // 4, width // 4, self._domain.sensor.cloud_softness
        horizon = max((height / 2 - camera.focal * width * np.tan(camera.pitch)) / 4, 1.0)
        share = np.clip(np.arange(rows) / horizon, 0, 1)[:, None, None]
        threshold = rng.uniform(0.5, 0.6) - (0.18 if self._street.overcast else 0.0)
        noise = np.zeros((rows, columns), dtype=np.float32)
        for octave in range(4):
            grid = rng.random((max(2, round(4 * 2**octave * rows / columns)), 4 * 2**octave), dtype=np.float32)
            noise += cv2.resize(grid, (columns, rows), interpolation=cv2.INTER_CUBIC) * 0.6**octave / 2.176
        cover = np.clip((noise - threshold) / (0.03 + 0.2 * softness), 0, 1)[:, :, None]
        cover = cover * (0.95 - 0.2 * softness) * (1 - 0.7 * share)
        clear = colors["sky_top"] * (1 - share) + colors["sky_bottom"] * share
        small = np.clip(clear * (1 - cover) + colors["clouds"] * cover, 0, 255).astype(np.uint8)
        canvas = np.full((height, width, 4), code("sky", "sky"), dtype=np.uint8)
        canvas[:, :, :3] = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
        return canvas

    def _things(self, camera: Camera, time: float) -> tuple[Polygons, Polygons, Floats]:
        """Return the ground and everything else near the camera, and the outlines of the shadows."""
        street, here = self._street, camera.position[2]
        numbers = range(max(0, int((here - 12) // BLOCK)), int((here + _AHEAD) // BLOCK) + 1)
        blocks = [self._block(number) for number in numbers]
        moving = [agent.at(time) for agent in self._convoy]
        for number, block in zip(numbers, blocks, strict=True):
            # Things start to move when the camera is as near as it is to the first blocks at the start.
            local = time - max(0.0, (number * BLOCK - _AHEAD - street.start) / street.speed)
            moving.extend(agent.at(local) for agent in block.agents)
        things = [thing for thing in moving if _clear(thing, camera)]
        things.append(replace(self._backdrop, position=(0, 0, here + 170)))
        standing = [*(block.standing for block in blocks), place(things, street.light)]
        outlines = [*(block.shadows for block in blocks), shadows(things, street.light, overcast=street.overcast)]
        return concatenate([block.ground for block in blocks]), concatenate(standing), np.concatenate(outlines)


def _clear(thing: Placed, camera: Camera) -> bool:
    """Tell whether something is before the camera and not in its way."""
    (x, _, z), (half, length, _, _) = thing.position, thing.shadow
    eye, _, here = camera.position
    if z + length < here + 1.5 or z - length > here + _AHEAD:
        return False
    in_the_way = abs(x - eye) < half + 1.0
    return z - length > here + (5.5 if in_the_way else 1.5) or (not in_the_way and length > 1.5)


@cache
def _noise_tile() -> Floats:
    """Return a tile of noise about 0, in -1..1, that repeats without a seam."""
    rng, total = np.random.default_rng(5), np.zeros((_TILE, _TILE), dtype=np.float32)
    for cells, weight in ((8, 0.7), (32, 0.6), (128, 0.7)):
        grid = np.tile(rng.uniform(-1, 1, (cells, cells)).astype(np.float32), (3, 3))
        large = cv2.resize(grid, (3 * _TILE, 3 * _TILE), interpolation=cv2.INTER_LINEAR)
        total += weight * large[_TILE : 2 * _TILE, _TILE : 2 * _TILE]
    return np.clip(total, -1, 1)


@cache
def _brick_tile() -> Floats:
    """Return 32 courses of 16 bricks with darker joints, in -1..1."""
    bricks = np.random.default_rng(6).uniform(-0.6, 0.8, (32, 16)).astype(np.float32)
    tile = np.kron(bricks, np.ones((8, 16), dtype=np.float32))
    tile[::8] = tile[:, ::16] = -1
    for row in range(8, _TILE, 16):
        tile[row : row + 8] = np.roll(tile[row : row + 8], 8, axis=1)
    return tile


def texture(materials: Bytes, camera: Camera, fronts: tuple[float, float]) -> Floats:
    """Return the grain [H,W] about 0 of materials [H,W]; `fronts` are x of the houses on the left and on the right."""
    height, width = materials.shape
    across = (np.arange(width, dtype=np.float32) + 0.5 - width / 2)[None, :] / (camera.focal * width)
    up = (height / 2 - 0.5 - np.arange(height, dtype=np.float32))[:, None] / (camera.focal * width)
    # Directions of the pixels, all but exact for a small yaw.
    y, z = up * math.cos(camera.pitch) - math.sin(camera.pitch), math.cos(camera.pitch) + up * math.sin(camera.pitch)
    x = across * math.cos(camera.yaw) + z * math.sin(camera.yaw)
    eye_x, eye_y, eye_z = camera.position
    down = np.where(y < -1e-3, eye_y / np.maximum(-y, 1e-3), 0.0)
    far = down * z
    ground = (eye_x + down * x - camera.bend / 2 * far * far, eye_z + far, far)
    reach = np.where(x < 0, fronts[0] - eye_x, fronts[1] - eye_x) / np.where(np.abs(x) < 1e-3, 1e-3, x)
    wall = (eye_z + reach * z, eye_y + reach * y, reach * z)
    rows, columns = np.mgrid[:height, :width].astype(np.float32) * (538 / width)
    screen = (columns + eye_z * 7, rows, np.float32(10))

    table = np.asarray([_TEXTURES[name] for name in MATERIALS], dtype=np.float32)
    power, scale, kinds = (column[materials] for column in table.T)
    u, v, distance = (np.choose(kinds.astype(np.int64), choices) for choices in zip(screen, ground, wall, strict=True))
    u, v = ((spot * scale % _TILE).astype(np.float32) for spot in (u, v))
    noise = cv2.remap(_noise_tile(), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    bricks = cv2.remap(_brick_tile(), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    value = np.where(materials == MATERIALS.index("brick"), bricks, noise)
    return np.asarray(value * power * np.clip(1.25 - distance / 45, 0.25, 1), dtype=np.float32)
