"""From a painted scene to a frame: sky, textures, and what a lens and a sensor do.

The labels are never touched here. The game domain's sensor changes nothing.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_train.toytown.domains import Range, Sensor
from lsr_train.toytown.geometry import Camera, Floats
from lsr_train.toytown.surfaces import MATERIALS

__all__ = ["Exposure", "draw_exposure", "expose", "sky", "texture"]

_TILE = 256
_GROUND = ("asphalt", "paving", "grass")
_WALLS = ("plaster", "brick")
# How strongly each material's texture shows, and the metres a tile covers.
_STRENGTH = {
    "plain": 0.05,
    "asphalt": 0.14,
    "paving": 0.14,
    "grass": 0.3,
    "plaster": 0.12,
    "brick": 0.16,
    "leaves": 0.5,
}
_METRES = {"asphalt": 7.0, "paving": 7.0, "grass": 9.0, "plaster": 12.0, "brick": 12.0}


class Exposure:
    """What one scene's sensor is set to; drawn once a scene."""

    def __init__(self, sensor: Sensor, rng: np.random.Generator) -> None:
        def draw(span: Range) -> float:
            return float(rng.uniform(*span))

        self.texture, self.haze = draw(sensor.texture), draw(sensor.haze)
        self.blur, self.noise, self.vignette = draw(sensor.blur), draw(sensor.noise), draw(sensor.vignette)
        gain = (1 + rng.uniform(-sensor.cast, sensor.cast, 3)) * draw(sensor.exposure)
        contrast, saturation, lift = draw(sensor.contrast), draw(sensor.saturation), draw(sensor.lift)
        grey = np.full((3, 3), 1 / 3)
        mix = saturation * np.eye(3) + (1 - saturation) * grey
        matrix = contrast * mix @ np.diag(gain)
        offset = np.full((3, 1), 128 * (1 - contrast) + lift)
        self.matrix = np.concatenate((matrix, offset), axis=1).astype(np.float32)  # [3,4]
        self.plain = bool(np.allclose(self.matrix, np.eye(3, 4)))


def draw_exposure(sensor: Sensor, seed: tuple[int, int]) -> Exposure:
    """Draw a scene's exposure."""
    return Exposure(sensor, np.random.default_rng([*seed, 3]))


def _smooth_noise(rng: np.random.Generator, height: int, width: int, cells: int, octaves: int) -> Floats:
    """Return noise of several scales in 0..1, `cells` of the largest across the width."""
    total = np.zeros((height, width), dtype=np.float32)
    weight = 0.0
    for octave in range(octaves):
        across = cells * 2**octave
        up = max(2, round(across * height / width))
        grid = rng.random((up, across), dtype=np.float32)
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.6**octave
        weight += 0.6**octave
    return total / weight


@cache
def _noise_tile() -> Floats:
    """Return a tile of noise about 0, in -1..1, that repeats without a seam."""
    rng = np.random.default_rng(5)
    total = np.zeros((_TILE, _TILE), dtype=np.float32)
    for cells, weight in ((8, 0.7), (32, 0.6), (128, 0.7)):
        grid = np.tile(rng.uniform(-1, 1, (cells, cells)).astype(np.float32), (3, 3))
        large = cv2.resize(grid, (3 * _TILE, 3 * _TILE), interpolation=cv2.INTER_LINEAR)
        total += weight * large[_TILE : 2 * _TILE, _TILE : 2 * _TILE]
    return np.clip(total, -1, 1)


