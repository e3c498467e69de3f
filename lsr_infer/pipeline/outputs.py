"""Names and writes the results of sources: overlays, masks, confidence and class shares.

The results of a source appear together under their final names once all are whole.
"""

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.files import AtomicOutputs, output_path_error, writing
from lsr_infer.io.images import palette_png
from lsr_infer.io.sources import Source
from lsr_infer.labelspace import LabelSpace
from lsr_infer.render.draw import DrawingOptions, DrawnFrame, MaskIds
from lsr_infer.video.containers import VideoInfo
from lsr_infer.video.writer import AudioSource, MaskVideoWriter, VideoOptions, VideoWriter

__all__ = ["FRAME_FILES", "FrameFormat", "Outputs", "Sink", "open_sink", "plan_all", "plan_outputs", "write_overlay"]

Outputs = Mapping[str, Path]
"""Where the results of one source go, by kind."""


def plan_outputs(source: Source, folder: Path | None, drawing: DrawingOptions) -> Outputs:
    """Name the results of a source; without a folder there are none."""
    if folder is None:
        return {}
    base = folder / source.name
    image = source.kind == "image"
    endings = {
        "overlay": f"_{'side_by_side' if drawing.captions else 'overlay'}{'.jpg' if image else '.mp4'}",
        "mask": "_mask.png" if image else "_mask.mkv" if drawing.lossless else "_mask",
        "confidence": "_confidence.png" if image else "_confidence",
        "json": "_classes.jsonl",
    }
    return {kind: base.with_name(f"{base.name}{endings[kind]}") for kind in endings if kind in drawing.save}


def plan_all(
    sources: Sequence[Source], folder: Path | None, drawing: DrawingOptions, *, inputs: Sequence[Path] = ()
) -> dict[Source, Outputs]:
    """Name the results of all sources; none equals another or lies inside it.

    A video's folder of masks may bear the name of a folder in which other results lie, `clip_mask/` for instance. The
    video is then numbered: `clip_2_mask/`. The same sources always get the same names.

    Raises:
        UsageError: a result would take the place of a source or of one of `inputs`, or of a folder that holds it.
    """
    if folder is None:
        return {source: {} for source in sources}
    # Every result lies directly in one of these; as long as none bears the name of one, none lies inside another.
    taken = {folder / parent for source in sources for parent in source.name.parents}
    plans: dict[Source, Outputs] = {}
    for source in sources:
        outputs, number = plan_outputs(source, folder, drawing), 1
        while not taken.isdisjoint(outputs.values()):
            number += 1
            name = source.name.with_name(f"{source.name.name}_{number}")
            outputs = plan_outputs(replace(source, name=name), folder, drawing)
        taken.update(outputs.values())
        plans[source] = outputs
    _keep_inputs(plans, inputs)
    return plans


def _keep_inputs(plans: Mapping[Source, Outputs], inputs: Sequence[Path]) -> None:
    """Raise where a result bears the name of what is read, or of a folder that holds it, links followed or not."""
    real = cache(os.path.realpath)

    def names(path: Path) -> set[str]:
        """Return a path as it is written, and where it leads if it is a link."""
        return {os.path.join(real(path.parent), path.name), *([real(path)] if os.path.islink(path) else [])}

    owners: dict[str, str] = {}
    read = [(source.place, f"the source {source.label}") for source in plans if isinstance(source.place, Path)]
    for path, what in read + [(path, str(path)) for path in inputs]:
        for place in names(path):
            while place not in owners and place != os.path.dirname(place):
                owners[place] = what
                place = os.path.dirname(place)
    for source, outputs in plans.items():
        for path in outputs.values():
            for place in names(path):
                if place in owners:
                    raise UsageError(
                        f"{path} would be a result of {source.label} and is, or holds, {owners[place]}, which is read. "
                        "Choose another --output."
                    )


FRAME_FILES = re.compile(r"\d{6,}\.png")
"""What lies in the folders that this writes: numbered frames and nothing else."""

_JPEG_QUALITY = 95
_PNG_EFFORT = 1
"""Measured on confidence maps of 1280x720: 20 ms and 260 kB against 60 ms and 210 kB at 6."""


@dataclass(frozen=True, kw_only=True)
class FrameFormat:
    """What a sink must know before the first frame; `info` is None for an image, `audio` None for silence.

    `picture_size` is rows and columns of a video's overlays, zeros for an image, whose legend gives its own. Result
    videos begin at the time `begin`.
    """

    source: str
    info: VideoInfo | None
    height: int
    width: int
    picture_size: tuple[int, int]
    label_space: LabelSpace
    ids: MaskIds
    model: str
    live: bool = False
    audio: AudioSource | None = None
    overwrite: bool = False
    begin: float = 0.0


Sink = Callable[[DrawnFrame], None]
"""Takes one frame's results after the other."""


