"""Toytown: a street that is made up, in two domains of one grammar, with an exact label at every pixel.

`render` paints one frame, `clip` drives through a street. The `game` domain is flat, clean and saturated under one sun;
the `camera` domain has textures, haze, a colour cast, exposure, blur and noise. It is the data of the quickstart, the
demo and the tests, and no evidence about real roads.
"""

from lsr_train.data.toytown.domains import DOMAINS
from lsr_train.data.toytown.scene import Scene, clip, render
from lsr_train.data.toytown.surfaces import CLASSES

__all__ = ["CLASSES", "DOMAINS", "Scene", "clip", "render"]
