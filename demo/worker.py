"""Decodes and segments files, in a process that the page may kill at any instant.

Started by `pool` with one end of a pipe. It does one task after the other, keeps the models that it has opened, and
ends with the page. Knows files and numbers, nothing of the page.
"""

import csv
import json
import logging
import sys
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lsr_infer import InputError, LabelSpace, LsrError, Segmentation, Segmenter
from lsr_infer.errors import stderr_handler
from lsr_infer.io.images import extra_pictures, image_size, read_image, resize_frame
from lsr_infer.render.overlay import captioned, side_by_side
from lsr_infer.system.process import Trimmer, end_with_parent
from lsr_infer.video.containers import VideoFrame, VideoInfo
from lsr_infer.video.reader import probe, read_frames
from lsr_infer.video.writer import AudioSource, VideoOptions, VideoWriter
from settings import Limits, ModelChoice

__all__ = ["TASKS"]

logger = logging.getLogger("demo.worker")

_OPEN_MODELS = 4
_TIMED_RUNS = 5
_REPORT_SECONDS = 0.2
_PLOTTED_TIMES = 150
_GAP = 4
_PENDING = 2
"""Frames that wait for the thread that draws and encodes."""

Models = Callable[[ModelChoice], Segmenter]
Report = Callable[[dict[str, Any]], None]


def open_model(models: Models, report: Report, *, choice: ModelChoice) -> dict[str, Any]:
    """Open a model, so that it is known whether it can be used here."""
    model = models(choice)
    return {"manifest": model.manifest, "runs_on": f"{model.device}, {model.backend}, {model.precision}"}


def segment_picture(
    models: Models, report: Report, *, path: Path, choices: list[ModelChoice], limits: Limits, folder: Path, timed: bool
) -> dict[str, Any]:
    """Segment a picture with one or two models and write the results.

    Writes `original.jpg`, and for each model by its number `N_overlay.png`, `N_mask.png` (palette PNG) and `N.npz`;
    `shares.csv` and `results.zip`.

    Args:
        models: gives opened models.
        report: not used.
        path: the uploaded file.
        choices: one or two models.
        limits: what is decoded.
        folder: an empty folder for the results.
        timed: run each model several times in turn and give the median.

    Returns:
        Name, size, what each model found, and the share of the pixels on which two models agree.

    Raises:
        InputError: the file is no whole picture or beyond the limits, or a model failed.
    """
    limits.check_bytes(path.name, path.stat().st_size)
    limits.check_pixels(path.name, *image_size(path))
    frame = read_image(path)
    if extra := extra_pictures(path):
        raise InputError(f"{path.name} holds {extra + 1} pictures. Send it as a video, or send one of them.")
    opened = [models(choice) for choice in choices]
    runs = [[_timed(model, frame) for model in opened] for _ in range(_TIMED_RUNS if timed else 1)]
    results = [result for result, _ in runs[-1]]
    layers = [
        _layer(choice, model, result, median(run[number][1] for run in runs))
        for number, (choice, model, result) in enumerate(zip(choices, opened, results, strict=True))
    ]
    _write_png_or_jpeg(folder / "original.jpg", frame)
    for number, result in enumerate(results):
        _write_png_or_jpeg(folder / f"{number}_overlay.png", result.overlay(frame))
        (folder / f"{number}_mask.png").write_bytes(result.to_png())
        found = {"classes": result.classes} if result.logits is None else {"logits": result.logits}
        np.savez(folder / f"{number}.npz", **found)
    document = {
        "name": path.name, "width": frame.shape[1], "height": frame.shape[0], "layers": layers,
        "agreement": _agreement(results),
    }  # fmt: skip
    _write_shares(folder / "shares.csv", layers)
    (folder / "result.json").write_text(json.dumps(document, indent=2), encoding="utf-8")
    with zipfile.ZipFile(folder / "results.zip", "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(folder.iterdir()):
            if file.name != "results.zip":
                archive.write(file, file.name)
    return document


def draw_view(models: Models, report: Report, *, folder: Path, view: str, choices: list[ModelChoice]) -> dict[str, Any]:
    """Draw the confidence, or the difference of two models, of a picture that was segmented.

    Returns:
        Names of the files for the left and the right side.

    Raises:
        InputError: the results are gone, or a model gives no confidence.
    """
    if not (folder / "original.jpg").is_file():
        raise InputError("This result is no longer here. Send the picture again.")
    frame = read_image(folder / "original.jpg")
    results = [
        _restored(folder / f"{number}.npz", models(choice).label_space, frame.shape[:2])
        for number, choice in enumerate(choices)
    ]
    names = []
    if view == "confidence":
        for number, result in enumerate(results):
            levels = np.rint(result.confidence * 255).astype(np.uint8)
            names.append(f"{number}_confidence.png")
            _write_png_or_jpeg(folder / names[-1], cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS))
    else:
        grey = cv2.cvtColor(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR) // 2
        differs = results[0].classes != results[1].classes
        names.append("difference.png")
        _write_png_or_jpeg(folder / names[-1], np.where(differs[:, :, None], results[1].overlay(frame, 0.8), grey))
    return {"left": names[0] if len(names) == 2 else "original.jpg", "right": names[-1]}


