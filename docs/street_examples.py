"""Takes the example frames and the example clip of the page from two Udacity clips (MIT).

python docs/street_examples.py ../shared/data/clips lsr_infer/models/street
"""

import sys
from fractions import Fraction
from pathlib import Path

import cv2

from lsr_infer.io.files import write_bytes
from lsr_infer.video.reader import read_frames
from lsr_infer.video.writer import VideoWriter

_HIGHWAY, _ROAD = "udacity_solidWhiteRight.mp4", "udacity_test_video.mp4"
_FRAMES = ((_HIGHWAY, 60), (_HIGHWAY, 150), (_ROAD, 4))
_CLIP = range(100, 148)


def main() -> None:
    """Write three frames as JPEG, and two seconds as a clip."""
    clips, out = map(Path, sys.argv[1:])
    frames = {name: [read.frame for read in read_frames(clips / name)] for name in (_HIGHWAY, _ROAD)}
    for name, index in _FRAMES:
        content = cv2.imencode(".jpg", frames[name][index], [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        write_bytes(out / "images" / f"{Path(name).stem}_{index:03d}.jpg", content)
    height, width = frames[_HIGHWAY][0].shape[:2]
    with VideoWriter(out / "clips" / "udacity_highway.mp4", width=width, height=height, fps=Fraction(25)) as writer:
        for index in _CLIP:
            writer.write(frames[_HIGHWAY][index])


if __name__ == "__main__":
    main()
