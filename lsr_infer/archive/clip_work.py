"""Does one unit of an archive, a clip or a range of one, unless its record says that it is done.

Results are written beside their names and renamed when they are whole; then the record is written. A clip at fault is
recorded and no error. What is wrong with the model, the device or the output is an error: no other clip would do
better.
"""

import hashlib
import json
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from lsr_infer.archive.ledger import HIDDEN, MOST_TRIES, ClipRecord, FailedTry, Ledger
from lsr_infer.archive.places import clip_file, clip_label, clip_stamp, result_place, result_place_name
from lsr_infer.archive.ranges import CUT_SUFFIXES, join_ranges, mean_shares, range_starts
from lsr_infer.errors import DeviceError, InputError, LsrError
from lsr_infer.io.addresses import label
from lsr_infer.io.digests import file_digest
from lsr_infer.io.files import OutputPathError
from lsr_infer.io.sources import Source
from lsr_infer.io.store_cache import local_path
from lsr_infer.io.stores import is_url
from lsr_infer.pipeline.execute import open_task
from lsr_infer.pipeline.options import SegmentOptions, Selection
from lsr_infer.pipeline.outputs import plan_outputs
from lsr_infer.pipeline.task import Task, segment_video
from lsr_infer.shipped import model_path

__all__ = ["RANGES", "ArchiveJob", "ClipWorker", "Unit", "WorkerHost", "new_job"]

_NOT_IN_RESULTS = ("sources", "output", "device", "threads", "timeout", "reconnects", "overwrite", "show", "json")
"""Options on which no result depends, but for rounding."""
_WHOLE = (0.0,)
RANGES = f"{HIDDEN}/ranges"
"""Where results of ranges lie until they are joined."""


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """A clip, or one of its ranges.

    Args:
        place: the file.
        name: of the clip's results below the output.
        starts: seconds at which the ranges of the clip begin; one of 0 for a clip that is done in one piece.
        index: which range this is.
        content: SHA-256 of the file where it is known.
    """

    place: str
    name: str
    starts: tuple[float, ...] = _WHOLE
    index: int = 0
    content: str = ""

    @property
    def is_range(self) -> bool:
        """Whether this is a part of a clip."""
        return len(self.starts) > 1

    @property
    def result_name(self) -> str:
        """The name of its own results and record."""
        return f"{ranges_folder(self.name)}/{self.index:06d}" if self.is_range else self.name

    def selection(self, own: Selection) -> Selection:
        """Return which frames are taken, of a clip those that its options say."""
        if not self.is_range:
            return own
        start, *following = self.starts[self.index : self.index + 2]
        return Selection(start=start or None, duration=following[0] - start if following else None)


def ranges_folder(name: str) -> str:
    """Return where the results of a clip's ranges lie until they are joined."""
    return f"{RANGES}/{hashlib.sha256(name.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"


@dataclass(frozen=True, kw_only=True)
class ArchiveJob:
    """What every worker does.

    Args:
        options: of the segmentation; `threads` is the number of cores of a worker.
        place: of the results.
        model_digest: SHA-256 of the model's file, which has the same path or address on every node.
        recipe: digest of all on which results depend, but for the clips.
        run: names this command among others.
        range_seconds: clips that are longer are cut into ranges of about so much; infinite to cut none.
        retry: try again what earlier commands set aside.
    """

    options: SegmentOptions
    place: str
    model_digest: str
    recipe: str
    run: str
    range_seconds: float
    retry: bool = False


def new_job(options: SegmentOptions, *, run: str, range_seconds: float, retry: bool) -> ArchiveJob:
    """Return the job for options whose `output` is the place of the archive.

    Raises:
        InputError: the model cannot be read.
        UsageError: no model is named and none is shipped.
    """
    model = str(options.model) if is_url(options.model) else model_path(options.model).absolute()
    options = replace(options, model=model, save=options.save | {"json"})
    files = {"model": model, "ignore_mask": options.ignore_mask}
    digests = {name: _digest(path) for name, path in files.items() if path is not None}
    parts = {name: value for name, value in asdict(options).items() if name not in (*_NOT_IN_RESULTS, *files)}
    text = json.dumps(parts | digests, sort_keys=True, default=sorted)
    return ArchiveJob(
        options=options, place=result_place_name(options.output), model_digest=digests["model"],
        recipe=hashlib.sha256(text.encode()).hexdigest(), run=run, retry=retry,
        range_seconds=range_seconds if options.selection == Selection() else float("inf"),
    )  # fmt: skip


