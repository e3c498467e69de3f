"""Scans every file before step 1: what is unusable, how often each class occurs, what the colours are like.

Files are read by several threads (decoding leaves Python's lock), and what was found is kept in a cache folder by path,
size and time of change. Failures are never cached, so a repaired file is read at once.
"""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError, LsrError, UnusableFilesError
from lsr_infer.io.files import write_json
from lsr_infer.io.images import common_bits, fit_mask, read_image, read_label, resize_frame, used_bits
from lsr_infer.io.label_images import is_flat
from lsr_infer.io.temporary import sweep
from lsr_infer.system.process import usable_cores
from lsr_infer.system.progress import with_progress
from lsr_train.data.augmentation import lab_statistics
from lsr_train.data.labels import IGNORE_INDEX, IdMap
from lsr_train.data.pairing import Pair

__all__ = ["ImageScan", "PairScan", "cut", "scan_depth", "scan_images", "scan_pairs", "settle", "user_cache_folder"]

logger = logging.getLogger(__name__)

Record = dict[str, Any]

_VERSION = 2
_MOST_VALUES = 4096
_LISTED = 20


def user_cache_folder() -> Path:
    """Return the folder for what can be computed again; for commands, which hand it to what they call."""
    base = os.environ.get("XDG_CACHE_HOME")
    return Path(base) / "lsr_road" if base else Path.home() / ".cache" / "lsr_road"


class PairScan(NamedTuple):
    """Pixels of each class in each image [N,C], void ones in each [N], and (index, line) of each pair that is unusable.

    What a mask leaves out is neither.
    """

    counts: NDArray[np.int64]
    void: NDArray[np.int64]
    problems: tuple[tuple[int, str], ...]


class ImageScan(NamedTuple):
    """`lab_statistics` of each image at training size [N,2,3], and (index, line) of each that is unusable.

    `flat` [N] is true where an image has so few colours as a label image has, and no photograph.
    """

    lab: NDArray[np.float64]
    flat: NDArray[np.bool_]
    problems: tuple[tuple[int, str], ...]


def settle(
    problems: Sequence[str], total: int, on_bad: str, what: str, advice: Sequence[str] = (), *, partial: int = 0
) -> None:
    """Stop over unusable files (one line each, of `total` files), or log that they are left out.

    Args:
        problems: one line a file; the first 20 are shown, and how many more there are.
        total: how many files there are.
        on_bad: `stop` or `skip`.
        what: what the files are called.
        advice: sentences on what would mend them.
        partial: how many of them are videos that are used up to where they break.

    Raises:
        UnusableFilesError: there are problems and `on_bad` is `stop`, or nothing usable is left; lists them.
    """
    if not problems:
        return
    lines = [f"  {line}" for line in cut(problems)]
    listed = "\n".join(lines)
    hints = "".join(f" {sentence}" for sentence in advice)
    rest = f", {partial} of them only from where it breaks" if partial else ""
    if len(problems) - partial >= total:
        raise UnusableFilesError(f"none of {total} {what} can be used.{hints}\n{listed}")
    if on_bad == "stop":
        raise UnusableFilesError(
            f"{len(problems)} of {total} {what} cannot be used{rest} (--data.on_bad skip leaves them out)."
            f"{hints}\n{listed}"
        )
    logger.warning("%d of %d %s are left out%s (--data.on_bad skip).%s", len(problems), total, what, rest, hints)
    for line in lines:
        logger.warning("%s", line)


def cut(lines: Sequence[str]) -> list[str]:
    """Return the first 20 lines, and one that counts the rest."""
    rest = len(lines) - _LISTED
    return [*lines] if rest <= 0 else [*lines[:_LISTED], f"and {rest} more"]


