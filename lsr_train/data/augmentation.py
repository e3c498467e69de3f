"""Augments images and their labels: a resize, a crop, a flip, then colours.

All colour changes that are linear in blue, green and red are one matrix and one pass, clipped once at the end. Every
draw comes from the generator that is passed in.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_infer.io.images import resize_frame, resize_labels
from lsr_train.config.data import AugmentConfig

__all__ = ["Augmentation", "color_matrix", "lab_statistics", "lab_transfer"]

_LUMA = np.array([0.114, 0.587, 0.299])  # of blue, green, red (ITU-R BT.601)
_STATISTICS_PIXELS = 20_000


def lab_statistics(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return means and standard deviations [2,3] of a BGR frame's LAB channels, in OpenCV's 8-bit LAB units.

    Large frames are subsampled to about 20,000 pixels on a regular grid.
    """
    step = max(1, int((frame.shape[0] * frame.shape[1] / _STATISTICS_PIXELS) ** 0.5))
    lab = cv2.cvtColor(np.ascontiguousarray(frame[::step, ::step]), cv2.COLOR_BGR2LAB)
    mean, spread = cv2.meanStdDev(lab)
    return np.stack([mean[:, 0], spread[:, 0]])


def lab_transfer(frame: NDArray[np.uint8], own: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Give a BGR frame, whose `lab_statistics` are `own`, the `wanted` ones (Reinhard's colour transfer)."""
    gain = wanted[1] / np.maximum(own[1], 1e-3)
    levels = np.arange(256, dtype=np.float64)[:, None]
    table = np.clip(np.rint((levels - own[0]) * gain + wanted[0]), 0, 255).astype(np.uint8)
    lab = cv2.cvtColor(frame, cv2.COLOR_BGR2LAB)
    return cv2.cvtColor(cv2.LUT(lab, table[:, None, :]), cv2.COLOR_LAB2BGR).astype(np.uint8, copy=False)


def _turn(degrees: float) -> NDArray[np.float64]:
    """Return the rotation of colour space about the grey axis."""
    angle = np.deg2rad(degrees)
    axis = np.full(3, 3**-0.5)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turned = np.cos(angle) * np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * np.outer(axis, axis)
    return np.asarray(turned)


def color_matrix(
    config: AugmentConfig, mean: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64] | None:
    """Draw all linear colour changes and write them as one.

    Applied in the order white point, jitter, brightness, contrast (about the grey of `mean`, the image's mean blue,
    green and red [3]), saturation (distance from grey), hue (a turn about the grey axis).

    Returns:
        float64 [3,4] from (blue, green, red, 1) to blue, green and red, or None where nothing is switched on.
    """
    matrix, offset = np.eye(3), np.zeros(3)
    if config.white_point:
        matrix = np.diag(255 / (255 + rng.uniform(-config.white_point, config.white_point, 3)))
    if config.jitter:
        offset = offset + rng.uniform(-config.jitter, config.jitter, 3)
    if config.brightness:
        factor = 1 + rng.uniform(-config.brightness, config.brightness)
        matrix, offset = matrix * factor, offset * factor
    if config.contrast:
        factor = 1 + rng.uniform(-config.contrast, config.contrast)
        grey = float((matrix @ mean + offset).mean())
        matrix, offset = matrix * factor, offset * factor + grey * (1 - factor)
    if config.saturation:
        factor = 1 + rng.uniform(-config.saturation, config.saturation)
        mix = factor * np.eye(3) + (1 - factor) * np.tile(_LUMA, (3, 1))
        matrix, offset = mix @ matrix, mix @ offset
    if config.hue:
        turn = _turn(rng.uniform(-config.hue, config.hue))
        matrix, offset = turn @ matrix, turn @ offset
    linear = (config.white_point, config.jitter, config.brightness, config.contrast, config.saturation, config.hue)
    return np.column_stack([matrix, offset]) if any(linear) else None


class Augmentation:
    """From a frame and its labels (or mask) at any size to a training sample of `height` x `width` before any crop.

    `references` are `lab_statistics` of target frames [N,2,3] for `lab_transfer`; None leaves that part out.
    """

    def __init__(
        self, config: AugmentConfig, height: int, width: int, references: NDArray[np.float64] | None = None
    ) -> None:
        self.config, self.height, self.width, self.references = config, height, width, references

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of what comes out."""
        return self.config.crop_height or self.height, self.config.crop_width or self.width

    def __call__(
        self, frame: NDArray[np.uint8], labels: NDArray[np.uint8] | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Return frame and labels (or mask) of `size`, contiguous; neither shares memory with what was passed in."""
        frame, labels, own = self._place(frame, labels, rng)
        return self._color(frame, own, rng), labels

    def _place(
        self, frame: NDArray[np.uint8], labels: NDArray[np.uint8] | None, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None, NDArray[np.float64] | None]:
        """Resize, crop and flip; the frame's LAB statistics before the crop come along where they are needed."""
        config = self.config
        least, most = config.scale_min, config.scale_max
        scale = rng.uniform(least, most) if most > least else least
        crop_height, crop_width = self.size
        height = max(round(self.height * scale), config.crop_height) or self.height
        width = max(round(self.width * scale), config.crop_width) or self.width
        frame = resize_frame(frame, height, width)
        labels = None if labels is None else resize_labels(labels, height, width)
        own = None
        if config.lab_transfer and self.references is not None and rng.random() < config.lab_transfer:
            own = lab_statistics(frame)
        if config.crop_height:
            top = int(rng.integers(height - crop_height + 1))
            left = int(rng.integers(width - crop_width + 1))
            frame = frame[top : top + crop_height, left : left + crop_width]
            labels = None if labels is None else labels[top : top + crop_height, left : left + crop_width]
        if config.flip and rng.random() < config.flip:
            frame = frame[:, ::-1]
            labels = None if labels is None else labels[:, ::-1]
        return frame.copy(), None if labels is None else labels.copy(), own

    def _color(
        self, frame: NDArray[np.uint8], own: NDArray[np.float64] | None, rng: np.random.Generator
    ) -> NDArray[np.uint8]:
        """Change colours, blur, add noise."""
        config = self.config
        if own is not None:
            assert self.references is not None
            frame = lab_transfer(frame, own, self.references[rng.integers(len(self.references))])
        matrix = color_matrix(config, np.array(cv2.mean(frame)[:3]), rng)
        if matrix is not None:
            frame = cv2.transform(frame, matrix).astype(np.uint8, copy=False)
        if config.blur and rng.random() < config.blur:
            sigma = rng.uniform(min(0.1, config.blur_sigma), config.blur_sigma) if config.blur_sigma else 0.0
            if sigma > 0:
                frame = cv2.GaussianBlur(frame, (0, 0), sigma).astype(np.uint8, copy=False)
        if config.noise:
            level = rng.uniform(0, config.noise)
            noisy = frame + level * rng.standard_normal(frame.shape, dtype=np.float32)
            frame = np.clip(np.rint(noisy), 0, 255).astype(np.uint8)
        return frame
