"""Writes frames with pre-filled labels as a folder that a label tool and `--labelled` read as it is.

There are two forms: images/ and labels/ with the classes' numbers, or the layout of Pascal VOC with the classes'
colours, which CVAT calls "Segmentation mask 1.1". A `classes.yaml` says what the numbers or colours mean.
"""

import colorsys
import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.images import palette_png
from lsr_infer.labelspace import LabelSpace
from lsr_infer.render.overlay import explained, overlay
from lsr_train.data.classes_file import classes_text

__all__ = ["Prefilled", "with_distinct_colors", "write_cvat", "write_plain", "write_preview"]


@dataclass(frozen=True, kw_only=True)
class Prefilled:
    """A frame to be labelled.

    Args:
        name: of its files, without suffix.
        frame: uint8 [H,W,3], BGR.
        labels: what the network predicts, uint8 [H,W], 0..C-1 or 255 for void.
        doubt: where its views disagree, [h,w] float in [0, 1], of any size.
    """

    name: str
    frame: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    doubt: NDArray[np.float64]


def _encoded(name: str, picture: NDArray[np.uint8], suffix: str = ".png") -> bytes:
    done, data = cv2.imencode(suffix, picture)
    if not done:
        raise InputError(f"{name}: its picture cannot be encoded.")
    return data.tobytes()


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_plain(folder: Path, frames: Iterable[Prefilled], space: LabelSpace) -> None:
    """Write images/, labels/ (PNG with a palette, the numbers of the classes in it) and classes.yaml."""
    _write(folder / "classes.yaml", classes_text(space).encode())
    for item in frames:
        _write(folder / "images" / f"{item.name}.png", _encoded(item.name, item.frame))
        _write(folder / "labels" / f"{item.name}.png", palette_png(item.labels, space.palette()))


def with_distinct_colors(space: LabelSpace) -> LabelSpace:
    """Return the classes with colours by which they can be told apart; black, which is void, is none of them."""
    taken, hues = {(0, 0, 0)}, iter(np.arange(1, 1 + 4 * space.num_classes) * 0.618 % 1)  # golden ratio: all differ
    colors = []
    for color in space.colors:
        while color in taken:
            red, green, blue = colorsys.hsv_to_rgb(float(next(hues)), 0.8, 0.9)
            color = (round(255 * red), round(255 * green), round(255 * blue))
        taken.add(color)
        colors.append(color)
    return replace(space, colors=tuple(colors))


def _labelmap(space: LabelSpace) -> str:
    """Return the content of labelmap.txt: label, colour, parts, actions.

    Raises:
        UsageError: a name cannot stand in it.
    """
    for name in space.names:
        if ":" in name or name.startswith("#") or name != name.strip() or not name.isprintable():
            raise UsageError(f"the class {name!r} cannot stand in CVAT's labelmap.txt. Leave --format cvat out.")
    void = [] if "background" in space.names else [("background", (0, 0, 0))]
    entries = [*void, *zip(space.names, space.colors, strict=True)]
    rows = [f"{name}:{','.join(map(str, color))}::" for name, color in entries]
    return "\n".join(["# label:color_rgb:parts:actions", *rows, ""])


def _voc_colors() -> NDArray[np.uint8]:
    """Return Pascal VOC's colours by number [256,3]: three bits of the number a turn, from the highest down."""
    numbers = np.arange(256)
    colors = np.zeros((256, 3), dtype=np.uint8)
    for turn in range(8):
        for channel in range(3):
            colors[:, channel] |= ((numbers >> (3 * turn + channel) & 1) << (7 - turn)).astype(np.uint8)
    return colors


def write_cvat(folder: Path, frames: Iterable[Prefilled], space: LabelSpace) -> None:
    """Write the folders of CVAT's "Segmentation mask 1.1", and beside them what its pages ask for.

    JPEGImages/ has the frames. `upload.zip` has the rest: labelmap.txt, ImageSets/Segmentation/default.txt,
    SegmentationClass/ (colours of the classes, black where void) and SegmentationObject/ (one object a class, by which
    CVAT tells what is void). `labels.json` goes into the raw view of a new task's labels.

    Raises:
        UsageError: a class has a name that labelmap.txt cannot hold.
    """
    space = with_distinct_colors(space)
    parts = {"labelmap.txt": _labelmap(space).encode()}
    palette, objects = space.palette(), _voc_colors()
    names = []
    for item in frames:
        names.append(item.name)
        _write(folder / "JPEGImages" / f"{item.name}.png", _encoded(item.name, item.frame))
        parts[f"SegmentationClass/{item.name}.png"] = _encoded(item.name, palette[item.labels][..., ::-1])
        number = np.where(item.labels < space.num_classes, item.labels + 1, 0).astype(np.uint8)
        parts[f"SegmentationObject/{item.name}.png"] = _encoded(item.name, objects[number][..., ::-1])
    parts["ImageSets/Segmentation/default.txt"] = "".join(f"{name}\n" for name in names).encode()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        for name, data in sorted(parts.items()):
            _write(folder / name, data)
            file.writestr(zipfile.ZipInfo(name), data)  # a fixed date: the same frames give the same file
    _write(folder / "upload.zip", archive.getvalue())
    _write(folder / "classes.yaml", classes_text(space, label_colors=True).encode())
    labels = [
        {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*color), "type": "mask", "attributes": []}
        for name, color in zip(space.names, space.colors, strict=True)
    ]
    _write(folder / "labels.json", (json.dumps(labels, indent=2, ensure_ascii=False) + "\n").encode())


def write_preview(folder: Path, item: Prefilled, space: LabelSpace) -> None:
    """Write a picture into preview/: the frame, the labels over it, and where to look first (bright)."""
    rows, columns = item.labels.shape
    doubt = cv2.resize(np.clip(255 * item.doubt, 0, 255).astype(np.uint8), (columns, rows))
    bright = np.asarray(cv2.applyColorMap(doubt, cv2.COLORMAP_INFERNO), dtype=np.uint8)
    pictures = (item.frame, overlay(item.frame, item.labels, space), bright)
    drawn = explained(pictures, ("frame", "pre-filled", "views disagree"), space, item.labels)
    _write(folder / "preview" / f"{item.name}.jpg", _encoded(item.name, drawn, ".jpg"))
