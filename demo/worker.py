"""Decodes and segments files, in a process that the page may kill at any instant.

Started by `pool` with one end of a pipe. Does one task after the other, keeps models open, and ends with the page.
"""

import csv
import json
import logging
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_infer import InputError, LsrError, Segmentation, Segmenter
from lsr_infer.errors import stderr_handler
from lsr_infer.io.image_headers import is_still
from lsr_infer.io.images import depth_note, extra_pictures, image_size, read_image, resize_frame, used_bits
from lsr_infer.render.draw import Drawer, DrawingOptions, MaskIds, SegmentedFrame
from lsr_infer.system.process import Trimmer, watch_parent
from lsr_infer.system.threads import BackgroundWriter, prefetch
from lsr_infer.text import csv_cell
from lsr_infer.video.containers import VideoFrame, VideoInfo
from lsr_infer.video.reader import probe, read_frames
from lsr_infer.video.writer import AudioSource, VideoOptions, VideoWriter
from settings import Limits, ModelChoice, sides

__all__ = ["TASKS", "open_model", "opened_models"]

logger = logging.getLogger("demo.worker")

_OPEN_MODELS = 4
_TIMED_RUNS = 5
_REPORT_SECONDS = 0.2
_PLOTTED_TIMES = 150

Models = Callable[[ModelChoice], Segmenter]
Report = Callable[[dict[str, Any]], None]


def open_model(models: Models, report: Report, *, choice: ModelChoice) -> dict[str, Any]:
    """Open a model, so that it is known whether it can be used here."""
    model = models(choice)
    return {"manifest": model.manifest, "runs_on": f"{model.device}, {model.backend}, {model.precision}"}


def segment_picture(
    models: Models, report: Report, *, path: Path, choices: list[ModelChoice], limits: Limits, folder: Path, timed: bool
) -> dict[str, Any]:
    """Segment a picture with one or two models.

    Writes `original.jpg`; for each model by its side `SIDE_overlay.png`, `SIDE_mask.png` (palette PNG) and `SIDE.npz`;
    `shares.csv`, `result.json` and `results.zip`. Where `timed`, the models run several times in turn.
    """
    limits.check_bytes(path.name, path.stat().st_size)
    limits.check_pixels(path.name, *image_size(path))
    bits = used_bits(path)
    frame = read_image(path, bits)
    if extra := extra_pictures(path):
        raise InputError(f"{path.name} holds {extra + 1} pictures. Send it as a video, or send one of them.")
    opened = [models(choice) for choice in choices]
    runs = [[_timed(model, frame) for model in opened] for _ in range(_TIMED_RUNS if timed else 1)]
    results = [result for result, _ in runs[-1]]
    layers: list[dict[str, Any]] = []
    _write_image(folder / "original.jpg", frame)
    for number, (side, model, result) in enumerate(zip(sides(len(choices)), opened, results, strict=True)):
        _write_image(folder / f"{side}_overlay.png", result.overlay(frame))
        (folder / f"{side}_mask.png").write_bytes(result.to_png())
        found = {"classes": result.classes} if result.logits is None else {"logits": result.logits}
        np.savez(folder / f"{side}.npz", **found)
        colors = dict(zip(model.label_space.names, map(_hex, model.label_space.colors), strict=True))
        milliseconds = round(median(run[number][1] for run in runs), 1)
        layers.append({
            "title": choices[number].title, "milliseconds": milliseconds, "device": model.device, "colors": colors,
            "shares": {name: round(share, 6) for name, share in result.shares().items()},
        })  # fmt: skip
    names = dict.fromkeys(name for layer in layers for name in layer["shares"])
    rows = ([name, *(layer["shares"].get(name, 0.0) for layer in layers)] for name in names)
    _write_table(folder / "shares.csv", ["class", *(choice.title for choice in choices)], rows)
    height, width = frame.shape[:2]
    document = {
        "name": path.name, "width": width, "height": height, "layers": layers, "agreement": _agreement(results),
        "note": depth_note(bits),
    }  # fmt: skip
    (folder / "result.json").write_text(json.dumps(document, indent=2), encoding="utf-8")
    files = sorted(folder.iterdir())
    with zipfile.ZipFile(folder / "results.zip", "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            archive.write(file, file.name)
    return document


def draw_view(models: Models, report: Report, *, folder: Path, view: str, choices: list[ModelChoice]) -> dict[str, Any]:
    """Draw the confidence, or the difference of two models, of a picture; returns the file names of both sides."""
    if not (folder / "original.jpg").is_file():
        raise InputError("This result is no longer here. Send the picture again.")
    frame, results = read_image(folder / "original.jpg"), []
    for side, choice in zip(sides(len(choices)), choices, strict=True):
        with np.load(folder / f"{side}.npz", allow_pickle=False) as found:
            results.append(Segmentation(models(choice).label_space, frame.shape[:2], **dict(found)))
    if view == "confidence":
        names = [f"{side}_confidence.png" for side in sides(len(results))]
        for name, result in zip(names, results, strict=True):
            levels = np.rint(result.confidence * 255).astype(np.uint8)
            _write_image(folder / name, cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS))
    else:
        grey = np.repeat(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY)[:, :, None] // 2, 3, axis=2)
        differs, names = results[0].classes != results[1].classes, ["difference.png"]
        _write_image(folder / names[0], np.where(differs[:, :, None], results[1].overlay(frame, 0.8), grey))
    return {"left": ["original.jpg", *names][-2], "right": names[-1]}


