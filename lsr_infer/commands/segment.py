"""`lsr-infer SOURCE…`: segment images and videos with an exported model.

Nothing heavy is imported before the command line is understood, so `--help` answers at once.
"""

import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lsr_infer.arguments import ArgumentParser
from lsr_infer.errors import InputError, PartialResultError, UsageError

if TYPE_CHECKING:
    from lsr_infer.jobs import Drawing, Outputs
    from lsr_infer.segmenter import Segmenter
    from lsr_infer.sources import Source

__all__ = ["Options", "main", "read_options"]

logger = logging.getLogger(__name__)

_SHIPPED = Path(__file__).parents[1] / "models" / "toytown_adapted.onnx"
_MODEL_SUFFIXES = (".onnx",)
_SAVES = ("overlay", "mask")
_REPORT_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Options:
    """A command line that was understood.

    Args:
        sources: files, folders and patterns.
        output: the folder of the results.
        model: the exported model; None takes the shipped one.
        compare: put the frame beside its overlay.
        other: a second model whose overlay stands in the frame's place; None shows the frame.
        save: what is written.
        alpha: share of the colour in an overlay.
        ignore_mask: an image that is not black where nothing shall be shown.
        max_frames: stop each video after this many frames.
        device: `auto`, `cpu` or `cuda:N`.
        threads: CPU threads of the network, 0 for all.
        overwrite: replace existing results.
        json: put one document on stdout.
    """

    sources: tuple[str, ...]
    output: Path
    model: Path | None = None
    compare: bool = False
    other: Path | None = None
    save: frozenset[str] = frozenset({"overlay"})
    alpha: float = 0.5
    ignore_mask: Path | None = None
    max_frames: int | None = None
    device: str = "auto"
    threads: int = 0
    overwrite: bool = False
    json: bool = False

    def __post_init__(self) -> None:
        wrong = sorted(self.save - set(_SAVES))
        if wrong or not self.save:
            raise UsageError(f"--save is {', '.join(wrong) or 'empty'}; allowed: {', '.join(_SAVES)}, with commas.")
        if not 0 <= self.alpha <= 1:
            raise UsageError(f"--alpha is {self.alpha}; allowed: 0 to 1.")
        if self.max_frames is not None and self.max_frames < 1:
            raise UsageError(f"--max-frames is {self.max_frames}; allowed: 1 or more.")
        if self.threads < 0:
            raise UsageError(f"--threads is {self.threads}; allowed: 0 or more.")
        if self.compare and "overlay" not in self.save:
            raise UsageError("--side-by-side shows overlays; put overlay into --save, or leave it out.")


@dataclass
class _Tally:
    """What became of the sources, in the words of the JSON document."""

    found: int
    reports: list[dict[str, Any]] = field(default_factory=list)
    frames: int = 0
    interrupted: bool = False

    def count(self, status: str) -> int:
        return sum(report["status"] == status for report in self.reports)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="lsr-infer",
        description="Segment road scenes: images and videos in, overlays and masks out.",
        epilog="lsr-infer info MODEL shows what a model file says about itself. Exit codes: 0 done, 2 usage, 3 device, "
        "4 input, model or place unusable, 6 partly done, 130 interrupted.",
    )
    parser.add_argument("sources", nargs="*", metavar="SOURCE", help="image, video, folder or pattern; several at once")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="folder of the results")
    parser.add_argument(
        "-m",
        "--model",
        type=Path,
        metavar="MODEL.onnx",
        help="exported model (default: the shipped one, where there is one)",
    )
    parser.add_argument(
        "--side-by-side",
        nargs="?",
        const="",
        metavar="OTHER.onnx",
        help="put the frame, or the overlay of another model, on the left of the overlay",
    )
    parser.add_argument(
        "--save", default="overlay", metavar="KINDS", help="overlay, mask or both with a comma (overlay)"
    )
    parser.add_argument("--alpha", type=float, default=0.5, metavar="SHARE", help="share of the colour, 0 to 1 (0.5)")
    parser.add_argument("--ignore-mask", type=Path, metavar="PNG", help="show nothing where this image is not black")
    parser.add_argument("--max-frames", type=int, metavar="N", help="stop each video after N frames")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu or cuda:N (auto)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads of the network (all)")
    parser.add_argument("--overwrite", action="store_true", help="replace existing results")
    parser.add_argument("--json", action="store_true", help="put one JSON document on stdout")
    return parser


