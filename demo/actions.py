"""Does what the page's controls and its API ask for: hands files to the worker processes and formats their results."""

import asyncio
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd

from lsr_infer import InputError, LsrError, Manifest
from lsr_infer.text import markdown_text, printable
from pool import WorkerProcess
from settings import Catalogue, Entry, Limits, file_size, sides

__all__ = [
    "CANCELLED", "COMPARES", "EVERY", "MODEL_HEADERS", "NOTHING_YET", "NO_CLIP_YET", "ORIGINAL", "SHARE_HEADERS",
    "VIEWS", "Actions",
]  # fmt: skip

ORIGINAL = ""  # key of the original picture, in place of a model
VIEWS = ["classes", "confidence", "difference"]
EVERY = {"every frame": 1, "every 2nd frame": 2, "every 5th frame": 5, "every 10th frame": 10}
NOTHING_YET = "Upload a picture, paste one, use the camera, or choose an example."
NO_CLIP_YET = "Upload a clip or choose the example."
COMPARES = (
    "Upload a picture or choose an example: both models run on it. You see how long each takes and where they differ."
)
CANCELLED = "Cancelled. Segment starts again."
SHARE_HEADERS = ["", "class", "before", "after"]
_POINT_HINT = "Click a point of this picture to read its class, the confidence and the runner-up."
_PLOTTED_CLASSES = 8
Upload = dict[str, Any] | None  # a file as Gradio passes it with preprocess=False: nothing has opened it yet