def segment_clip(
    models: Models, report: Report, *, path: Path, choices: list[ModelChoice], every: int, limits: Limits, folder: Path
) -> dict[str, Any]:
    """Segment one frame in `every` of a video with one model, shown beside the original, or with two.

    Writes `before_after.mp4` (side by side, the classes below), `masks.zip` (a palette PNG for each frame) and
    `shares.csv`. Reports `frames`, `total` (None where unknown) and `seconds` a few times a second.
    """
    info = _checked_clip(path, limits)
    opened, titles = [models(choice) for choice in choices], [choice.title for choice in choices]
    left, right = ["original", *titles][-2:]
    space, audio = opened[-1].label_space, AudioSource(place=path)
    drawer = Drawer(DrawingOptions(ids=MaskIds.of("train", space), captions=(left, right)), space, video=True)
    rows: list[list[float]] = []
    total = None if info.frames is None else -(-info.frames // every)
    started = reported = time.monotonic()
    report({"frames": 0, "total": total, "seconds": 0.0})
    frames = _Frames(path, every)
    options = VideoOptions(like=info, audio=audio)
    height, width = drawer.size(info.height, info.width)
    clip = folder / "before_after.mp4"

    def finish(done: tuple[VideoFrame, list[Segmentation]]) -> None:
        """Draw and encode a frame, while the network already works on the next one."""
        item, results = done
        masks.writestr(f"{len(rows):06d}.png", results[-1].to_png())
        rows.append([item.time - info.origin, *(share for result in results for share in _all_shares(result))])
        other = results[0] if len(results) > 1 else None
        drawn = drawer(SegmentedFrame(item, len(rows), item.time, results[-1], other))
        assert drawn.picture is not None  # captions ask for one
        video.write(drawn.picture, item.time)

    with (
        VideoWriter(clip, width=width, height=height, fps=info.fps / every, options=options) as video,
        zipfile.ZipFile(folder / "masks.zip", "w", zipfile.ZIP_STORED) as masks,
        BackgroundWriter(finish, 2) as background,
    ):
        for number, item in enumerate(prefetch(frames, 4)):
            limits.check_length(path.name, item.time - info.origin, (number + 1) * every)
            item = replace(item, frame=resize_frame(item.frame, info.height, info.width))
            background.put((item, [model(item.frame) for model in opened]))
            now = time.monotonic()
            if now - reported > _REPORT_SECONDS:
                reported = now
                report({"frames": number + 1, "total": total, "seconds": now - started})
        if frames.broken:
            audio.cut.set()
    columns = [
        f"{title}: {name}" for title, model in zip(titles, opened, strict=True) for name in model.label_space.names
    ]
    _write_table(folder / "shares.csv", ["frame", "time", *columns], ([n, *row] for n, row in enumerate(rows)))
    notes = [f"The file is damaged: nothing after frame {len(rows)} could be read."] if frames.broken else []
    if info.width == limits.shown_width:
        notes.append(f"Segmented at {info.width} x {info.height} pixels.")
    return {
        "name": path.name, "frames": len(rows), "seconds": time.monotonic() - started, "notes": notes,
        "curves": _curves(np.array(rows), opened[-1]),
    }  # fmt: skip


class _Frames:
    """The frames of a video; where it breaks after the first one, it ends and `broken` says so."""

    def __init__(self, path: Path, every: int) -> None:
        number = count()
        self._frames = read_frames(path, keep=lambda _: next(number) % every == 0)
        self.broken = False

    def __iter__(self) -> Iterator[VideoFrame]:
        yield next(self._frames)
        try:
            yield from self._frames
        except InputError:
            self.broken = True


def _checked_clip(path: Path, limits: Limits) -> VideoInfo:
    """Return a video's description, with the size at which it is segmented."""
    limits.check_bytes(path.name, path.stat().st_size)
    if is_still(path):
        raise InputError(f"{path.name} is a picture, no video. Send it on the tab Picture.")
    info = probe(path)
    limits.check_pixels(path.name, info.height, info.width)
    limits.check_length(path.name, info.duration, info.frames)
    if info.frames == 1:
        raise InputError(f"{path.name} is a single picture. Send it on the tab Picture.")
    if info.width <= limits.shown_width:
        return info
    height = max(2, 2 * round(info.height * limits.shown_width / info.width / 2))
    return replace(info, width=limits.shown_width, height=height)


def _timed(model: Segmenter, frame: NDArray[np.uint8]) -> tuple[Segmentation, float]:
    """Segment a frame down to the class of every pixel; return the result and milliseconds."""
    start = time.perf_counter()
    result = model(frame)
    _ = result.classes  # computed on first use
    return result, 1000 * (time.perf_counter() - start)


def _all_shares(result: Segmentation) -> list[float]:
    counts = np.bincount(result.classes.ravel(), minlength=result.label_space.num_classes)
    return [round(share, 5) for share in (counts / counts.sum()).tolist()]


def _curves(rows: NDArray[np.float64], model: Segmenter) -> dict[str, Any]:
    """Return what is plotted of a model's classes, the most frequent first, at a limited number of times."""
    rows, space = rows[:: -(-len(rows) // _PLOTTED_TIMES)], model.label_space
    shares = rows[:, -space.num_classes :]
    order = [c for c in np.argsort(-shares.mean(axis=0)).tolist() if shares[:, c].any()]
    classes = [{"name": space.names[c], "color": _hex(space.colors[c]), "shares": shares[:, c].tolist()} for c in order]
    return {"times": rows[:, 0].round(3).tolist(), "classes": classes}


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _agreement(results: list[Segmentation]) -> float | None:
    """Return the share of pixels on which two models of the same classes agree."""
    if len(results) < 2 or results[0].label_space.names != results[1].label_space.names:
        return None
    return round(float(np.mean(results[0].classes == results[1].classes)), 6)


def _write_table(path: Path, head: list[str], rows: Iterable[list[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(map(csv_cell, row) for row in (head, *rows))


def _write_image(path: Path, picture: NDArray[Any]) -> None:
    quality = [cv2.IMWRITE_PNG_COMPRESSION, 1] if path.suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 92]
    if not cv2.imwrite(str(path), picture, quality):
        raise InputError("The result cannot be written. The picture is too long, or the server has no room left.")


def opened_models() -> Models:
    """Return a function that opens models and keeps a few of them open."""
    kept: OrderedDict[tuple[ModelChoice, int], Segmenter] = OrderedDict()

    def model(choice: ModelChoice) -> Segmenter:
        key = (choice, choice.path.stat().st_mtime_ns if choice.path.is_file() else 0)
        if key not in kept:
            options: dict[str, Any] = {"threads": choice.threads, "precision": choice.precision}
            kept[key] = Segmenter(choice.path, choice.device, choice.backend, **options)
        kept.move_to_end(key)
        while len(kept) > _OPEN_MODELS:
            kept.popitem(last=False)[1].close()
        return kept[key]

    return model


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "open": open_model, "picture": segment_picture, "view": draw_view, "clip": segment_clip,
}  # fmt: skip


def _answer(task: str, options: dict[str, Any], models: Models, connection: Connection) -> tuple[str, Any]:
    """Do a task; return `done` and the result, or `failed` and a sentence."""
    try:
        return "done", TASKS[task](models, lambda news: connection.send(("progress", news)), **options)
    except LsrError as error:
        text = str(error)
        paths = [options.get("path"), options.get("folder"), getattr(options.get("choice"), "path", None)]
        for path in filter(None, paths):  # the server's folders are not shown
            text = text.replace(str(path), path.name)
        return "failed", text
    except BrokenPipeError:
        raise
    except MemoryError:
        return "failed", "This needs more memory than the server has. Send something smaller."
    except Exception:
        logger.exception("%s failed", task)
        return "failed", "Something went wrong on the server, and its log has the details. Try another file."


def main() -> None:
    """Do tasks until the pipe is closed."""
    watch_parent()
    logging.basicConfig(level=logging.WARNING, handlers=[stderr_handler()])
    connection, models, trim = Connection(int(sys.argv[1])), opened_models(), Trimmer(seconds=0.0)
    while True:
        try:
            task, options = connection.recv()
            connection.send(_answer(task, options, models, connection))
        except (EOFError, ConnectionError):
            return
        trim()


if __name__ == "__main__":
    main()
