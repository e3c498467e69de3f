"""Converts pictures and colours to yuv420p, as H.264 stores them: a plane of luma, and two of chroma half its size."""

from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import NDArray

from lsr_infer.video.containers import ColorTags

__all__ = ["PlaneConverter", "plane_palette"]

# AVCOL_SPC_* of a file to the matrix of swscale; everything else, unspecified too, is read as BT.601 by libav.
_MATRICES = {
    1: Colorspace.ITU709, 4: Colorspace.FCC, 7: Colorspace.SMPTE240M, 9: Colorspace.BT2020, 10: Colorspace.BT2020,
}  # fmt: skip


class PlaneConverter:
    """Converts frames [H,W,3] uint8 BGR of even sides to pictures in yuv420p with the matrix and range of `color`."""

    def __init__(self, color: ColorTags) -> None:
        self._reformatter = VideoReformatter()
        self._matrix = _MATRICES.get(color.matrix, Colorspace.ITU601)
        self._range = ColorRange.JPEG if color.full_range else ColorRange.MPEG

    def __call__(self, frame: NDArray[np.uint8]) -> Any:
        """Convert a frame, which is contiguous."""
        return self._reformatter.reformat(
            av.VideoFrame.from_numpy_buffer(frame, format="bgr24"),
            format="yuv420p", dst_colorspace=self._matrix, dst_color_range=self._range, threads=1,
        )  # fmt: skip


def plane_palette(palette: NDArray[np.uint8], color: ColorTags) -> NDArray[np.uint8]:
    """Return luma and both chromas [3,N] of colours [N,3] RGB, rounded as `PlaneConverter` rounds them."""
    blocks = np.repeat(np.repeat(palette[None, :, ::-1], 2, axis=0), 2, axis=1)  # [2,2N,3]: one of chroma a colour
    planes = PlaneConverter(color)(np.ascontiguousarray(blocks)).to_ndarray()  # [3,2N]: luma twice, both chromas
    return np.ascontiguousarray(np.stack([planes[0, ::2], *planes[2].reshape(2, -1)]))