def open_sink(kind: str, path: Path, frame: FrameFormat, results: AtomicOutputs) -> AbstractContextManager[Sink]:
    """Open one result of a source: `kind` is one of `KINDS`, the form of `path` decides which of its sinks this is.

    Raises:
        InputError: the place cannot be written, here or when the context ends.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_path_error(path.parent, error) from error
    if kind == "json":
        return _lines(path, frame, results)
    if path.suffix == ".mp4":
        return _video(path, frame, results)
    if path.suffix == ".mkv":
        return _mask_video(path, frame, results)
    return _pictures(kind, path, frame, results)


def _encode(kind: str, drawn: DrawnFrame, frame: FrameFormat) -> bytes:
    """Return one frame's JPEG of an overlay, or PNG of a mask or confidence."""
    if kind == "mask":
        return palette_png(frame.ids.numbers(drawn.classes), frame.ids.palette)
    if kind == "confidence":
        assert drawn.confidence is not None
        return cv2.imencode(".png", drawn.confidence, [cv2.IMWRITE_PNG_COMPRESSION, _PNG_EFFORT])[1].tobytes()
    assert drawn.picture is not None
    encoded, data = cv2.imencode(".jpg", drawn.picture, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
    if not encoded:
        height, width = drawn.picture.shape[:2]
        raise InputError(f"{frame.source}: {width}x{height} pixels do not fit into a JPEG.")
    return data.tobytes()


@contextmanager
def _pictures(kind: str, path: Path, frame: FrameFormat, results: AtomicOutputs) -> Iterator[Sink]:
    """Write the only frame of an image, or one file a frame into a folder."""
    if frame.info is None:
        place = results.file(path, overwrite=frame.overwrite)
    else:
        place = results.folder(path, overwrite=frame.overwrite, own=FRAME_FILES)

    def write(drawn: DrawnFrame) -> None:
        data = _encode(kind, drawn, frame)
        with writing(path):
            (place if frame.info is None else place / f"{drawn.index:06d}.png").write_bytes(data)

    yield write


@contextmanager
def _video(path: Path, frame: FrameFormat, results: AtomicOutputs) -> Iterator[Sink]:
    assert frame.info is not None
    options = VideoOptions(
        like=frame.info, audio=frame.audio, fragmented=frame.live, outputs=results, begin=frame.begin
    )
    size = dict(zip(("height", "width"), frame.picture_size, strict=True))
    with VideoWriter(path, **size, fps=frame.info.fps, overwrite=frame.overwrite, options=options) as writer:
        yield partial(write_overlay, writer)


def write_overlay(writer: VideoWriter, drawn: DrawnFrame) -> None:
    """Append a frame's overlay to its video, as it was drawn."""
    if drawn.planes is not None:
        writer.write_planes(drawn.planes, drawn.time)
    else:
        assert drawn.picture is not None
        writer.write(drawn.picture, drawn.time)


@contextmanager
def _mask_video(path: Path, frame: FrameFormat, results: AtomicOutputs) -> Iterator[Sink]:
    assert frame.info is not None
    size, options = {"width": frame.width, "height": frame.height}, VideoOptions(outputs=results, begin=frame.begin)
    with MaskVideoWriter(path, **size, fps=frame.info.fps, overwrite=frame.overwrite, options=options) as writer:
        yield lambda drawn: writer.write(frame.ids.numbers(drawn.classes), drawn.time)


@contextmanager
def _lines(path: Path, frame: FrameFormat, results: AtomicOutputs) -> Iterator[Sink]:
    r"""Write one JSON document a line: what the source is, then every frame's time and class shares.

    Bytes of a file's name that are no UTF-8 stand there as JSON's own escapes, such as `\udcff` for the byte 0xff.
    """
    temporary = results.file(path, overwrite=frame.overwrite)
    with writing(path):
        file = temporary.open("w", encoding="utf-8", errors="backslashreplace")

    def write(document: Mapping[str, Any]) -> None:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False)
        with writing(path):
            file.write(f"{text}\n")

    try:
        space = frame.label_space
        head = {"source": frame.source, "model": frame.model, "width": frame.width, "height": frame.height}
        write(head | {"label_space": space.name, "classes": list(space.names)})
        yield lambda drawn: write(_entry(drawn, frame))
    finally:
        with writing(path):
            file.close()


def _entry(drawn: DrawnFrame, frame: FrameFormat) -> dict[str, Any]:
    names = frame.label_space.names
    counts = np.bincount(drawn.classes.ravel(), minlength=256) / drawn.classes.size
    shares = {name: round(float(counts[n]), 6) for n, name in enumerate(names) if counts[n]}
    entry: dict[str, Any] = {"frame": drawn.index, "time": round(drawn.time, 6)}
    if drawn.source_time != drawn.time:
        entry["source_time"] = round(drawn.source_time, 6)
    return entry | {"shares": shares, "void": round(float(counts[len(names) :].sum()), 6)}