class _Cache:
    """Records by file, in one JSON file for each kind of scan."""

    def __init__(self, folder: Path | None, *kind: Any) -> None:
        digest = hashlib.sha256(json.dumps([_VERSION, *kind]).encode()).hexdigest()[:24]
        self.path = None if folder is None else folder / "scan" / f"{digest}.json"
        self.records: dict[str, Record] = {}
        self.fresh = 0
        with contextlib.suppress(OSError, ValueError):  # absent or damaged: everything is read again
            document = {} if self.path is None else json.loads(self.path.read_text(encoding="utf-8"))
            self.records = document if isinstance(document, dict) else {}

    @staticmethod
    def key(*files: Path) -> str | None:
        """Return what identifies the content of files, None where one cannot be read."""
        try:
            stats = [(path.absolute(), path.stat()) for path in files]
        except OSError:
            return None
        return "|".join(f"{path}|{stat.st_size}|{stat.st_mtime_ns}" for path, stat in stats)

    def save(self) -> None:
        """Write the records; a cache that cannot be written is a warning, not an error."""
        if self.path is None or not self.fresh:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            sweep(self.path.parent)
            write_json(self.path, self.records)
        except (OSError, InputError) as error:
            logger.warning("the scan is not cached: %s", error)


def _read_all(
    what: str, keys: Sequence[str | None], cache: _Cache, read: Callable[[int], Record]
) -> list[Record | InputError]:
    """Return each file's record, from the cache or by reading it."""
    known = [None if key is None else cache.records.get(key) for key in keys]
    results: list[Record | InputError] = [record if isinstance(record, dict) else {} for record in known]
    missing = [index for index, record in enumerate(known) if not isinstance(record, dict)]

    def attempt(index: int) -> Record | InputError:
        try:
            return read(index)
        except InputError as error:
            return error

    pool = ThreadPoolExecutor(max_workers=usable_cores())
    try:
        attempts = with_progress(pool.map(attempt, missing), f"checking {what}", len(missing), unit="file")
        for index, result in zip(missing, attempts, strict=True):
            results[index] = result
            key = keys[index]
            if key is not None and isinstance(result, dict):
                cache.records[key] = result
                cache.fresh += 1
    finally:
        pool.shutdown(cancel_futures=True)
        cache.save()
    return results


def scan_depth(files: Sequence[Path], tell: Callable[[str], object], *, cache: Path | None = None) -> int:
    """Return `common_bits` of all images of a data set; what each uses is kept as `scan_pairs` does."""
    known = _Cache(cache, "bits")

    def used(path: Path) -> int:
        key = known.key(path)
        record = known.records.get(key or "")
        if isinstance(record, dict):
            return int(record["bits"])
        bits = used_bits(path)
        if bits and key is not None:
            known.records[key] = {"bits": bits}
            known.fresh += 1
        return bits

    bits = common_bits(files, used, tell)
    known.save()
    return bits


def _pair_record(pair: Pair, bits: int | None, *, id_map: IdMap, mask: NDArray[np.bool_] | None) -> Record:
    """Read an image and its labels and count the raw values outside the mask."""
    frame, values = read_image(pair.image, bits), _values(pair.labels, id_map)
    if frame.shape[:2] != values.shape:
        raise InputError(
            f"{pair.labels}: is {values.shape[1]}x{values.shape[0]}, its image {pair.image.name} "
            f"{frame.shape[1]}x{frame.shape[0]}"
        )
    ignored = fit_mask(mask, *values.shape)
    kept = values[~ignored] if ignored is not None else values.ravel()
    if id_map.colors:
        found, counts = np.unique(kept, return_counts=True)
    else:
        counts = np.bincount(kept.ravel())
        found = np.flatnonzero(counts)
        counts = counts[found]
    if len(found) > _MOST_VALUES:
        raise InputError(f"{pair.labels}: holds {len(found)} different values; this is no label file")
    return {"values": [[int(value), int(count)] for value, count in zip(found, counts, strict=True)]}


