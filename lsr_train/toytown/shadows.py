"""Where the sun does not reach the ground."""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_train.toytown.geometry import Camera, Floats, Light

__all__ = ["ShadowBox", "ShadowRound", "darken", "outlines"]

ShadowBox = tuple[float, float, float, float, float]
"""x, z, half width, half length and height of something upright."""

ShadowRound = tuple[float, float, float, float]
"""x, z, radius and height of something round up in the air."""

_CORNERS = 10


def outlines(
    boxes: Sequence[ShadowBox], rounds: Sequence[ShadowRound], light: Light, *, overcast: bool
) -> tuple[Floats, Floats]:
    """Return the outlines (x, z) of shadows on the ground: [N,6,2] of boxes and [M,10,2] of rounds.

    Without a sun a shadow lies straight below its thing.
    """
    x, y, z = light.direction
    shift = np.zeros(2, dtype=np.float32) if overcast else np.asarray((-x / y, -z / y), dtype=np.float32)
    box = np.asarray(boxes, dtype=np.float32).reshape(-1, 1, 5)
    # The hull of a rectangle and its shifted copy, for any direction of the shift.
    sign = np.where(shift >= 0, 1, -1).astype(np.float32)
    corners = np.asarray([(-1, -1), (1, -1), (1, -1), (1, 1), (-1, 1), (-1, 1)], dtype=np.float32) * sign
    moved = np.asarray([0, 0, 1, 1, 1, 0], dtype=np.float32)[:, None] * shift
    hexagons = box[:, :, :2] + corners * box[:, :, 2:4] + moved * box[:, :, 4:]
    disc = np.asarray(rounds, dtype=np.float32).reshape(-1, 1, 4)
    angles = np.arange(_CORNERS, dtype=np.float32) * (2 * np.pi / _CORNERS)
    circle = np.stack((np.cos(angles), np.sin(angles)), axis=1)
    circles = disc[:, :, :2] + circle * disc[:, :, 2:3] + shift * disc[:, :, 3:]
    return hexagons.astype(np.float32), circles.astype(np.float32)


def darken(canvas: NDArray[np.uint8], shapes: Sequence[Floats], camera: Camera, shade: float, *, soft: bool) -> None:
    """Take light from what is painted so far, which is the ground; `canvas` [H,W,4] is changed.

    Args:
        canvas: blue, green, red, code.
        shapes: sets of outlines [N,n,2] on the ground.
        camera: where it is seen from.
        shade: the share of light that is left, 0..1.
        soft: whether the edges are blurred.
    """
    height, width = canvas.shape[:2]
    light = np.full((height, width), 255, dtype=np.uint8)
    level = round(255 * shade)
    for shape in shapes:
        points = np.zeros((*shape.shape[:2], 3), dtype=np.float32)
        points[:, :, 0], points[:, :, 2] = shape[:, :, 0], shape[:, :, 1]
        pixels, depths = camera.project(points, height, width)
        seen = np.flatnonzero((depths.max(axis=1) > 0.6) & (depths.min(axis=1) < 120))
        corners = np.rint(np.clip(pixels[seen] - 0.5, -(1 << 20), 1 << 20) * 8).astype(np.int32)
        for corner in corners:
            cv2.fillConvexPoly(light, corner, level, cv2.LINE_8, 3)
    if soft:
        cv2.blur(light, (2 * (width // 128) + 1, 2 * (width // 256) + 1), dst=light)
    whole = np.full_like(light, 255)
    cv2.multiply(canvas, cv2.merge((light, light, light, whole)), dst=canvas, scale=1 / 255)