@cache
def _brick_tile() -> Floats:
    """Return courses of bricks with darker joints, in -1..1; a tile is `_METRES["brick"]` wide."""
    rng = np.random.default_rng(6)
    rows, columns = 32, 16
    tile = np.repeat(np.repeat(rng.uniform(-0.6, 0.8, (rows, columns)), _TILE // rows, 0), _TILE // columns, 1)
    for row in range(rows):
        top = row * (_TILE // rows)
        tile[top : top + _TILE // rows] = np.roll(tile[top : top + _TILE // rows], 8 * (row % 2), axis=1)
        tile[top] = -1
        tile[top : top + _TILE // rows, (8 * (row % 2)) :: _TILE // columns] = -1
    return tile.astype(np.float32)


def _rays(camera: Camera, height: int, width: int) -> tuple[Floats, Floats, Floats]:
    """Return world directions (x, y, z) of the pixels, the street's bend left aside; y and z vary with the row only."""
    focal = camera.focal * width
    across = ((np.arange(width) + 0.5 - width / 2) / focal).astype(np.float32)[None, :]
    up = (-(np.arange(height) + 0.5 - height / 2) / focal).astype(np.float32)[:, None]
    y = up * np.cos(camera.pitch) - np.sin(camera.pitch)
    z = up * np.sin(camera.pitch) + np.cos(camera.pitch)
    x = across * np.cos(camera.yaw) + z * np.sin(camera.yaw)
    return x.astype(np.float32), y.astype(np.float32), z.astype(np.float32)


def texture(
    frame: Floats, materials: NDArray[np.uint8], camera: Camera, fronts: tuple[float, float], strength: float
) -> Floats:
    """Give surfaces the grain of what they are made of.

    Args:
        frame: [H,W,3] float32.
        materials: [H,W] index into `MATERIALS`.
        camera: where it is seen from.
        fronts: x of the houses on the left and on the right.
        strength: 0..1.
    """
    height, width = materials.shape
    x, y, z = _rays(camera, height, width)
    eye_x, eye_y, eye_z = camera.position
    down = np.where(y < -1e-3, eye_y / np.maximum(-y, 1e-3), 0.0).astype(np.float32)  # [H,1]
    far = down * z
    ground_x = eye_x + down * x - np.float32(camera.bend / 2) * far * far
    ground_z = np.broadcast_to(eye_z + far, ground_x.shape)
    reach = np.where(x < 0, fronts[0] - eye_x, fronts[1] - eye_x) / np.where(np.abs(x) < 1e-3, 1e-3, x)
    wall_z = eye_z + reach * z
    wall_y = eye_y + reach * y

    is_ground = np.isin(materials, [MATERIALS.index(name) for name in _GROUND])
    is_wall = np.isin(materials, [MATERIALS.index(name) for name in _WALLS])
    is_brick = materials == MATERIALS.index("brick")
    scale = np.asarray([_TILE / _METRES.get(name, 1.0) for name in MATERIALS], dtype=np.float32)[materials]
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    grain = 256 / width * 2.1
    u = np.where(is_ground, ground_x * scale, np.where(is_wall, wall_z * scale, columns * grain + eye_z * 7))
    v = np.where(is_ground, ground_z * scale, np.where(is_wall, wall_y * scale, rows * grain))
    distance = np.where(is_ground, far, np.where(is_wall, reach * z, 10.0))
    u, v = np.mod(u, _TILE).astype(np.float32), np.mod(v, _TILE).astype(np.float32)
    value = cv2.remap(_noise_tile(), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    if is_brick.any():
        bricks = cv2.remap(_brick_tile(), u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
        value = np.where(is_brick, bricks, value)
    power = np.asarray([_STRENGTH.get(name, 0.0) for name in MATERIALS], dtype=np.float32)[materials]
    fade = np.clip(1.25 - distance / 45, 0.25, 1)
    grained: Floats = (frame * (1 + strength * value * power * fade)[:, :, None]).astype(np.float32)
    return grained


def sky(
    size: tuple[int, int],
    horizon: float,
    colors: Mapping[str, Floats],
    softness: float,
    seed: tuple[int, int],
    *,
    grey: bool,
) -> NDArray[np.uint8]:
    """Return a sky [height,width,3] with clouds, from `horizon` (a row) upwards.

    Args:
        size: height and width.
        horizon: the row where it meets the ground.
        colors: `sky_top`, `sky_bottom` and `clouds`.
        softness: 0 gives clouds with edges, 1 mist.
        seed: of the clouds.
        grey: whether clouds cover all of it.
    """
    rng = np.random.default_rng([*seed, 4])
    height, width = size
    share = np.clip(np.arange(height) / max(horizon, 1.0), 0, 1).astype(np.float32)[:, None, None]
    image = colors["sky_top"] * (1 - share) + colors["sky_bottom"] * share  # [H,1,3]
    noise = _smooth_noise(rng, height, width, 4, 4)
    threshold = rng.uniform(0.5, 0.6) - (0.18 if grey else 0.0)
    edge = 0.03 + 0.2 * softness
    cover = np.clip((noise - threshold) / edge, 0, 1)[:, :, None] * (0.95 - 0.2 * softness)
    cover = cover * (1 - 0.7 * share)
    painted: NDArray[np.uint8] = np.clip(image * (1 - cover) + colors["clouds"] * cover, 0, 255).astype(np.uint8)
    return painted


@cache
def _corners(height: int, width: int) -> Floats:
    """Return the squared distance from the middle, 1 in the corners, [H,W,1]."""
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    return ((x * x + y * y) / 2)[:, :, None].astype(np.float32)


def expose(frame: Floats, exposure: Exposure, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return the frame [H,W,3] uint8 as the sensor delivers it; `rng` gives the noise."""
    height, width = frame.shape[:2]
    image: NDArray[Any] = frame if exposure.plain else cv2.transform(frame, exposure.matrix)
    if exposure.vignette:
        image = image * (1 - exposure.vignette * _corners(height, width))
    if exposure.blur:
        image = cv2.GaussianBlur(image, (0, 0), exposure.blur * width / 256)
    if exposure.noise:
        image = image + rng.standard_normal((height, width, 3), dtype=np.float32) * np.float32(exposure.noise)
    delivered: NDArray[np.uint8] = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    return delivered