def _values(path: Path, id_map: IdMap) -> NDArray[Any]:
    """Read a label file as raw values; `InputError` where its ids cannot be in the channel that is read."""
    raw = read_label(path)
    if raw.ndim == 3 and not id_map.colors:
        spread = [int(np.ptp(raw[..., channel])) for channel in range(3)]
        if not spread[0] and any(spread):
            other = "green" if spread[1] else "blue"
            raise InputError(
                f"{path}: its red channel, where ids are read, holds {raw[0, 0, 0]} everywhere, and {other} does not. "
                "Save the ids as a grey PNG, or give RGB colours as label_colors in classes.yaml"
            )
    try:
        return id_map.raw_values(raw)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _outside(path: Path, unknown: list[int], id_map: IdMap, mask: NDArray[np.bool_] | None) -> str:
    """Describe which values of a label file are outside the map, and where the first one is."""
    place, colors = None, ""
    with contextlib.suppress(LsrError):
        if not id_map.colors and read_label(path).ndim == 3:
            colors = ". It was read from the red channel; RGB colours are given as label_colors in classes.yaml"
        values = _values(path, id_map)
        ignored = fit_mask(mask, *values.shape)
        hits = values == unknown[0]
        rows, columns = np.nonzero(hits if ignored is None else hits & ~ignored)
        place = (int(rows[0]), int(columns[0])) if rows.size else None
    more = f", and {len(unknown) - 1} more such" if len(unknown) > 1 else ""
    return f"{path}: {id_map.complaint(unknown[0], place)}{more}{colors}"


def scan_pairs(
    pairs: Sequence[Pair],
    id_map: IdMap,
    num_classes: int,
    *,
    bits: int | None = None,
    mask: NDArray[np.bool_] | None = None,
    cache: Path | None = None,
) -> PairScan:
    """Read every image and label file of a data set; found records are kept in the folder `cache`, where one is given.

    A pair is unusable that is missing, unreadable, of two sizes, without ids in the channel that is read, or with a
    value outside the map. The images use `bits`, see `scan_depth`. Where `mask` (bool [H,W], resized to each image)
    is true, pixels are ignored.
    """
    digest = "" if mask is None else hashlib.sha256(repr(mask.shape).encode() + np.packbits(mask).tobytes()).hexdigest()
    known = _Cache(cache, "pairs", id_map.colors, digest)
    keys = [known.key(pair.image, pair.labels) for pair in pairs]
    records = _read_all(
        "labelled images", keys, known,
        lambda index: _pair_record(pairs[index], bits, id_map=id_map, mask=mask),
    )  # fmt: skip
    counts, void = np.zeros((len(pairs), num_classes), dtype=np.int64), np.zeros(len(pairs), dtype=np.int64)
    problems: list[tuple[int, str]] = []
    for index, record in enumerate(records):
        if isinstance(record, InputError):
            problems.append((index, str(record)))
            continue
        values = np.array(record["values"], dtype=np.int64).reshape(-1, 2)
        labels = id_map.lookup(values[:, 0])
        unknown = [int(value) for value in values[labels < 0, 0]]
        if unknown:
            problems.append((index, _outside(pairs[index].labels, unknown, id_map, mask)))
            continue
        inside = labels != IGNORE_INDEX
        np.add.at(counts[index], labels[inside], values[inside, 1])
        void[index] = values[~inside, 1].sum()
    return PairScan(counts, void, tuple(problems))


def scan_images(
    files: Sequence[Path], height: int, width: int, *, bits: int | None = None, cache: Path | None = None
) -> ImageScan:
    """Read images of a data set that use `bits`; colour statistics at training size are kept as `scan_pairs` does."""
    known = _Cache(cache, "images", height, width, bits)

    def read(index: int) -> Record:
        frame = read_image(files[index], bits)
        return {"lab": lab_statistics(resize_frame(frame, height, width)).tolist(), "flat": is_flat(frame)}

    records = _read_all("images", [known.key(path) for path in files], known, read)
    lab, flat = np.zeros((len(files), 2, 3)), np.zeros(len(files), dtype=bool)
    problems: list[tuple[int, str]] = []
    for index, record in enumerate(records):
        if isinstance(record, InputError):
            problems.append((index, str(record)))
        else:
            lab[index], flat[index] = record["lab"], record["flat"]
    return ImageScan(lab, flat, tuple(problems))
