"""Toytown: a street that is made up, in two domains of one grammar, with an exact label at every pixel.

`render` paints one frame, `clip` drives through a street. The `game` domain is flat, clean and saturated under one sun;
the `camera` domain is an autumn city with textures, haze, a colour cast, exposure, blur and noise. It is the data of
the quickstart, the demo and the tests, and no evidence about real roads.

How it works: `plan` draws a street; `street` builds it block by block out of `frontage`, `furniture` and `agents` (with
the meshes of `people` and `vehicles`); `geometry` paints the polygons from back to front, colour and class in one call
of OpenCV; `sensor` makes a frame of it. The label is that of one of four samples a pixel. `domains` holds what differs
between the two worlds. It is frozen, and a test says so.

The gap it was frozen at, mIoU over 19 classes on the 100 frames of `val` at 256x128, one seed, a quarter-width
ResNet-18 from scratch, 400 steps of 4 frames, with the commands below:

- trained on game, scored on game: 39.9
- trained on game, scored on camera: 21.6 (30.8 with batch-norm statistics of unlabelled camera frames)
- trained on camera, scored on camera: 37.5

    SCORE="--split val --label_space cityscapes19 --height 128 --width 256 --precision bf16"
    python -m lsr_train pretrain --recipe toytown_source --out runs/toytown_source
    python -m lsr_train pretrain --recipe toytown_target_only --out runs/toytown_target_only
    python -m lsr_train evaluate runs/toytown_source --layout toytown-game $SCORE
    python -m lsr_train evaluate runs/toytown_source --layout toytown-camera $SCORE
    python -m lsr_train evaluate runs/toytown_target_only --layout toytown-camera $SCORE
"""

from lsr_train.toytown.domains import DOMAINS
from lsr_train.toytown.objects import CLASSES
from lsr_train.toytown.scene import Scene, clip, render

__all__ = ["CLASSES", "DOMAINS", "Scene", "clip", "render"]