class Actions:
    """What the controls call. Every refusal is a `gr.Error` with one sentence.

    Results are written into Gradio's cache, `root`; `unfinished` has the folders of those that are computed.
    """

    def __init__(
        self, pictures: WorkerProcess, videos: list[WorkerProcess], catalogue: Catalogue, limits: Limits, root: Path
    ) -> None:
        self._pictures, self._videos = pictures, videos
        self._catalogue, self._limits, self._root = catalogue, limits, root
        self.unfinished: set[Path] = set()
        self._running: dict[str | None, asyncio.Task[Any] | None] = {}

    async def picture(self, image: Upload, before: str, after: str, view: str) -> tuple[Any, ...]:
        """Segment a picture; returns slider, facts, shares, overlay, mask, shares, all files, state and a hint."""
        if not image or not image["path"]:
            return None, NOTHING_YET, _shares_table([]), *[None] * 4, None, ""
        with _sentences():
            result = await self._segmented(Path(image["path"]), before, after, timed=False)
            slider, note = await self._drawn(result, view)
        files = ("after_overlay.png", "after_mask.png", "shares.csv", "results.zip")
        downloads = [str(result["folder"] / name) for name in files]
        return slider, _facts(result) + note, _shares_table(result["layers"]), *downloads, result, _POINT_HINT

    async def view(self, result: dict[str, Any] | None, view: str) -> tuple[Any, Any]:
        """Draw another view of a picture; returns the slider and the facts."""
        if result is None:
            return None, NOTHING_YET
        with _sentences():
            slider, note = await self._drawn(result, view)
        return slider, _facts(result) + note

    def point(self, result: dict[str, Any] | None, event: gr.EventData) -> str:
        """Return class, confidence and runner-up of the point that was clicked."""
        place = getattr(event, "_data", None)
        index = place.get("index") if isinstance(place, dict) else None
        if result is None or not isinstance(index, list) or [type(one) for one in index] != [int, int]:
            return _POINT_HINT
        if not (0 <= index[0] < result["width"] and 0 <= index[1] < result["height"]):
            return _POINT_HINT
        names = sides(len(result["layers"]))
        readings = (_reading(result, number, *index) for number in range(len(names)))
        return "<br>".join(f"{name}: {reading}" for name, reading in zip(names, readings, strict=True))

    async def clip(
        self, video: Upload, before: str, after: str, every: str, request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio's own way to ask for it
    ) -> tuple[Any, ...]:  # fmt: skip
        """Segment a video; returns the clip, the facts, the plot, and the clip, masks and shares to download."""
        if not video:
            return None, NO_CLIP_YET, None, *[None] * 3

        def show(news: dict[str, Any]) -> None:
            rate = news["frames"] / news["seconds"] if news["frames"] else 0.0
            text = f"{rate:.1f} frames/s" if rate else "opening the models"
            if rate and news["total"]:
                text += f", {max(0.0, (news['total'] - news['frames']) / rate):.0f} s left"
            progress((news["frames"], news["total"]), desc=text, unit="frames")

        self._running[request.session_hash] = asyncio.current_task()
        try:
            with _sentences():
                if every not in EVERY:
                    raise InputError(f"Frames: there is no choice {every}. Choose one of: {', '.join(EVERY)}.")
                entries, path = self._entries(before, after), Path(video["path"])
                choices, step = [entry.choice for entry in entries], EVERY[every]
                options = {"path": path, "choices": choices, "every": step, "limits": self._limits}
                worker = min(self._videos, key=lambda one: one.busy)
                with self._folder(path) as folder:
                    result = await worker.run("clip", show, folder=folder, **options)
        finally:
            self._running.pop(request.session_hash, None)
        facts = f"**{markdown_text(result['name'])}**: {result['frames']} frames in {result['seconds']:.1f} s"
        rate = f"{result['frames'] / result['seconds']:.1f} frames/s"
        downloads = [str(folder / name) for name in ("before_after.mp4", "masks.zip", "shares.csv")]
        plot = _plot(result["curves"], entries[-1].choice.title)
        return downloads[0], " · ".join([facts, rate, *result["notes"]]), plot, *downloads

    def announce(self, video: Upload) -> str:
        """Return what is shown while a clip runs."""
        return f"Segmenting **{markdown_text(Path(video['path']).name)}**. Cancel ends it." if video else NO_CLIP_YET

    def after_failure(self, video: Upload, facts: str) -> str:
        """Return what is shown where a clip was not finished: that it was cancelled, or what to do."""
        if not video or facts == CANCELLED:
            return CANCELLED if video else NO_CLIP_YET
        return f"**{markdown_text(Path(video['path']).name)}** was not segmented. Choose another clip, or try again."

    async def leave(self, request: gr.Request) -> None:
        """End what a closed page was computing."""
        if (task := self._running.get(request.session_hash)) is not None:
            task.cancel()

    async def compare(self, image: Upload, before: str, after: str) -> tuple[Any, Any, Any]:
        """Run two models on one picture; returns the facts, the picture of differences, and a table."""
        if not image or not image["path"]:
            return COMPARES, None, None
        with _sentences():
            if not before or before == after:
                raise InputError("Choose two different models above, one on the left and one on the right.")
            result = await self._segmented(Path(image["path"]), before, after, timed=True)
            slider = (None, None) if result["agreement"] is None else (await self._drawn(result, "difference"))[0]
            entries = self._entries(before, after)
        table = {"headers": ["", *(entry.choice.title for entry in entries)], "data": _comparison(entries, result)}
        return _facts(result), slider[1], table

    async def refresh(self, before: str, after: str) -> tuple[Any, Any, str, Any]:
        """List the models again; returns both selectors, the banner, and the table of models."""
        await self._catalogue.refresh()
        choices = [(entry.choice.title, entry.key) for entry in self._catalogue.usable()]
        keys, defaults = [key for _, key in choices], self._catalogue.defaults()
        before = before if before in (ORIGINAL, *keys) else defaults[0]
        after = after if after in keys else defaults[1]
        selectors = (
            gr.Dropdown(choices=[("the original picture", ORIGINAL), *choices], value=before),
            gr.Dropdown(choices=choices, value=after),
        )
        return *selectors, self.banner(before, after), self.model_rows()

    def banner(self, before: str, after: str) -> str:
        """Return a notice where a chosen model is one of the package's, else nothing."""
        chosen = [entry for entry in self._catalogue.usable() if entry.key in (before, after) and entry.shipped]
        if not chosen:
            return ""
        drawn = all(entry.key.startswith("toytown") for entry in chosen)
        use = "trained on drawn streets, it is wrong on photographs" if drawn else "it never saw your camera"
        text = f"{use}. Adapt one to your footage, and show it here with --models DIR."
        return f'<p role="note"><strong>Network of the package:</strong> {escape(text)}</p>'

    def model_rows(self) -> list[list[str]]:
        """List the models, with the reason where one cannot be used."""
        rows = []
        for entry in self._catalogue.entries:
            facts = ["", "", ""] if entry.manifest is None else [show(entry.manifest) for _, show in _FACTS[:3]]
            state = f"cannot be used: {entry.problem}" if entry.problem else "ready"
            path = entry.choice.path
            rows.append([entry.choice.title, path.name, state, *facts, entry.runs_on, file_size(entry.size)])
        return rows

    async def _segmented(self, path: Path, before: str, after: str, *, timed: bool) -> dict[str, Any]:
        """Segment a picture; the result also names its folder and its models."""
        choices = [entry.choice for entry in self._entries(before, after)]
        options: dict[str, Any] = {"path": path, "choices": choices, "limits": self._limits, "timed": timed}
        with self._folder(path) as folder:
            result = await self._pictures.run("picture", folder=folder, **options)
        return {**result, "folder": folder, "choices": choices}

    async def _drawn(self, result: dict[str, Any], view: str) -> tuple[tuple[str, str], str]:
        """Return both sides of the slider, and a note on what they show."""
        folder, two, note = result["folder"], len(result["layers"]) == 2, ""
        names = {"left": "before_overlay.png" if two else "original.jpg", "right": "after_overlay.png"}
        if view == "difference" and result["agreement"] is None:
            raise InputError("A difference needs two models of the same classes. Choose both above.")
        if view in ("confidence", "difference"):
            names = await self._pictures.run("view", folder=folder, view=view, choices=result["choices"])
            note = (
                " · dark is unsure, yellow is sure"
                if view == "confidence"
                else " · left the picture, right in colour where the two differ"
            )
        return (str(folder / names["left"]), str(folder / names["right"])), note

    def _entries(self, before: str, after: str) -> list[Entry]:
        """Return the models that are asked for; without a second one the default."""
        chosen = (before or ORIGINAL, after or self._catalogue.defaults()[1])
        return [self._catalogue.entry(key) for key in chosen if key != ORIGINAL]

    @contextmanager
    def _folder(self, upload: Path) -> Iterator[Path]:
        """Give an empty folder in the cache for the results of a file, and remove it where the work fails."""
        self._limits.check_room(self._root)
        try:
            os.utime(upload)  # it is used, so its age counts from now
        except FileNotFoundError as error:
            raise InputError(f"{upload.name} is no longer on the server. Send it again.") from error
        folder = self._root / secrets.token_urlsafe(16)
        self.unfinished.add(folder)
        folder.mkdir()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        finally:
            self.unfinished.remove(folder)


