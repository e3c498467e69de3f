"""Gathers the openly licensed footage that the shipped street network is adapted to: LUMS Road, and two clips.

    python docs/open_footage.py ../shared/data runs/shipped/footage

Frames that their publishers turned have black corners, and are left out.
"""

import sys
from pathlib import Path

from lsr_infer.io.images import read_image

_CORNER, _DARK = 12, 16  # pixels of a side, and the mean level below which a corner is black


def is_whole(file: Path) -> bool:
    """Whether no corner of a frame is black."""
    frame = read_image(file)
    corners = (
        frame[rows, columns]
        for rows in (slice(_CORNER), slice(-_CORNER, None))
        for columns in (slice(_CORNER), slice(-_CORNER, None))
    )
    return all(corner.mean() >= _DARK for corner in corners)


def main() -> None:
    """Copy whole frames and the clips."""
    data, out = map(Path, sys.argv[1:])
    out.mkdir(parents=True, exist_ok=True)
    frames = [file for file in sorted((data / "footage_open" / "lums").glob("*.jpg")) if is_whole(file)]
    for file in (*frames, *sorted((data / "clips").glob("udacity_*.mp4"))):
        (out / file.name).write_bytes(file.read_bytes())


if __name__ == "__main__":
    main()
