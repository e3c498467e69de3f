"""Classes by name, and the materials that give a surface its texture.

The canvas keeps one byte a pixel: the Cityscapes train id in the low five bits, the material in the high three.
"""

from typing import Final

__all__ = ["CLASSES", "MATERIALS", "code"]

CLASSES: Final = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)
"""The nineteen classes in the order of their train ids."""

MATERIALS: Final = ("plain", "asphalt", "paving", "grass", "plaster", "brick", "leaves", "sky")
"""What a surface is made of, as far as the sensor's textures care."""

_CLASS_INDEX = {name: index for index, name in enumerate(CLASSES)}
_MATERIAL_INDEX = {name: index for index, name in enumerate(MATERIALS)}


def code(label: str, material: str = "plain") -> int:
    """Pack a class and a material into the canvas's fourth channel.

    Raises:
        KeyError: there is no such class or material.
    """
    return _CLASS_INDEX[label] | _MATERIAL_INDEX[material] << 5