@contextmanager
def _sentences() -> Iterator[None]:
    """Let the page show an error of ours as it is."""
    try:
        yield
    except LsrError as error:
        raise gr.Error(
            escape(printable(str(error)), quote=False), duration=30, title="Not possible", print_exception=False
        ) from error


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _facts(result: dict[str, Any]) -> str:
    """Return one line about a picture."""
    name, device = markdown_text(result["name"]), result["layers"][-1]["device"]
    facts = [f"**{name}**, {result['width']} x {result['height']}", f"on {device}"]
    if result["agreement"] is not None:
        facts.append(f"before and after agree on {_percent(result['agreement'])} of the pixels")
    return " · ".join([*facts, *filter(None, [result["note"]])])


def _shares_table(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the shares of the classes, the largest of the last model first."""
    colors = {name: color for layer in layers for name, color in layer["colors"].items()}
    found = dict.fromkeys(name for layer in reversed(layers) for name in layer["shares"])
    rows = []
    for name in sorted(found, key=lambda name: -layers[-1]["shares"].get(name, 0.0)):
        shares = [_percent(layer["shares"].get(name, 0.0)) for layer in layers]
        swatch = f'<span class="swatch" style="background:{colors[name]}"></span>'
        rows.append([swatch, name, *["–", *shares][-2:]])
    return {"headers": SHARE_HEADERS, "data": rows}


def _reading(result: dict[str, Any], number: int, x: int, y: int) -> str:
    """Say which class a pixel has for a model, and how sure that is."""
    names = [markdown_text(name) for name in result["layers"][number]["colors"]]
    try:
        with np.load(result["folder"] / f"{sides(len(result['layers']))[number]}.npz", allow_pickle=False) as found:
            arrays = dict(found)
    except OSError:
        return "no longer here; send the picture again"
    if "logits" not in arrays:
        return f"**{names[int(arrays['classes'][y, x])]}** (this model gives no confidence)"
    # The logits are on a coarser grid whose corners are those of the picture (align_corners=True).
    logits, (_, height, width) = arrays["logits"], arrays["logits"].shape
    row, column = y / max(1, result["height"] - 1) * (height - 1), x / max(1, result["width"] - 1) * (width - 1)
    top, left = min(int(row), max(0, height - 2)), min(int(column), max(0, width - 2))
    down, right = row - top, column - left
    corners = logits[:, top : top + 2, left : left + 2]
    weights = np.outer([1 - down, down][: corners.shape[1]], [1 - right, right][: corners.shape[2]])
    values = (corners * weights).sum(axis=(1, 2))
    probabilities = np.exp(values - values.max())
    probabilities /= probabilities.sum()
    best, runner_up = (f"{names[c]} {_percent(probabilities[c])}" for c in np.argsort(-probabilities)[:2])
    return f"**{best}**, then {runner_up}"


def _plot(curves: dict[str, Any], title: str) -> Any:
    """Plot the shares of the most frequent classes over time."""
    classes = curves["classes"][:_PLOTTED_CLASSES]
    shares = pd.DataFrame({one["name"]: one["shares"] for one in classes}) * 100
    points = shares.assign(seconds=curves["times"]).melt("seconds", var_name="class", value_name="share")
    colors = {one["name"]: _visible_on_both(one["color"]) for one in classes}
    plot: Any = gr.LinePlot  # untyped
    return plot(value=points, color_map=colors, title=f"Class shares over time, {title}")


def _visible_on_both(color: str) -> str:
    """Lighten a dark colour, so that its line is visible on a dark page as well as on a light one."""
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    add = max(0.0, 100.0 - (2 * red + 5 * green + blue) / 8)
    return "#" + "".join(f"{min(255, round(channel + add)):02x}" for channel in (red, green, blue))


def _comparison(entries: list[Entry], result: dict[str, Any]) -> list[list[str]]:
    """Put what is known of two models side by side."""
    rows = [["time for this picture, median of 5", *(f"{layer['milliseconds']:.1f} ms" for layer in result["layers"])]]
    rows.append(["runs on", *(entry.runs_on for entry in entries)])
    manifests = [entry.manifest for entry in entries if entry.manifest is not None]
    rows += [[label, *(show(manifest) for manifest in manifests)] for label, show in _FACTS]
    for name in sorted({name for manifest in manifests for name in manifest.scores}):
        scores = [manifest.scores.get(name) for manifest in manifests]
        rows.append([name.replace("_", " "), *("not stated" if score is None else f"{score:.3f}" for score in scores)])
    return rows


def _parity(manifest: Manifest) -> str:
    if (parity := manifest.parity) is None:
        return "not compared"
    return f"{100 * parity.agreement:.2f} % of the pixels of {parity.frames} frames"


_FACTS: tuple[tuple[str, Callable[[Manifest], str]], ...] = (  # what a Manifest says, as label and text
    ("method", lambda manifest: manifest.method or "not stated"),
    ("classes", lambda manifest: f"{manifest.label_space.num_classes} ({manifest.label_space.name})"),
    ("made for frames of", lambda manifest: f"{manifest.width} x {manifest.height}"),
    ("precision", lambda manifest: manifest.precision),
    ("same class as its checkpoint", _parity),
    ("intended use", lambda manifest: manifest.intended_use or "not stated"),
)
MODEL_HEADERS = ["model", "file", "state", *(label for label, _ in _FACTS[:3]), "runs on", "size"]
