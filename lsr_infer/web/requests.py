"""What the page asks a worker process to do, as plain data that travels through a pipe."""

from dataclasses import dataclass
from pathlib import Path

from lsr_infer.web.limits import Limits

__all__ = [
    "ClipRequest",
    "ConfidenceRequest",
    "FrameRequest",
    "ImageRequest",
    "ModelChoice",
    "OpenRequest",
    "Request",
    "StopRequest",
]


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """A model, and how it is opened.

    Args:
        path: its file.
        title: what the page calls it.
        device: `auto`, `cpu` or `cuda:N`.
        backend: a key of `lsr_infer.backends.BACKENDS`; None chooses by the file's ending.
        precision: arithmetic, None for the file's own.
        threads: CPU threads; 0 takes one a physical core.
    """

    path: Path
    title: str
    device: str = "auto"
    backend: str | None = None
    precision: str | None = None
    threads: int = 0


@dataclass(frozen=True, kw_only=True)
class ImageRequest:
    """Segment a picture.

    Args:
        path: the uploaded file.
        name: what the user calls it.
        models: one or two.
        folder: an empty folder for the results.
        limits: what is decoded.
        compared: the times of the models are to be compared, so they are taken twice.
    """

    path: Path
    name: str
    models: tuple[ModelChoice, ...]
    folder: Path
    limits: Limits
    compared: bool = False


@dataclass(frozen=True, kw_only=True)
class ClipRequest:
    """Segment a video.

    Args:
        path: the uploaded file.
        name: what the user calls it.
        models: one, shown beside the frames, or two, beside each other.
        folder: an empty folder for the results.
        limits: what is decoded.
        every: take one of so many frames.
        alpha: share of the colour.
    """

    path: Path
    name: str
    models: tuple[ModelChoice, ...]
    folder: Path
    limits: Limits
    every: int = 1
    alpha: float = 0.5


@dataclass(frozen=True, kw_only=True)
class FrameRequest:
    """Segment one frame of a camera.

    Args:
        data: the content of an image file.
        model: with which model.
        limits: what is decoded.
    """

    data: bytes
    model: ModelChoice
    limits: Limits


@dataclass(frozen=True, kw_only=True)
class ConfidenceRequest:
    """Compute how sure a model is of every pixel of a picture it has segmented.

    Args:
        folder: of the picture's results.
        layer: the place of the model.
    """

    folder: Path
    layer: int


@dataclass(frozen=True, kw_only=True)
class OpenRequest:
    """Open a model and say what it runs on.

    Args:
        model: which.
    """

    model: ModelChoice


@dataclass(frozen=True)
class StopRequest:
    """End what is under way; nothing of it is wanted. Too late, it means nothing."""


Request = ImageRequest | ClipRequest | FrameRequest | ConfidenceRequest | OpenRequest