@dataclass(kw_only=True)
class _Shares:
    """How much of each frame every class takes.

    Args:
        spaces: the classes of each model.
        times: of the frames, in seconds.
        layers: for each model a [C] array for every frame.
    """

    spaces: list[LabelSpace]
    times: list[float] = field(default_factory=list)
    layers: list[list[NDArray[np.float64]]] = field(default_factory=list)

    def add(self, time_of_frame: float, results: list[Segmentation]) -> None:
        """Count the classes of a frame."""
        self.times.append(time_of_frame)
        self.layers = self.layers or [[] for _ in results]
        for layer, result in zip(self.layers, results, strict=True):
            counts = np.bincount(result.classes.ravel(), minlength=result.label_space.num_classes)
            layer.append(counts / counts.sum())

    def write(self, path: Path, titles: list[str]) -> None:
        """Write a table with a line for each frame."""
        names = [f"{title}: {name}" for title, space in zip(titles, self.spaces, strict=True) for name in space.names]
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["frame", "time", *names])
            for number, at in enumerate(self.times):
                values = [f"{share:.5f}" for layer in self.layers for share in layer[number]]
                writer.writerow([number, f"{at:.4f}", *values])

    def curves(self) -> dict[str, Any]:
        """Return what is plotted of the last model: at most so many times, and every class that occurs."""
        step = -(-len(self.times) // _PLOTTED_TIMES)
        shares, space = np.array(self.layers[-1])[::step], self.spaces[-1]
        found = [number for number in np.argsort(-shares.mean(axis=0)) if shares[:, number].any()]
        return {
            "times": [round(at, 3) for at in self.times[::step]],
            "classes": [
                {"name": space.names[c], "color": _hex(space.colors[c]), "shares": shares[:, c].round(5).tolist()}
                for c in found
            ],
        }


def segment_clip(
    models: Models, report: Report, *, path: Path, choices: list[ModelChoice], every: int, limits: Limits, folder: Path
) -> dict[str, Any]:
    """Segment a video with one or two models.

    Writes `before_after.mp4` (two pictures side by side), `masks.zip` (a palette PNG for each frame) and `shares.csv`.

    Args:
        models: gives opened models.
        report: called a few times a second with `frames`, `total` (None where unknown) and `seconds`.
        path: the uploaded file.
        choices: one model, shown beside the original, or two.
        every: segment one frame in so many.
        limits: what is decoded.
        folder: an empty folder for the results.

    Raises:
        InputError: the file is no video or beyond the limits, or a model failed.
    """
    info = _checked_clip(path, limits)
    opened = [models(choice) for choice in choices]
    titles = [choice.title for choice in choices]
    captions = ["original", *titles][-2:]
    shares = _Shares(spaces=[model.label_space for model in opened])
    total = None if info.frames is None else -(-info.frames // every)
    audio = AudioSource(place=path)
    started = reported = time.monotonic()
    report({"frames": 0, "total": total, "seconds": 0.0})
    reader = _Reader(path, every)
    pending: list[Future[None]] = []
    options = VideoOptions(like=info, audio=audio)
    width = 2 * info.width + _GAP
    with (
        VideoWriter(folder / "before_after.mp4", width=width, height=info.height, fps=info.fps / every,
                    options=options) as video,
        zipfile.ZipFile(folder / "masks.zip", "w", zipfile.ZIP_STORED) as masks,
        ThreadPoolExecutor(1) as background,
    ):  # fmt: skip

        def finish(frame: NDArray[np.uint8], at: float, results: list[Segmentation]) -> None:
            """Draw and encode a frame, while the network already works on the next one."""
            masks.writestr(f"{len(shares.times):06d}.png", results[-1].to_png())
            shares.add(at - info.origin, results)
            pictures = [frame, *(result.overlay(frame) for result in results)][-2:]
            halves = [captioned(picture, text) for picture, text in zip(pictures, captions, strict=True)]
            video.write(side_by_side(*halves, gap=_GAP), at)

        for number, item in enumerate(reader):
            limits.check_length(path.name, item.time - info.origin, (number + 1) * every)
            frame = resize_frame(item.frame, info.height, info.width)
            results = [model(frame) for model in opened]
            pending = _settled(pending, _PENDING)
            pending.append(background.submit(finish, frame, item.time, results))
            now = time.monotonic()
            if now - reported > _REPORT_SECONDS:
                reported = now
                report({"frames": number + 1, "total": total, "seconds": now - started})
        _settled(pending, 0)
        if reader.broken:
            audio.cut.set()
    shares.write(folder / "shares.csv", titles)
    frames = len(shares.times)
    notes = [f"The file is damaged: nothing after frame {frames} could be read."] if reader.broken else []
    if info.width == limits.shown_width:
        notes.append(f"Segmented at {info.width} x {info.height} pixels.")
    return {
        "name": path.name, "frames": frames, "seconds": time.monotonic() - started, "notes": notes,
        "curves": shares.curves(), "last_time": shares.times[-1],
    }  # fmt: skip


class _Reader:
    """The frames of a video; where it breaks after the first frame, it ends and `broken` says so."""

    def __init__(self, path: Path, every: int) -> None:
        number = count()
        self._frames = read_frames(path, keep=lambda _: next(number) % every == 0)
        self.broken = False

    def __iter__(self) -> Iterator[VideoFrame]:
        seen = False
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(next, self._frames, None)
            while True:
                try:
                    item = coming.result()
                except InputError:
                    if not seen:
                        raise
                    self.broken = True
                    return
                if item is None:
                    return
                seen = True
                coming = ahead.submit(next, self._frames, None)
                yield item


def _settled(pending: "list[Future[None]]", allowed: int) -> "list[Future[None]]":
    """Wait until at most so many are left, and raise what they raised."""
    while len(pending) > allowed:
        pending.pop(0).result()
    return pending


def _checked_clip(path: Path, limits: Limits) -> VideoInfo:
    """Return a video's description, with the size at which it is segmented."""
    limits.check_bytes(path.name, path.stat().st_size)
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


def _layer(choice: ModelChoice, model: Segmenter, result: Segmentation, milliseconds: float) -> dict[str, Any]:
    """Describe what one model found."""
    space = model.label_space
    return {
        "title": choice.title, "milliseconds": round(milliseconds, 1), "device": model.device,
        "backend": model.backend, "precision": model.precision, "names": list(space.names),
        "colors": [_hex(color) for color in space.colors],
        "shares": {name: round(share, 6) for name, share in result.shares().items()},
    }  # fmt: skip


def _hex(color: tuple[int, int, int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*color)


def _agreement(results: list[Segmentation]) -> float | None:
    """Return the share of pixels on which two models of the same classes agree."""
    if len(results) < 2 or results[0].label_space.names != results[1].label_space.names:
        return None
    return round(float(np.mean(results[0].classes == results[1].classes)), 6)


def _restored(path: Path, space: LabelSpace, size: tuple[int, ...]) -> Segmentation:
    """Read back what `segment_picture` wrote."""
    with np.load(path, allow_pickle=False) as found:
        return Segmentation(space, (size[0], size[1]), **dict(found))


def _write_shares(path: Path, layers: list[dict[str, Any]]) -> None:
    names = dict.fromkeys(name for layer in layers for name in layer["shares"])
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["class", *(layer["title"] for layer in layers)])
        writer.writerows([name, *(layer["shares"].get(name, 0.0) for layer in layers)] for name in names)


def _write_png_or_jpeg(path: Path, picture: NDArray[Any]) -> None:
    quality = [cv2.IMWRITE_PNG_COMPRESSION, 1] if path.suffix == ".png" else [cv2.IMWRITE_JPEG_QUALITY, 92]
    if not cv2.imwrite(str(path), picture, quality):
        raise InputError("The result cannot be written. The picture is too long, or the server has no room left.")


class _OpenModels:
    """Opened models; the one used longest ago is closed for another."""

    def __init__(self) -> None:
        self._open: OrderedDict[tuple[ModelChoice, int], Segmenter] = OrderedDict()

    def __call__(self, choice: ModelChoice) -> Segmenter:
        key = (choice, choice.path.stat().st_mtime_ns if choice.path.is_file() else 0)
        if key not in self._open:
            self._open[key] = Segmenter(
                choice.path, choice.device, choice.backend, threads=choice.threads, precision=choice.precision
            )
        self._open.move_to_end(key)
        while len(self._open) > _OPEN_MODELS:
            self._open.popitem(last=False)[1].close()
        return self._open[key]


TASKS: dict[str, Callable[..., dict[str, Any]]] = {
    "open": open_model, "picture": segment_picture, "view": draw_view, "clip": segment_clip,
}  # fmt: skip


def _answer(task: str, options: dict[str, Any], models: Models, connection: Connection) -> tuple[str, Any]:
    """Do a task; return `done` and the result, or `failed` and a sentence."""
    try:
        return "done", TASKS[task](models, lambda news: connection.send(("progress", news)), **options)
    except LsrError as error:
        text = str(error)
        for key in ("path", "choice", "folder"):  # the server's folders are nobody's business
            place = options.get(key)
            place = place.path if isinstance(place, ModelChoice) else place
            if isinstance(place, Path):
                text = text.replace(str(place), place.name)
        return "failed", text
    except MemoryError:
        return "failed", "This needs more memory than the server has. Send something smaller."
    except BrokenPipeError:
        raise
    except OSError:
        logger.exception("%s failed", task)
        return "failed", "The server has no room for results at the moment. Try again later."
    except Exception:
        logger.exception("%s failed", task)
        return "failed", "Something went wrong on the server, and its log has the details. Try another file."


def main() -> None:
    """Do tasks until the pipe is closed."""
    end_with_parent()
    logging.basicConfig(level=logging.WARNING, handlers=[stderr_handler()])
    connection, models, trim = Connection(int(sys.argv[1])), _OpenModels(), Trimmer(seconds=0.0)
    while True:
        try:
            task, options = connection.recv()
            connection.send(_answer(task, options, models, connection))
        except (EOFError, ConnectionError):
            return
        trim()


if __name__ == "__main__":
    main()
