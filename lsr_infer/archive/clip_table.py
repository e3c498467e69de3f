"""Writes what an archive holds, as a Parquet table with a row for each clip and a JSON summary."""

import json
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import metadata
from types import TracebackType
from typing import Any, Self

from lsr_infer.archive.ledger import ClipRecord
from lsr_infer.archive.places import ResultPlace
from lsr_infer.text import printable

__all__ = ["SUMMARY", "TABLE", "ClipTable"]

TABLE, SUMMARY = "summary.parquet", "summary.json"
_ROWS = 1000
"""Rows that are written at a time."""
_LISTED = 1000
"""Clips that the summary lists with a reason, at most."""


class ClipTable:
    """The table and the summary of an archive; both appear under their names when the block ends well.

    Args:
        place: where they are written.
        classes: names of the classes; each has a column `share_NAME`, its mean share of a clip's frames, 0 to 1.
        run: names this command; what other runs did is counted as such.
    """

    def __init__(self, place: ResultPlace, classes: Sequence[str], run: str) -> None:
        self._place, self._classes, self._run = place, classes, run
        self._rows: list[dict[str, Any]] = []
        self._stack = ExitStack()
        self._started = time.monotonic()
        self._writer: Any = None
        self.counts: Counter[str] = Counter()
        self._frames: Counter[str] = Counter()
        self._seconds: dict[str, float] = defaultdict(float)
        self._sums: dict[str, float] = defaultdict(float)
        self._listed: list[dict[str, str]] = []

    def __enter__(self) -> Self:
        import pyarrow as pa
        import pyarrow.parquet as pq

        texts = [(name, pa.string()) for name in ("clip", "results", "status", "reason", "node")]
        numbers = [(name, pa.int64()) for name in ("frames", "width", "height")]
        shares = [(f"share_{name.replace(' ', '_')}", pa.float64()) for name in self._classes]
        schema = pa.schema([*texts, *numbers, ("seconds", pa.float64()), *shares])
        temporary = self._stack.enter_context(self._place.file(TABLE))
        self._writer = self._stack.enter_context(pq.ParquetWriter(temporary, schema))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._stack:
            if error is not None:
                self._stack.__exit__(kind, error, trace)
                return
            self._flush()

    def worked(self, record: ClipRecord) -> None:
        """Count what a worker did for a clip, or for a range of one."""
        if record.run == self._run:
            self._frames[record.node] += record.frames
            self._seconds[record.node] += record.seconds

    def add(self, record: ClipRecord) -> None:
        """Add a clip that has ended."""
        self.counts[record.status] += 1
        self.counts["kept"] += record.run != self._run
        self.counts["frames"] += record.frames
        for name, share in record.shares.items():
            self._sums[name] += share * record.frames
        if record.reason is not None and len(self._listed) < _LISTED:
            reason = {"clip": printable(record.source), "status": record.status, "reason": printable(record.reason)}
            self._listed.append(reason)
        row = {
            "clip": printable(record.source), "results": printable(record.name), "status": record.status,
            "reason": record.reason and printable(record.reason), "node": printable(record.node),
            "frames": record.frames, "width": record.width, "height": record.height, "seconds": record.seconds,
        }  # fmt: skip
        self._rows.append(row | {f"share_{name.replace(' ', '_')}": share for name, share in record.shares.items()})
        if len(self._rows) >= _ROWS:
            self._flush()

    def progress(self) -> tuple[float, str]:
        """Return how many clips have ended, and the frames a second of each node in words."""
        rates = ", ".join(f"{printable(node)} {rate:.1f}" for node, rate in self.rates().items())
        return self.clips, f"frames/s: {rates}" if rates else ""

    @property
    def clips(self) -> int:
        """How many clips have ended."""
        return sum(self.counts[status] for status in ("done", "partial", "aside"))

    def rates(self) -> dict[str, float]:
        """Return frames a second so far, by node."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        return {node: round(frames / seconds, 3) for node, frames in sorted(self._frames.copy().items())}

    def summary(self, **facts: Any) -> dict[str, Any]:
        """Return the summary, and write it."""
        counts, frames = self.counts, max(self.counts["frames"], 1)
        document = {
            "clips": self.clips,
            **{status: counts[status] for status in ("done", "partial", "aside", "kept", "frames")},
            **facts,
            "shares": {name: round(self._sums[name] / frames, 6) for name in self._classes},
            "nodes": {
                node: {"frames": self._frames[node], "worker_seconds": round(self._seconds[node], 3),
                       "frames_per_second": rate} for node, rate in self.rates().items()
            },
            "seconds": round(time.monotonic() - self._started, 3),
            "reasons": self._listed,
            "table": TABLE,
            "version": metadata.version("lsr-road"),
        }  # fmt: skip
        self._place.write(SUMMARY, json.dumps(document, indent=2).encode())
        return document

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._writer.schema))
            self._rows.clear()