def read_options(arguments: Sequence[str]) -> Options:
    """Turn the command line into `Options`."""
    parser = _parser()
    values = parser.parse_args(arguments)
    sources = list(values.sources)
    other: Path | None = None
    if values.side_by_side:
        if Path(values.side_by_side).suffix.lower() in _MODEL_SUFFIXES:
            other = Path(values.side_by_side)
        else:  # the word after a bare --side-by-side is the first source
            sources.insert(0, values.side_by_side)
    if not sources:
        parser.error("name at least one image, video, folder or pattern")
    if values.output is None:
        parser.error("name the folder of the results with --output DIR")
    return Options(
        sources=tuple(sources),
        output=values.output,
        model=values.model,
        compare=values.side_by_side is not None,
        other=other,
        save=frozenset(word for word in values.save.split(",") if word),
        alpha=values.alpha,
        ignore_mask=values.ignore_mask,
        max_frames=values.max_frames,
        device=values.device,
        threads=values.threads,
        overwrite=values.overwrite,
        json=values.json,
    )


def main(words: Sequence[str]) -> int | None:
    """Run the command; raises `LsrError`."""
    return _segment(read_options(words))


def _segment(options: Options) -> int | None:
    """Segment everything; device and input are checked before the output is."""
    from lsr_infer.images import read_mask
    from lsr_infer.jobs import Drawing, plan_outputs
    from lsr_infer.sources import find_sources

    found = find_sources(options.sources, without=options.output)
    ignored = None if options.ignore_mask is None else read_mask(options.ignore_mask)
    segmenter = _open(options)
    other = None
    if options.other is not None:
        from lsr_infer.segmenter import Segmenter

        other = Segmenter(options.other, device=options.device, threads=options.threads)
    drawing = Drawing(save=options.save, alpha=options.alpha, compare=options.compare, ignored=ignored)
    jobs = [
        (source, plan_outputs(source, options.output, drawing, overwrite=options.overwrite)) for source in found.sources
    ]
    logger.info(
        "%s on %s (%s, %s), %d classes, %d sources",
        segmenter.path.name,
        segmenter.device,
        segmenter.backend,
        segmenter.manifest.precision,
        segmenter.label_space.num_classes,
        len(jobs),
    )
    started = time.monotonic()
    tally = _Tally(found=len(jobs))
    for source, outputs in jobs:
        if not tally.interrupted:
            tally.reports.append(_one(source, outputs, segmenter, other, drawing, options, tally))
    seconds = time.monotonic() - started
    if options.json:
        document = _document(segmenter, tally, len(found.left_out), seconds)
        print(json.dumps(document, indent=2, ensure_ascii=False))  # noqa: T201 - the one result on stdout
    return _conclude(tally, len(found.left_out), seconds, options.output)


def _open(options: Options) -> "Segmenter":
    """Open the model that was asked for, or the shipped one with a word about what it is."""
    from lsr_infer.segmenter import Segmenter

    if options.model is None:
        if not _SHIPPED.is_file():
            raise UsageError("this installation ships no model. Name one with --model MODEL.onnx.")
        logger.info("no --model: using the shipped demonstration network, trained on Toytown, not on real roads")
    return Segmenter(options.model or _SHIPPED, device=options.device, threads=options.threads)