def _digest(place: Path | str) -> str:
    try:
        return file_digest(local_path(place))
    except OSError as error:
        raise InputError(f"{label(place)}: cannot be read ({error.strerror or error}).") from error


@dataclass(frozen=True)
class WorkerHost:
    """The machine a worker runs on; `alive` says of the name of any of them whether it is still there."""

    name: str = socket.gethostname()
    alive: Callable[[str], bool] = lambda _name: True


class ClipWorker:
    """Does units one after the other; the model is opened for the first one that is not done yet."""

    def __init__(self, job: ArchiveJob, host: WorkerHost | None = None) -> None:
        self._job, self._host = job, host or WorkerHost()
        self._place = result_place(job.place)
        self._ledger = Ledger(self._place)
        self._stack = ExitStack()
        self._task: Task | None = None

    def close(self) -> None:
        """Free the model."""
        self._stack.close()

    def cut(self, unit: Unit) -> list[Unit]:
        """Return the ranges of a clip, or the clip itself where it is short, done, or cannot be cut."""
        stored_uncut = is_url(unit.place) and not clip_label(unit.place).lower().endswith(CUT_SUFFIXES)
        if self._job.range_seconds == float("inf") or stored_uncut:  # to look into one it must be fetched
            return [unit]
        try:
            stamp = clip_stamp(unit.place)
            known = self._ledger.read(unit.name)
            if known is not None and self._is_current(known, self._job.recipe) and known.stamp == stamp:
                return [unit]
            with clip_file(unit.place) as file:
                starts = range_starts(file, self._job.range_seconds)
                content = file_digest(file) if len(starts) > 1 else ""
        except Exception:  # noqa: BLE001 - whatever it is, it is the unit's when it is done
            return [unit]
        return [msgspec.structs.replace(unit, starts=starts, index=n, content=content) for n in range(len(starts))]

    def work(self, unit: Unit) -> ClipRecord:
        """Do a unit and return its record; `LsrError` where no other unit would do better."""
        return self._tried(unit, unit.result_name, self._segmented)

    def join(self, unit: Unit) -> ClipRecord:
        """Join the ranges of a clip, which all are done; see `work`."""
        return self._tried(unit, unit.name, self._joined)

    def _tried(self, unit: Unit, name: str, make: Callable[[Unit, Path, ClipRecord], ClipRecord]) -> ClipRecord:
        """Let `make` do what is not done yet under a name, and record how it ended."""
        known = self._ledger.read(name)
        recipe = self._job.recipe if name == unit.name else f"{self._job.recipe} {unit.starts[unit.index :][:2]}"
        record = ClipRecord(
            name=name, source=clip_label(unit.place), recipe=recipe, run=self._job.run, status="started",
            tries=self._failed_tries(known), node=self._host.name,
        )  # fmt: skip
        try:
            record = _with(record, stamp=clip_stamp(unit.place))
            current = known is not None and self._is_current(known, recipe)
            if known is not None and current and known.stamp == record.stamp:
                return known
            if len(record.tries) >= MOST_TRIES:
                return self._recorded(_with(record, status="aside", reason=record.tries[-1].reason))
            with clip_file(unit.place) as file:
                record = _with(record, content=unit.content or file_digest(file))
                if known is not None and current and known.content == record.content:
                    return self._recorded(_with(known, stamp=record.stamp))
                self._ledger.write(record)
                started = time.perf_counter()
                ended = make(unit, file, record)
                if clip_stamp(unit.place) != record.stamp:
                    raise InputError(f"{clip_label(unit.place)}: changed while it was read.")
            return self._recorded(_with(ended, seconds=round(ended.seconds + time.perf_counter() - started, 3)))
        except OutputPathError:
            raise
        except _NoModelError as error:
            raise error.cause from error
        except Exception as error:  # noqa: BLE001 - one clip does not stop the others
            reason = (
                str(error)
                if isinstance(error, LsrError)
                else f"{clip_label(unit.place)}: {type(error).__name__}: {error}"
            )
            tries = (*record.tries, FailedTry(node=self._host.name, reason=reason))
            status = "failed" if len(tries) < MOST_TRIES else "aside"
            return self._recorded(_with(record, status=status, tries=tries, reason=reason))

    def _recorded(self, record: ClipRecord) -> ClipRecord:
        self._ledger.write(record)
        return record

    def _segmented(self, unit: Unit, file: Path, record: ClipRecord) -> ClipRecord:
        """Segment a unit as `lsr-infer` does, and put its results into their place."""
        task = replace(self._opened(), selection=unit.selection(self._job.options.selection), is_range=unit.is_range)
        source = Source(unit.place if is_url(unit.place) else file, "video", Path(Path(unit.name).stem))
        try:
            with self._place.folder(record.name) as folder:
                outcome = segment_video(source, plan_outputs(source, folder, task.drawing), task)
                ended = _counted(record, folder)
            broken = outcome.broken and source.by_label(outcome.broken)
        finally:
            source.release()
        return _with(ended, status="partial" if broken else "done", reason=broken)

    def _joined(self, unit: Unit, file: Path, record: ClipRecord) -> ClipRecord:
        """Join the results of all ranges; they are removed once the record is there, by `clear`."""
        names = [msgspec.structs.replace(unit, index=index).result_name for index in range(len(unit.starts))]
        records = [self._ledger.read(name) for name in names]
        with self._place.folder(record.name) as folder, ExitStack() as stack:
            folders = [stack.enter_context(self._place.local(name)) for name in names]
            join_ranges(file, folders, unit.starts, folder)
            ended = _counted(record, folder)
        return _with(ended, status="done", seconds=sum(part.seconds for part in records if part is not None))

    def clear(self, unit: Unit) -> None:
        """Remove the results of a clip's ranges."""
        self._place.remove(ranges_folder(unit.name))

    def _opened(self) -> Task:
        """Return what is done with every clip, its model open."""
        if self._task is None:
            model = self._job.options.model
            assert model is not None
            try:
                if _digest(model) != self._job.model_digest:
                    raise DeviceError(
                        f"{label(model)}: is another file on {self._host.name} than where the command was started. Put "
                        "the model under one path that all nodes share."
                    )
                self._task = open_task(self._job.options, self._stack)
            except LsrError as error:
                raise _NoModelError(error) from error
        return self._task

    def _is_current(self, known: ClipRecord, recipe: str) -> bool:
        """Whether a record is the last word about a recipe, if the content is still the same."""
        if not known.ended or known.recipe != recipe:
            return False
        if known.status == "aside":
            return known.run == self._job.run or not self._job.retry
        return self._place.holds(known.name)

    def _failed_tries(self, known: ClipRecord | None) -> tuple[FailedTry, ...]:
        """Return the tries of this run; one that has no end failed, unless its whole node was lost."""
        if known is None or known.run != self._job.run or known.ended:
            return ()
        if known.status == "started" and self._host.alive(known.node):
            reason = f"{known.source}: the process that worked on it ended on {known.node} (out of memory, or killed)."
            return (*known.tries, FailedTry(node=known.node, reason=reason))
        return known.tries


class _NoModelError(Exception):
    """The model cannot be opened here, which is no fault of the clip."""

    def __init__(self, cause: LsrError) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _with(record: ClipRecord, **changes: Any) -> ClipRecord:
    return msgspec.structs.replace(record, **changes)


def _counted(record: ClipRecord, folder: Path) -> ClipRecord:
    """Return a record with what the file of class shares among results says."""
    frames, size, means = mean_shares(next(folder.glob("*.jsonl")))
    return _with(record, frames=frames, shares=means, width=size["width"], height=size["height"])
