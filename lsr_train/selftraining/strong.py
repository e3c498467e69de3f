"""Augments frames strongly on their device: colours and blur, drawn for each image.

The loader cannot do it: the images that are mixed exist only after the teacher has labelled them.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lsr_train.network import Normalize
from lsr_train.randomness import to_device

DRAWS = 7
"""Random numbers an image takes."""

_LUMA = (0.114, 0.587, 0.299)  # of blue, green, red (ITU-R BT.601)


@dataclass(frozen=True, kw_only=True)
class Strength:
    """How far each change goes; 0 switches it off.

    Args:
        probability: of the colour changes, for each image.
        brightness: factor 1 + U(-v, v).
        contrast: factor 1 + U(-v, v) about the image's grey mean.
        saturation: factor 1 + U(-v, v) of the distance from grey.
        hue: turn about the grey axis by U(-v, v) degrees.
        blur: probability of a Gaussian blur.
        blur_sigma: its largest standard deviation in pixels; the smallest is 0.15.
    """

    probability: float = 0.8
    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.25
    hue: float = 18.0
    blur: float = 0.5
    blur_sigma: float = 1.15


@torch.no_grad()
def strong_augmentation(frames: Tensor, strength: Strength, draws: Tensor) -> Tensor:
    """Change colours and blur of BGR levels 0..255 [B,H,W,3] in float32.

    `draws` are [B,DRAWS] uniform in [0, 1), in float64 on the CPU. The result is new, with levels within 0..255.
    """
    matrices, brightness, contrast = (to_device(part, frames.device, frames.dtype) for part in _colors(draws, strength))
    grey = brightness * frames.mean(dim=(1, 2, 3), keepdim=True)
    colored = (frames.flatten(1, 2) @ matrices.mT).view(frames.shape)
    colored = (colored + (1 - contrast) * grey).clamp(0, 255)
    if not (strength.blur and strength.blur_sigma):
        return colored
    least = min(0.15, strength.blur_sigma)
    sigmas = least + (strength.blur_sigma - least) * draws[:, 6]
    return _blurred(colored, torch.where(draws[:, 5] < strength.blur, sigmas, 0), strength.blur_sigma)


def strong_images(image: Tensor, normalize: Normalize, strength: Strength, draws: Tensor) -> Tensor:
    """Do the same to an image [B,3,H,W] that `normalize` has normalised; the new one has its memory format."""
    return in_layout_of(normalize(strong_augmentation(normalize.levels(image), strength, draws)), image)


def in_layout_of(image: Tensor, like: Tensor) -> Tensor:
    """Return an image in the memory format of another."""
    last = like.is_contiguous(memory_format=torch.channels_last)
    return image.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)


def _colors(draws: Tensor, strength: Strength) -> tuple[Tensor, Tensor, Tensor]:
    """Return the linear changes of each image as one matrix [B,3,3], and its brightness and contrast [B,1,1,1].

    The order is the loader's: brightness, contrast, saturation, hue. The last two leave the grey that contrast adds as
    it is.
    """
    on = (draws[:, 0] < strength.probability).double()
    brightness, contrast, saturation, turn = (
        on * amount * (2 * draws[:, column] - 1)
        for column, amount in enumerate(
            (strength.brightness, strength.contrast, strength.saturation, math.radians(strength.hue)), start=1
        )
    )
    eye = torch.eye(3, dtype=draws.dtype)
    luma = torch.tensor(_LUMA, dtype=draws.dtype).expand(3, 3)
    factor = (1 + saturation).view(-1, 1, 1)
    saturate = factor * eye + (1 - factor) * luma
    brightness, contrast = (1 + brightness).view(-1, 1, 1), (1 + contrast).view(-1, 1, 1)
    return contrast * brightness * (_turns(turn) @ saturate), brightness[..., None], contrast[..., None]


def _turns(angles: Tensor) -> Tensor:
    """Return the rotations of colour space about the grey axis, [B,3,3] (Rodrigues)."""
    axis = 3**-0.5
    cross = axis * torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=angles.dtype)
    outer = torch.full((3, 3), 1 / 3, dtype=angles.dtype)
    cosine, sine = angles.cos().view(-1, 1, 1), angles.sin().view(-1, 1, 1)
    return cosine * torch.eye(3, dtype=angles.dtype) + sine * cross + (1 - cosine) * outer


def _blurred(frames: Tensor, sigmas: Tensor, largest: float) -> Tensor:
    """Blur each image by its standard deviation [B], 0 for not at all; borders are mirrored."""
    B, H, W, _ = frames.shape
    radius = min(math.ceil(3 * largest), H - 1, W - 1)
    places = torch.arange(-radius, radius + 1, dtype=sigmas.dtype)
    kernels = torch.exp(-0.5 * (places / sigmas.clamp(min=1e-3)[:, None]) ** 2)  # a single 1 where sigma is 0
    kernels = to_device(kernels / kernels.sum(dim=1, keepdim=True), frames.device, frames.dtype)
    kernels = kernels.repeat_interleave(3, dim=0)  # [3B,2r+1]
    planes = frames.permute(0, 3, 1, 2).reshape(1, 3 * B, H, W)
    planes = F.pad(planes, (radius, radius, radius, radius), mode="reflect")
    planes = F.conv2d(planes, kernels[:, None, None, :], groups=3 * B)
    planes = F.conv2d(planes, kernels[:, None, :, None], groups=3 * B)
    return planes.view(B, 3, H, W).permute(0, 2, 3, 1)
