"""Brings the colours of HDR and of wide gamuts to those of BT.709, which networks and encoders know.

HDR (HLG and PQ, ITU-R BT.2100) and wide gamuts (BT.2020, P3) become what a display of SDR shows of them (ITU-R
BT.2408): reference white, 203 cd/m2, becomes white; the last tenth below it holds what is brighter.
"""

from dataclasses import dataclass
from functools import cache, lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFilter

__all__ = [
    "LUT_SIZE",
    "UNSPECIFIED",
    "UNTAGGED",
    "StillColors",
    "bt709_table",
    "in_bt709",
    "is_wide",
    "to_bt709",
    "unread",
]

UNSPECIFIED, _PQ, _HLG = 2, 16, 18
"""Transfer characteristics by ITU-T H.273; the first stands for unspecified primaries too."""
_GAMUTS = {
    9: ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187)),
    11: ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979)),
    12: ((1.2249, -0.2247, 0.0), (-0.0420, 1.0419, 0.0), (-0.0197, -0.0786, 1.0979)),
}
"""Linear RGB of BT.2020 and P3, by their number in H.273, to that of BT.709."""
_UNREAD_TRANSFERS = {8: "linear light", 9: "logarithmic", 10: "logarithmic", 17: "SMPTE ST 428"}
_XYZ = 10
_READ_MATRICES = frozenset({0, 1, UNSPECIFIED, 3, 4, 5, 6, 7, 9})  # what libav's scaler converts; 3 is reserved
_LUMA_BT2020 = (0.2627, 0.6780, 0.0593)
_REFERENCE_WHITE = 203.0
"""cd/m2 of white paper in HDR (ITU-R BT.2408)."""
_KNEE = 0.9
_GAMMA = 2.4  # of SDR displays, ITU-R BT.1886
LUT_SIZE = 33
"""Mean error of the table 0.1 of 255 levels against the formulas on a street picture; 17 is no faster."""
_NEAR = 3
"""Levels by which an ICC profile may differ from sRGB without a picture being changed."""


@dataclass(frozen=True, kw_only=True)
class StillColors:
    """What a still says of its colours: transfer and primaries by their numbers in H.273, and an ICC profile."""

    transfer: int = UNSPECIFIED
    primaries: int = UNSPECIFIED
    icc: bytes = b""


UNTAGGED = StillColors()


def in_bt709(frame: NDArray[np.uint8], colors: StillColors) -> NDArray[np.uint8]:
    """Map a still [H,W,3] BGR to the colours of BT.709 or sRGB; one that has them already is returned itself."""
    wide = is_wide(colors.transfer, colors.primaries)
    transform = None if wide or not colors.icc else _to_srgb(colors.icc)
    if not wide and transform is None:
        return frame
    image = Image.fromarray(frame[..., ::-1])
    if transform is not None:
        ImageCms.applyTransform(image, transform, inPlace=True)
    else:
        image = image.filter(ImageFilter.Color3DLUT(LUT_SIZE, bt709_table(colors.transfer, colors.primaries).ravel()))
    return np.ascontiguousarray(np.asarray(image)[..., ::-1])


@lru_cache(maxsize=8)
def _to_srgb(icc: bytes) -> ImageCms.ImageCmsTransform | None:
    """Return what brings RGB of a profile to sRGB; None where that is nearly the same or the profile cannot be used."""
    levels = np.linspace(0, 255, 6).astype(np.uint8)
    grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(6, -1, 3)
    try:
        transform = ImageCms.buildTransform(BytesIO(icc), ImageCms.createProfile("sRGB"), "RGB", "RGB")
        shown = np.asarray(ImageCms.applyTransform(Image.fromarray(grid), transform))
    except ImageCms.PyCMSError:  # damaged, or of grey or CMYK
        return None
    return transform if np.abs(shown.astype(int) - grid).max() > _NEAR else None


def is_wide(transfer: int, primaries: int) -> bool:
    """Whether colours of a transfer and primaries, numbers of H.273, are those of HDR or of a wide gamut."""
    return transfer in (_PQ, _HLG) or primaries in _GAMUTS


def unread(transfer: int, primaries: int, matrix: int = UNSPECIFIED) -> str | None:
    """Describe colours, by numbers of H.273, that are not read: they would come out wrong. None of those that are."""
    if transfer in _UNREAD_TRANSFERS:
        return f"{_UNREAD_TRANSFERS[transfer]}, transfer {transfer} of ITU-T H.273"
    if primaries == _XYZ:
        return f"XYZ, primaries {primaries} of ITU-T H.273"
    return None if matrix in _READ_MATRICES else f"matrix {matrix} of ITU-T H.273, such as ICtCp or constant luminance"


@cache
def bt709_table(transfer: int, primaries: int) -> NDArray[np.float64]:
    """Return `to_bt709` of a grid of `LUT_SIZE` steps a side as [steps,3]; red changes fastest, as tables store it."""
    steps = np.linspace(0, 1, LUT_SIZE)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    return to_bt709(np.stack([red, green, blue], axis=-1).reshape(-1, 3), transfer, primaries)


def to_bt709(coded: NDArray[np.float64], transfer: int, primaries: int) -> NDArray[np.float64]:
    """Map coded RGB [N,3], 0..1, of a transfer and primaries (numbers of H.273) to coded RGB of BT.709, 0..1."""
    light = _light(coded, transfer)
    if primaries in _GAMUTS:
        light = np.maximum(light @ np.array(_GAMUTS[primaries]).T, 0.0)
    peak = light.max(axis=1, keepdims=True)
    compressed = _KNEE + (1 - _KNEE) * (1 - np.exp(-(peak - _KNEE) / (1 - _KNEE)))
    light = np.where(peak > _KNEE, light * compressed / np.maximum(peak, 1e-9), light)
    return np.asarray(np.clip(light, 0, 1) ** (1 / _GAMMA))


def _light(coded: NDArray[np.float64], transfer: int) -> NDArray[np.float64]:
    """Return the light of a display, 1 at reference white (ITU-R BT.2100, tables 4 and 5)."""
    if transfer == _PQ:
        power = coded ** (32 / 2523)
        nits = 10_000 * (np.maximum(power - 107 / 128, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610)
        return np.asarray(nits / _REFERENCE_WHITE)
    if transfer == _HLG:
        scene = np.where(coded <= 0.5, coded**2 / 3, (np.exp((coded - 0.55991073) / 0.17883277) + 0.28466892) / 12)
        luma = (scene @ np.array(_LUMA_BT2020))[:, None]
        return np.asarray(1_000 * np.maximum(luma, 1e-9) ** 0.2 * scene / _REFERENCE_WHITE)
    return np.asarray(coded**_GAMMA)
