"""Writes a video of which some packets cannot be decoded."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np


def damaged_video(path: Path, frames: int, damaged: Sequence[int], cut: float = 1.0) -> None:
    """Write key frames alone, of which some cannot be decoded, in a file that may be cut off."""
    rng = np.random.default_rng(1)
    with av.open(str(path), "w", format="matroska" if cut < 1 else "mp4") as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(frames):
            picture = rng.integers(0, 255, (64, 96, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode(None))
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    data = bytearray(path.read_bytes())
    for place, size in (packets[number] for number in damaged):
        assert place is not None
        data[place : place + size] = b"\xff" * size
    path.write_bytes(data[: round(cut * len(data))])
