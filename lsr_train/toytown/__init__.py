r"""Renders Toytown, a procedural street in two domains of one grammar, with an exact label at every pixel.

`render` paints one frame, `clip` drives through a street. The `game` domain is flat, clean and saturated under one sun;
the `camera` domain is an autumn city with textures, haze, a colour cast, exposure, blur and noise. It is the data of
the quickstart, the demo and the tests, and no evidence about real roads.

`street` lays out blocks of the meshes of `objects`; `geometry` paints their polygons from back to front, colour and
class in one call of OpenCV; `scene` makes a frame of it, whose label is that of one of four samples a pixel. `domains`
has what differs between the two. It is frozen, and a test says so.

The gap, mIoU over 19 classes on the 100 frames of `val` at 256x128, one seed, a quarter-width ResNet-18 from scratch
trained on game for 400 steps of 4 frames: 38.9 % on game, 17.7 % on camera, 30.4 % on camera with batch-norm statistics
of unlabelled camera frames.

    SCORE="--split val --label_space cityscapes19 --height 128 --width 256 --precision bf16"
    python -m lsr_train pretrain --recipe toytown_source --out runs/toytown_source
    python -m lsr_train evaluate runs/toytown_source --layout toytown-game $SCORE
    python -m lsr_train evaluate runs/toytown_source --layout toytown-camera $SCORE
    python -m lsr_train evaluate runs/toytown_source --layout toytown-camera $SCORE \
        --batch_norm target --target_layout toytown-camera
"""

from lsr_train.toytown.domains import DOMAINS
from lsr_train.toytown.objects import CLASSES
from lsr_train.toytown.scene import Scene, clip, render

__all__ = ["CLASSES", "DOMAINS", "Scene", "clip", "render"]
