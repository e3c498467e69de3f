"""Runs `lsr-infer archive SOURCE…`: segments many clips on this machine or a Ray cluster, each exactly once."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any

from lsr_infer.commands.parser import ArgumentParser, named
from lsr_infer.commands.segment import (
    add_frame_options,
    add_kinds,
    add_looks,
    add_model,
    add_working_size,
    read_kinds,
    read_selection,
    read_working_size,
)
from lsr_infer.errors import InputError, PartialResultError, UsageError
from lsr_infer.io.stores import is_url
from lsr_infer.pipeline.options import SegmentOptions
from lsr_infer.shipped import model_path
from lsr_infer.text import printable_json

__all__ = ["ArchiveRequest", "main", "read_request"]

logger = logging.getLogger(__name__)

_RANGE_SECONDS = 120.0
_CORES = 2


@dataclass(frozen=True, kw_only=True)
class ArchiveRequest:
    """A command line, checked; `lsr-infer archive --help all` says what each option means."""

    options: SegmentOptions
    workers: int = 0
    gpus_per_worker: float = 0.0
    address: str | None = None
    range_seconds: float = _RANGE_SECONDS
    retry: bool = False

    def __post_init__(self) -> None:
        if self.workers < 0 or self.gpus_per_worker < 0:
            raise UsageError("--workers and --gpus-per-worker take 0 or more.")
        if not self.range_seconds > 0:
            raise UsageError(f"--range is {self.range_seconds}; allowed: seconds, more than 0, or inf to cut no clip.")


def main(argv: Sequence[str]) -> None:
    """Run the command; raises `LsrError`."""
    _run(read_request(argv))


def read_request(argv: Sequence[str]) -> ArchiveRequest:
    """Turn the command line into an `ArchiveRequest`."""
    values = vars(_parser().parse_args(argv))
    own = {name: values.pop(name) for name in ("workers", "gpus_per_worker", "address", "range_seconds", "retry")}
    options = SegmentOptions(
        sources=tuple(values.pop("sources")), save=read_kinds(values), selection=read_selection(values),
        working=read_working_size(values), **values,
    )  # fmt: skip
    return ArchiveRequest(options=options, **own)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "lsr-infer archive",
        "SOURCE... -o PLACE [options]",
        "Segment the videos of an archive with a pool of workers, on this machine or a Ray cluster. Each clip\n"
        "gets a folder with what lsr-infer makes of it. The same command goes on where an earlier one was\n"
        "stopped or killed; clips that changed, and all where the model or an option did, are done anew.",
        examples=(
            "lsr-infer archive drives/ --model model.onnx --output results",
            "lsr-infer archive @clips.txt -m model.onnx -o /shared/results --address auto --gpus-per-worker 1",
        ),
        notes="Exit codes: 0 done, 2 usage, 3 device or Ray, 4 model or place unusable, 6 clips set aside or only\n"
        "partly readable, 130 interrupted. Needs the extra ray: pip install 'lsr-road[ray]'.",
    )
    add = parser.section("input")
    add("sources", nargs="+", metavar="SOURCE", common=True, help="folder, video or pattern, of a store "
        "too, or list of them (@FILE, a clip a line); several at once")  # fmt: skip
    add_model(add)
    add = parser.section("results")
    add("-o", "--output", type=named, required=True, metavar="PLACE", common=True, help="folder of the results, which "
        "all nodes share, or of a store (s3://, gs://, az://)")  # fmt: skip
    add_kinds(add)
    add_looks(add)
    add("--json", action="store_true", common=True, help="put the summary on stdout, too")
    add = parser.section("cluster")
    add("--workers", type=int, default=0, metavar="N", common=True, help="processes with a model each (0: as many as "
        "fit)")  # fmt: skip
    add("--gpus-per-worker", type=float, default=0.0, metavar="N", common=True, help="such as 1, or 0.5 for two "
        "workers a GPU (0)")  # fmt: skip
    add("--address", metavar="ADDRESS", common=True, help="of a Ray cluster: HOST:PORT, or auto for this machine's "
        "(starts Ray here)")  # fmt: skip
    add("--range", type=float, default=_RANGE_SECONDS, dest="range_seconds", metavar="S", help="cut longer clips into "
        f"ranges of S seconds, which workers do side by side; inf cuts none ({_RANGE_SECONDS:.0f})")  # fmt: skip
    add("--retry", action="store_true", help="try again what earlier commands set aside")
    add_frame_options(parser.section("frames"))
    add_working_size(parser.section("network"))
    return parser


def _run(request: ArchiveRequest) -> None:
    """Do the archive, and write its table and summary; device and input are checked before the output is."""
    from lsr_infer.archive.clip_table import ClipTable
    from lsr_infer.archive.clip_work import Unit, new_job
    from lsr_infer.archive.clips import ClipList
    from lsr_infer.archive.cluster import RayRunner, WorkerPool
    from lsr_infer.archive.driver import Driver
    from lsr_infer.archive.places import result_place
    from lsr_infer.backends.model_file import read_model_file
    from lsr_infer.system.progress import Progress, with_progress

    options, cores = request.options, request.options.threads or _CORES
    clips = ClipList(options.sources, without=options.output)
    number = sum(1 for _ in with_progress(clips, "finding clips", None, unit="clip"))
    if number == 0:
        raise InputError(f"{', '.join(options.sources)}: holds no video ({clips.left_out} other files).")
    model = model_path(options.model)
    classes = read_model_file(model).manifest.label_space.names
    options = replace(options, model=options.model if is_url(options.model) else model)
    job = new_job(options, run=token_hex(8), range_seconds=request.range_seconds, retry=request.retry)
    pool = WorkerPool(
        workers=request.workers, cores=cores, gpus=request.gpus_per_worker, address=request.address
    )  # fmt: skip
    with RayRunner(job, pool) as runner:
        workers = runner.workers()
        logger.info("%d clips, %d workers of %d cores, results in %s", number, workers, cores, job.place)
        results = result_place(job.place)
        results.prepare()
        units = (Unit(place=clip.place, name=clip.name) for clip in clips)
        with (
            ClipTable(results, classes, job.run) as table,
            Progress("archive", number, unit="clip", look=table.progress),
        ):
            for unit, record in Driver(runner).records(units):
                if unit.result_name == record.name:  # all but the joining of ranges, which were counted
                    table.worked(record)
                if unit.name == record.name:
                    table.add(record)
        runner.clear()
    _conclude(table.summary(model=model.name, recipe=job.recipe, run=job.run), clips.unsearched, options)


def _conclude(summary: dict[str, Any], unsearched: Sequence[str], options: SegmentOptions) -> None:
    """Log how the archive ended; `PartialResultError` where clips or folders are missing."""
    if options.json:
        print(printable_json(summary, indent=2))  # noqa: T201 - what was asked for
    for found in summary["reasons"]:
        logger.error("%s: %s", found["status"], found["reason"])
    for message in unsearched:
        logger.error("failed: %s", message)
    for node, work in summary["nodes"].items():
        logger.info("%s: %d frames, %.1f frames/s", node, work["frames"], work["frames_per_second"])
    text = "{done} of {clips} clips done, {partial} partly, {aside} set aside, {kept} of all before".format(**summary)
    if summary["done"] < summary["clips"] or unsearched:
        raise PartialResultError(f"{text}; {options.output}/summary.json says why. --retry tries these again.")
    logger.info("%s, %d frames in %.1f s, in %s", text, summary["frames"], summary["seconds"], options.output)