def _one(
    source: "Source",
    outputs: "Outputs",
    segmenter: "Segmenter",
    other: "Segmenter | None",
    drawing: "Drawing",
    options: Options,
    tally: _Tally,
) -> dict[str, Any]:
    """Segment one source and report on it; a bad one does not stop the others."""
    from lsr_infer.jobs import segment_image, segment_video

    report: dict[str, Any] = {"source": str(source.path), "kind": source.kind, "status": "failed", "frames": 0}
    try:
        if source.kind == "image":
            outcome = segment_image(source, outputs, segmenter, other, drawing)
        else:
            from lsr_infer.video import probe

            info = probe(source.path)
            with _Progress(source.path.name, info.frames, options.max_frames) as progress:
                outcome = segment_video(
                    source,
                    outputs,
                    segmenter,
                    other,
                    drawing,
                    max_frames=options.max_frames,
                    overwrite=options.overwrite,
                    on_frame=progress.step,
                    info=info,
                )
    except InputError as error:
        if tally.found > 1:  # a single source's error is the command's own
            logger.error("failed: %s", error)
        return report | {"error": str(error), "outputs": []}
    except KeyboardInterrupt:
        tally.interrupted = True
        return report | {"error": "interrupted", "outputs": []}
    tally.frames += outcome.frames
    tally.interrupted = outcome.interrupted
    status = "partial" if outcome.broken or outcome.interrupted else "done"
    if outcome.broken:
        logger.error("partial: %s", outcome.broken)
    written = [str(path) for path in outputs.paths()]
    logger.info("%s: %d frames -> %s", source.path.name, outcome.frames, ", ".join(written))
    return report | {
        "status": status,
        "frames": outcome.frames,
        "outputs": written,
        "error": outcome.broken or ("interrupted" if outcome.interrupted else None),
    }


def _document(segmenter: "Segmenter", tally: _Tally, left_out: int, seconds: float) -> dict[str, Any]:
    """Return what `--json` puts on stdout."""
    return {
        "model": segmenter.path.name,
        "backend": segmenter.backend,
        "device": segmenter.device,
        "precision": segmenter.manifest.precision,
        "classes": list(segmenter.label_space.names),
        "sources": tally.reports,
        "found": tally.found,
        "done": tally.count("done"),
        "partial": tally.count("partial"),
        "failed": tally.count("failed"),
        "not_begun": tally.found - len(tally.reports),
        "left_out": left_out,
        "frames": tally.frames,
        "seconds": round(seconds, 3),
        "frames_per_second": round(tally.frames / seconds, 3) if seconds > 0 else None,
    }


def _conclude(tally: _Tally, left_out: int, seconds: float, output: Path) -> int | None:
    """Say how it went and raise what the exit code is made of."""
    done, partial, failed = tally.count("done"), tally.count("partial"), tally.count("failed")
    found = tally.found
    summary = f"{done} of {found} sources done, {partial} partly, {failed} failed"
    if left_out:
        summary += f", {left_out} other files left out"
    if tally.interrupted:
        logger.info("%s; what was finished is in %s", summary, output)
        raise KeyboardInterrupt
    if failed == found:
        raise InputError(tally.reports[0]["error"] if found == 1 else f"{summary}. Nothing was written.")
    if done < found:
        raise PartialResultError(f"{summary}; {tally.frames} frames are in {output}.")
    logger.info("%s, %d frames in %.1f s -> %s", summary, tally.frames, seconds, output)
    return None


class _Progress:
    """A bar on a terminal, else a line every few seconds."""

    def __init__(self, name: str, frames: int | None, max_frames: int | None) -> None:
        known = [count for count in (frames, max_frames) if count is not None]
        self._name = name
        self._total = min(known) if frames is not None else None
        self._done = 0
        self._started = self._said = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> "_Progress":
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=self._total, desc=self._name, unit="frame", leave=False)
        return self

    def step(self) -> None:
        self._done += 1
        if self._bar is not None:
            self._bar.update()
        elif time.monotonic() - self._said >= _REPORT_SECONDS:
            self._said = time.monotonic()
            rate = self._done / (self._said - self._started)
            of = f" of {self._total}" if self._total else ""
            logger.info("%s: %d%s frames, %.1f frames/s", self._name, self._done, of, rate)

    def __exit__(self, *ended: object) -> None:
        if self._bar is not None:
            self._bar.close()
