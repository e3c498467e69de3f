"""Pictures in a worker process: an uploaded file or a camera's frame, through one model or two.

What a browser shows is always encoded anew; not a byte of an upload is handed out as it came.
"""

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError
from lsr_infer.io.image_headers import BrokenImageError, inspect_image, walk_pictures
from lsr_infer.io.images import decode_image
from lsr_infer.labelspace import LabelSpace
from lsr_infer.render.masks import peak_probability
from lsr_infer.segmenter import Segmentation, Segmenter
from lsr_infer.web.limits import Limits
from lsr_infer.web.requests import ConfidenceRequest, FrameRequest, ImageRequest, ModelChoice

__all__ = ["classes_document", "confidence_map", "segment_frame", "segment_image"]

_JPEG_QUALITY = 92
_PNG_EFFORT = 1
"""A mask of 1024x512: 3 ms and 20 kB, against 14 ms and 14 kB at 6."""

Open = Callable[[ModelChoice], Segmenter]
"""Gives the loaded model of a choice."""


def segment_image(request: ImageRequest, segmenters: Open) -> dict[str, Any]:
    """Segment an uploaded picture and write what the page shows of it.

    Writes `picture.jpg`, and for each model by its place `N_mask.png` (grey, the class indices), `N_palette.png` (the
    same as a palette PNG), `N_overlay.png` and, where the model gives logits, `N_logits.npy`; `result.json`.

    Returns:
        The document of `result.json`.

    Raises:
        InputError: the file is no whole picture, or more than the limits allow; or a model failed.
    """
    frame = _decode(request.path.read_bytes(), request.name, request.limits)
    layers, found, opened = [], [], []
    for number, choice in enumerate(request.models):
        segmenter = segmenters(choice)
        segmentation, milliseconds = _timed(segmenter, frame)
        opened.append(segmenter)
        found.append(segmentation)
        layers.append(_layer(choice, segmenter, segmentation, milliseconds))
        stem = request.folder / str(number)
        _write(Path(f"{stem}_mask.png"), _png(segmentation.classes))
        _write(Path(f"{stem}_palette.png"), segmentation.to_png())
        _write(Path(f"{stem}_overlay.png"), _png(segmentation.overlay(frame)))
        if segmentation.logits is not None:
            content = io.BytesIO()
            np.save(content, segmentation.logits, allow_pickle=False)
            _write(Path(f"{stem}_logits.npy"), content.getvalue())
    if request.compared:
        for layer, segmenter in zip(layers, opened, strict=True):
            layer["milliseconds"] = round(min(layer["milliseconds"], _timed(segmenter, frame)[1]), 2)
    elif len(layers) > 1:
        for layer in layers:
            layer["milliseconds"] = None  # whoever comes first finds cold caches
    _write(request.folder / "picture.jpg", _jpeg(frame))
    document = {
        "name": request.name,
        "width": frame.shape[1],
        "height": frame.shape[0],
        "layers": layers,
        "agreement": _agreement(found),
    }
    _write(request.folder / "result.json", json.dumps(document, indent=2, allow_nan=False).encode())
    return document


def segment_frame(request: FrameRequest, segmenters: Open) -> dict[str, Any]:
    """Segment one frame of a camera.

    Returns:
        `mask`, the content of a grey PNG of class indices, and `milliseconds` that the network took.

    Raises:
        InputError: the data is no whole picture, or more than the limits allow; or the model failed.
    """
    frame = _decode(request.data, "the camera's frame", request.limits)
    segmentation, milliseconds = _timed(segmenters(request.model), frame)
    return {"mask": _png(segmentation.classes), "milliseconds": milliseconds}


def confidence_map(request: ConfidenceRequest) -> dict[str, Any]:
    """Write `N_confidence.png`, the probability of each pixel's class times 255.

    Raises:
        InputError: the results are no longer there.
    """
    try:
        document = json.loads((request.folder / "result.json").read_text(encoding="utf-8"))
        logits = np.load(request.folder / f"{request.layer}_logits.npy", allow_pickle=False)
    except OSError as error:
        raise InputError("This result is no longer here. Send the picture again.") from error
    probability = peak_probability(logits, document["height"], document["width"])
    _write(request.folder / f"{request.layer}_confidence.png", _png(np.rint(probability * 255).astype(np.uint8)))
    return {}


def classes_document(space: LabelSpace) -> list[dict[str, str]]:
    """Return names and colours of the classes, as the page's scripts take them."""
    return [
        {"name": name, "color": "#{:02x}{:02x}{:02x}".format(*color)}
        for name, color in zip(space.names, space.colors, strict=True)
    ]


def _decode(data: bytes, name: str, limits: Limits) -> NDArray[np.uint8]:
    """Decode a picture after looking at what it claims to be."""
    limits.check_bytes(name, len(data))
    try:
        header = inspect_image(data)
    except BrokenImageError as error:
        raise InputError(f"{name} {error}. Send another file.") from error
    limits.check_pixels(name, header.height, header.width)
    pictures = walk_pictures(data).count
    if pictures > 1:
        raise InputError(f"{name} holds {pictures} pictures. Send it as a video, or send one of them.")
    try:
        return decode_image(data, name)
    except InputError as error:
        raise InputError(f"{name} cannot be decoded; it is damaged. Send another file.") from error


def _layer(
    choice: ModelChoice, segmenter: Segmenter, segmentation: Segmentation, milliseconds: float
) -> dict[str, Any]:
    """Describe what one model says."""
    shares = segmentation.shares()
    return {
        "title": choice.title,
        "model": choice.path.name,
        "method": segmenter.manifest.method,
        "device": segmenter.device,
        "backend": segmenter.backend,
        "precision": segmenter.precision,
        "milliseconds": round(milliseconds, 2),
        "label_space": segmenter.label_space.name,
        "classes": classes_document(segmenter.label_space),
        "shares": {name: round(share, 6) for name, share in shares.items()},
        "has_confidence": segmentation.logits is not None,
    }


def _timed(segmenter: Segmenter, frame: NDArray[np.uint8]) -> tuple[Segmentation, float]:
    """Return what a model says of a frame, down to the class of every pixel, and how long that took."""
    begin = time.perf_counter()
    segmentation = segmenter(frame)
    _ = segmentation.classes  # computed when first asked for
    return segmentation, 1000 * (time.perf_counter() - begin)


def _agreement(found: list[Segmentation]) -> float | None:
    """Return the share of pixels on which two models of the same classes agree."""
    if len(found) < 2 or found[0].label_space.names != found[1].label_space.names:
        return None
    return round(float(np.mean(found[0].classes == found[1].classes)), 6)


def _png(picture: NDArray[np.uint8]) -> bytes:
    return cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_EFFORT])[1].tobytes()


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    encoded, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not encoded:
        raise InputError("The picture is too long for a JPEG, which the page needs. Cut it.")
    return data.tobytes()


def _write(path: Path, data: bytes) -> None:
    """Write a result; what stands in the way is the server's disk, not the user's file."""
    try:
        path.write_bytes(data)
    except OSError as error:
        raise InputError("The server has no room for results at the moment. Try again later.") from error
