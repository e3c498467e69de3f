"""Keeps one small record for every clip of an archive, and tells from it what is still to be done.

A record is written after the results it stands for. So a kill between the two leaves results without a record, which
are made again and replaced by their like, and never a record without results.
"""

import hashlib
import json
import logging

import msgspec

from lsr_infer.archive.places import ResultPlace

__all__ = ["HIDDEN", "MOST_TRIES", "ClipRecord", "FailedTry", "Ledger"]

logger = logging.getLogger(__name__)

MOST_TRIES = 3
"""After so many failures a clip is set aside."""
HIDDEN = ".archive"
"""The folder of records below the output."""


class FailedTry(msgspec.Struct, frozen=True, kw_only=True):
    """A try that did not end well: where, and why; no reason is known where its process ended in the middle."""

    node: str
    reason: str | None = None


class ClipRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a clip, or of a range of one.

    Args:
        name: of its results below the output.
        source: the file or address.
        recipe: digest of the model and of all options on which results depend.
        run: the command that wrote this.
        status: started, failed (to be tried again), done, partial (the source breaks in the middle; its good frames
            are kept), aside (failed too often).
        stamp: changes with the source, and is known without reading it.
        content: SHA-256 of the source.
        reason: why it is partial or aside.
        tries: those of this run that failed.
        frames: how many the results have.
        seconds: how long the work took.
        shares: mean share of each class over all frames, 0 to 1.
        width: columns of a frame.
        height: rows of it.
        node: where the work was done.
    """

    name: str
    source: str
    recipe: str
    run: str
    status: str
    stamp: str = ""
    content: str = ""
    reason: str | None = None
    tries: tuple[FailedTry, ...] = ()
    frames: int = 0
    seconds: float = 0.0
    shares: dict[str, float] = {}
    width: int = 0
    height: int = 0
    node: str = ""

    @property
    def ended(self) -> bool:
        """Whether nothing is left to be done for this content and recipe."""
        return self.status in ("done", "partial", "aside")

    @property
    def has_results(self) -> bool:
        """Whether results stand under the name."""
        return self.status in ("done", "partial")


class Ledger:
    """The records below a place: one file for each name, which appears whole."""

    def __init__(self, place: ResultPlace) -> None:
        self._place = place

    def read(self, name: str) -> ClipRecord | None:
        """Return the record of a name, None where there is none; a damaged one is none."""
        data = self._place.read(self._file(name))
        if data is None:
            return None
        try:
            return msgspec.convert(json.loads(data), ClipRecord)
        except ValueError as error:
            logger.warning("%s: its record is damaged and is made again (%s)", name, error)
            return None

    def write(self, record: ClipRecord) -> None:
        """Put a record in the place of the one of its name."""
        # json, since names may hold bytes that are no UTF-8
        self._place.write(self._file(record.name), json.dumps(msgspec.to_builtins(record)).encode())

    @staticmethod
    def _file(name: str) -> str:
        if name.startswith(f"{HIDDEN}/"):  # of a range: beside its results, and removed with them
            return f"{name}.json"
        digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:32]
        return f"{HIDDEN}/records/{digest[:2]}/{digest}.json"
