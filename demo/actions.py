"""Does what the page's controls and its API ask for: hands files to the worker processes and formats their results."""

import asyncio
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
from pool import Pool
from settings import RESULTS, Catalogue, Entry, Limits, file_size

__all__ = ["EVERY", "NOTHING_YET", "ORIGINAL", "POINT_HINT", "VIEWS", "Actions"]

ORIGINAL = ""
"""Key that stands for the original picture in place of a model."""

VIEWS = ["classes", "confidence", "difference"]
EVERY = {"every frame": 1, "every 2nd frame": 2, "every 5th frame": 5, "every 10th frame": 10}
POINT_HINT = "Click a point of this picture to read its class, the confidence and the runner-up."
NOTHING_YET = "Upload a picture, paste one, use the camera, or choose an example."
_SHARE_HEADERS = ["", "class", "before", "after"]
_PLOTTED_CLASSES = 8


class Actions:
    """What the controls call. Every refusal is a `gr.Error` with one sentence.

    Args:
        pool: the worker processes.
        catalogue: the models.
        limits: what is accepted.
        root: Gradio's cache, where results are written.
    """

    def __init__(self, pool: Pool, catalogue: Catalogue, limits: Limits, root: Path) -> None:
        self._pool = pool
        self._catalogue = catalogue
        self._limits = limits
        self._root = root
        self._running: dict[str, asyncio.Task[Any]] = {}

    async def picture(self, image: str | None, before: str, after: str, view: str) -> tuple[Any, ...]:
        """Segment a picture with one or two models.

        Returns:
            The slider, a line about the result, the shares, four downloads, the state, and the hint about points.
        """
        if not image:
            return None, NOTHING_YET, _shares_table([]), *[None] * 4, None, ""
        with _sentences():
            result = await self._segmented(image, before, after, timed=False)
            slider, note = await self._drawn(result, view)
        files = [f"{len(result['layers']) - 1}_{name}.png" for name in ("overlay", "mask")]
        downloads = [str(result["folder"] / name) for name in (*files, "shares.csv", "results.zip")]
        return slider, _facts(result) + note, _shares_table(result["layers"]), *downloads, result, POINT_HINT

    async def view(self, result: dict[str, Any] | None, view: str) -> tuple[Any, Any]:
        """Draw another view of a picture; returns the slider and the line about the result."""
        if result is None:
            return None, NOTHING_YET
        with _sentences():
            slider, note = await self._drawn(result, view)
        return slider, _facts(result) + note

    def point(self, result: dict[str, Any] | None, event: gr.SelectData) -> str:
        """Return class, confidence and runner-up of the point that was clicked."""
        if result is None:
            return POINT_HINT
        x, y = event.index
        places = ("before", "after")[-len(result["layers"]) :]
        lines = [
            f"{place}: **{_reading(result['folder'] / f'{number}.npz', layer, result, x, y)}"
            for number, (place, layer) in enumerate(zip(places, result["layers"], strict=True))
        ]
        return "<br>".join(lines)

    async def clip(
        self, video: str | None, before: str, after: str, every: str, request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - Gradio's own way to ask for it
    ) -> tuple[Any, ...]:  # fmt: skip
        """Segment a video with one or two models.

        Returns:
            The video, a line about the result, the plot, and three downloads.
        """
        if not video:
            return None, "", None, *[None] * 3

        def show(news: dict[str, Any]) -> None:
            rate = news["frames"] / news["seconds"] if news["frames"] else 0.0
            text = f"{rate:.1f} frames/s" if rate else "opening the models"
            if rate and news["total"]:
                text += f", {max(0.0, (news['total'] - news['frames']) / rate):.0f} s left"
            progress((news["frames"], news["total"]), desc=text, unit="frames")

        task = asyncio.current_task()
        if task is not None and request.session_hash:
            self._running[request.session_hash] = task
        try:
            with _sentences(), self._folder() as folder:
                entries = self._entries(before, after)
                result = await self._pool.video(
                    "clip", show, path=Path(video), choices=[entry.choice for entry in entries],
                    every=EVERY.get(every, 1), limits=self._limits, folder=folder,
                )  # fmt: skip
        finally:
            self._running.pop(request.session_hash or "", None)
        rate = result["frames"] / result["seconds"]
        facts = (
            f"**{escape(result['name'])}**: {result['frames']} frames in {result['seconds']:.1f} s, {rate:.1f} frames/s"
        )
        downloads = [str(folder / name) for name in ("before_after.mp4", "masks.zip", "shares.csv")]
        plot = _plot(result["curves"], entries[-1].choice.title)
        return str(folder / "before_after.mp4"), " · ".join([facts, *result["notes"]]), plot, *downloads

    async def leave(self, request: gr.Request) -> None:
        """End what a closed page was computing."""
        task = self._running.get(request.session_hash or "")
        if task is not None:
            task.cancel()

    async def compare(self, image: str | None, before: str, after: str) -> tuple[Any, Any, Any]:
        """Run two models on one picture; returns a line about them, the picture of differences, and a table."""
        if not image:
            return "", None, None
        with _sentences():
            if before in (ORIGINAL, after):
                raise InputError("Choose two different models above, one on the left and one on the right.")
            result = await self._segmented(image, before, after, timed=True)
            slider = None if result["agreement"] is None else (await self._drawn(result, "difference"))[0]
            entries = self._entries(before, after)
        table = {"headers": ["", *(entry.choice.title for entry in entries)], "data": _comparison(entries, result)}
        return _facts(result), None if slider is None else slider[1], table

    async def refresh(self, before: str, after: str) -> tuple[Any, Any, str, Any]:
        """Look into the models' folder again; returns both selectors, the banner, and the table of models."""
        await self._catalogue.refresh()
        choices = [(entry.choice.title, entry.key) for entry in self._catalogue.usable()]
        keys = [key for _, key in choices]
        default_before, default_after = self._catalogue.defaults()
        before = before if before in (ORIGINAL, *keys) else default_before
        after = after if after in keys else default_after
        return (
            gr.Dropdown(choices=[("the original picture", ORIGINAL), *choices], value=before),
            gr.Dropdown(choices=choices, value=after),
            self.banner(before, after),
            self.model_rows(),
        )

    def banner(self, before: str, after: str) -> str:
        """Return a notice where a chosen model is a demonstration, else nothing."""
        chosen = [entry for entry in self._catalogue.usable() if entry.key in (before, after)]
        entry = next((entry for entry in reversed(chosen) if entry.demonstration), None)
        if entry is None:
            return ""
        use = "" if entry.manifest is None else entry.manifest.intended_use
        if "demonstration" not in use.lower():
            use = "trained on rendered streets; on real photographs it is often wrong. Try your own with --models DIR."
        return f'<p role="note"><strong>Demonstration network:</strong> {escape(use)}</p>'

    def model_rows(self) -> list[list[str]]:
        """List the models, with the reason where one cannot be used."""
        return [_model_row(entry) for entry in self._catalogue.entries]

    async def _segmented(self, image: str, before: str, after: str, *, timed: bool) -> dict[str, Any]:
        """Segment a picture; the result also names its folder and its models."""
        choices = [entry.choice for entry in self._entries(before, after)]
        with self._folder() as folder:
            result = await self._pool.picture(
                "picture", path=Path(image), choices=choices, limits=self._limits, folder=folder, timed=timed
            )
        return {**result, "folder": folder, "choices": choices}

    async def _drawn(self, result: dict[str, Any], view: str) -> tuple[tuple[str, str], str]:
        """Return both sides of the slider, and a note on what they show."""
        folder, two = result["folder"], len(result["layers"]) == 2
        if view == "confidence":
            names = await self._pool.picture("view", folder=folder, view=view, choices=result["choices"])
            note = "dark is unsure, yellow is sure"
        elif view == "difference":
            if result["agreement"] is None:
                raise InputError("A difference needs two models of the same classes. Choose both above.")
            names = await self._pool.picture("view", folder=folder, view=view, choices=result["choices"])
            names["left"], note = "original.jpg", "in colour: where the two models differ, as the right one says"
        else:
            names, note = {"left": "0_overlay.png" if two else "original.jpg", "right": f"{int(two)}_overlay.png"}, ""
        return (str(folder / names["left"]), str(folder / names["right"])), f" · {note}" if note else ""

    def _entries(self, before: str, after: str) -> list[Entry]:
        """Return the models that are asked for; "" as the second one stands for the default."""
        after = after or self._catalogue.defaults()[1]
        return [self._catalogue.entry(key) for key in (before, after) if key != ORIGINAL]

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """Give an empty folder in the cache, and remove it where the work fails."""
        if shutil.disk_usage(self._root).free < self._limits.free_bytes:
            raise InputError("The server has no room for results at the moment. Try again later.")
        folder = self._root / RESULTS / secrets.token_urlsafe(16)
        folder.mkdir()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise


@contextmanager
def _sentences() -> Iterator[None]:
    """Let the page show an error of ours as it is."""
    try:
        yield
    except LsrError as error:
        raise gr.Error(str(error), duration=30, title="Not possible", print_exception=False) from error


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _facts(result: dict[str, Any]) -> str:
    """Return one line about a picture."""
    parts = [f"**{escape(result['name'])}**, {result['width']} x {result['height']}"]
    parts.append(f"on {result['layers'][-1]['device']}")
    if result["agreement"] is not None:
        parts.append(f"before and after agree on {_percent(result['agreement'])} of the pixels")
    return " · ".join(parts)


def _shares_table(layers: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the shares of the classes, the largest of the last model first."""
    if not layers:
        return {"headers": _SHARE_HEADERS, "data": []}
    colors = {name: color for layer in layers for name, color in zip(layer["names"], layer["colors"], strict=True)}
    found = dict.fromkeys(name for layer in reversed(layers) for name in layer["shares"])
    order = sorted(found, key=lambda name: -layers[-1]["shares"].get(name, 0.0))
    rows = []
    for name in order:
        swatch = f'<span class="swatch" style="background:{colors[name]}"></span>'
        shares = [_percent(layer["shares"].get(name, 0.0)) for layer in layers]
        rows.append([swatch, name, *(["–"] * (2 - len(shares))), *shares])
    return {"headers": _SHARE_HEADERS, "data": rows}


def _reading(path: Path, layer: dict[str, Any], result: dict[str, Any], x: int, y: int) -> str:
    """Say which class a pixel has, and how sure the model is."""
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = dict(found)
    except OSError:
        return "no longer here**; send the picture again"
    if "logits" not in arrays:
        return f"{escape(layer['names'][int(arrays['classes'][y, x])])}** (this model gives no confidence)"
    logits = _at(arrays["logits"], y / max(1, result["height"] - 1), x / max(1, result["width"] - 1))
    probabilities = np.exp(logits - logits.max())
    probabilities /= probabilities.sum()
    first, second = np.argsort(-probabilities)[:2]
    best, runner_up = (f"{escape(layer['names'][c])} {_percent(probabilities[c])}" for c in (first, second))
    return f"{best}**, then {runner_up}"


def _at(logits: np.ndarray, down: float, right: float) -> np.ndarray:
    """Interpolate [C,h,w] logits at a place given as shares of height and width (align_corners=True)."""
    row, column = down * (logits.shape[1] - 1), right * (logits.shape[2] - 1)
    top, left = int(row), int(column)
    bottom, end = min(top + 1, logits.shape[1] - 1), min(left + 1, logits.shape[2] - 1)
    upper = logits[:, top, left] * (1 - column + left) + logits[:, top, end] * (column - left)
    lower = logits[:, bottom, left] * (1 - column + left) + logits[:, bottom, end] * (column - left)
    return np.asarray(upper * (1 - row + top) + lower * (row - top))


def _plot(curves: dict[str, Any], title: str) -> Any:
    """Plot the shares of the most frequent classes over time."""
    classes = curves["classes"][:_PLOTTED_CLASSES]
    frame = pd.concat(
        pd.DataFrame(
            {"seconds": curves["times"], "share": [100 * share for share in one["shares"]], "class": one["name"]}
        )
        for one in classes
    )
    colors = {one["name"]: _seen_on_both(one["color"]) for one in classes}
    plot: Any = gr.LinePlot  # untyped
    return plot(value=frame, color_map=colors, title=f"Class shares over time, {title}")


def _seen_on_both(color: str) -> str:
    """Lighten a dark colour, so that its line is seen on a dark page as well as on a light one."""
    channels = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
    light = (2 * channels[0] + 5 * channels[1] + channels[2]) / 8
    add = max(0.0, 100.0 - light)
    return "#" + "".join(f"{min(255, round(channel + add)):02x}" for channel in channels)


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
    parity = manifest.parity
    return (
        "not compared" if parity is None else f"{100 * parity.agreement:.2f} % of the pixels of {parity.frames} frames"
    )


_FACTS: tuple[tuple[str, Callable[[Manifest], str]], ...] = (
    ("method", lambda manifest: manifest.method or "not stated"),
    ("classes", lambda manifest: f"{manifest.label_space.num_classes} ({manifest.label_space.name})"),
    ("made for frames of", lambda manifest: f"{manifest.width} x {manifest.height}"),
    ("precision", lambda manifest: manifest.precision),
    ("same class as its checkpoint", _parity),
    ("intended use", lambda manifest: manifest.intended_use or "not stated"),
)
"""What a Manifest says, as label and text."""


def _model_row(entry: Entry) -> list[str]:
    facts = ["", "", ""] if entry.manifest is None else [show(entry.manifest) for _, show in _FACTS[:3]]
    state = f"cannot be used: {entry.problem}" if entry.problem else "ready"
    return [entry.choice.title, entry.choice.path.name, state, *facts, entry.runs_on, file_size(entry.size)]


MODEL_HEADERS = ["model", "file", "state", *(label for label, _ in _FACTS[:3]), "runs on", "size"]
