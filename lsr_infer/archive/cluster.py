"""Runs units on a Ray cluster, or on this machine by Ray: Ray Data hands them to a pool of workers.

What lies in a place of results is all that workers and driver share; a worker, a node or the driver may be lost at any
time. The driver holds no units: they lie in lists beside the records, of which it knows the names. Addresses that may
hold a secret are in no list; they go with its name.
"""

import json
import logging
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import islice
from typing import Any

import msgspec

from lsr_infer import errors
from lsr_infer.archive.clip_work import RANGES, ArchiveJob, ClipWorker, Unit, WorkerHost
from lsr_infer.archive.ledger import HIDDEN, ClipRecord
from lsr_infer.archive.places import result_place
from lsr_infer.errors import DeviceError, LsrError
from lsr_infer.io.addresses import label
from lsr_infer.io.stores import is_store
from lsr_infer.system.ray_cluster import join_cluster

__all__ = ["RayRunner", "WorkerPool"]

_LISTS = f"{HIDDEN}/lists"
_LIST = 100
"""Clips in one list: a task looks at all of them, one after the other, to find the long ones."""
_READERS = 4
"""Lists that are read at a time, each by a process of its own, which Ray would start for all of them at once."""
_BLOCK_BYTES = 1
"""A block of more is split: so each row is a task of its own, whichever list it was in."""
_TASKS, _TASKS_A_WORKER = 1000, 20
"""About as many, whatever the number of units: the driver remembers 9 KB of each. With fewer a worker, the last ones
would be waited for."""


@dataclass(frozen=True, kw_only=True)
class WorkerPool:
    """The workers of a run: `workers` of `cores` each, 0 for as many as fit; `address` of a cluster, None for none."""

    workers: int = 0
    cores: int = 2
    gpus: float = 0.0
    address: str | None = None


class RayRunner:
    """A `UnitRunner` on Ray; entering it connects to the cluster, or starts Ray on this machine.

    `worker` is what each process of the pool makes of the job, and asks to `work`.

    Raises:
        DeviceError: Ray is not installed or not reached, or no node has room for a worker.
    """

    def __init__(self, job: ArchiveJob, pool: WorkerPool, worker: Callable[[ArchiveJob], Any] | None = None) -> None:
        self._pool = pool
        self._worker = worker or _clip_worker
        self._job = replace(job, options=replace(job.options, threads=pool.cores))
        self._place = result_place(job.place)
        self._lists = f"{_LISTS}/{job.run}"
        self._written = 0
        self._joins: dict[Any, Unit] = {}
        self._ray: Any = None

    def __enter__(self) -> "RayRunner":
        self._ray = join_cluster(self._pool.address or "", "archives are done by Ray", "ray.data")
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = self._ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        context.target_max_block_size = _BLOCK_BYTES
        context.max_consecutive_actor_init_deaths = 10
        context.execution_no_progress_timeout_s = -1  # a long clip takes its time
        return self

    def __exit__(self, *ended: object) -> None:
        self._ray.shutdown()

    def workers(self) -> int:
        """Return how many workers there are room for, or as many as were asked for."""

        def room(resources: Mapping[str, float]) -> int:
            by_cores = resources.get("CPU", 0.0) // self._pool.cores
            by_gpus = resources.get("GPU", 0.0) / self._pool.gpus if self._pool.gpus else by_cores
            return int(min(by_cores, by_gpus))

        there = sum(room(node["Resources"]) for node in self._ray.nodes() if node["Alive"])
        if there == 0 and not self._pool.workers:
            asked = f"{self._pool.cores} cores" + (f" and {self._pool.gpus:g} GPUs" if self._pool.gpus else "")
            raise DeviceError(f"no node has room for a worker of {asked}. Choose fewer --threads or --gpus-per-worker.")
        return self._pool.workers or there

    def outcomes(self, units: Iterable[Unit], *, cut: bool) -> Iterator[tuple[Unit, ClipRecord]]:
        """See `UnitRunner`; `LsrError` where a worker met what no other would do better."""
        lists = list(self._write_lists(units))
        if not lists:
            return
        together = max(1, len(lists) * _LIST // max(_TASKS, _TASKS_A_WORKER * self.workers()))
        read = max(1, together // _LIST)
        rows = [
            {"lists": json.dumps(lists[start : start + read]), "cut": cut, "together": together}
            for start in range(0, len(lists), read)
        ]
        # A pool that may shrink: a fixed one waits for ever for a lost node's workers, which find no room.
        data = self._ray.data
        pool = data.ActorPoolStrategy(
            min_size=1, max_size=self.workers(), initial_size=self.workers(), max_tasks_in_flight_per_actor=2
        )
        done = (
            data.from_items(rows, override_num_blocks=len(rows))
            .flat_map(_read_lists, fn_args=(self._job,), num_cpus=0, concurrency=min(_READERS, len(rows)))
            .map(
                _Worker,
                fn_constructor_args=(self._worker, self._job),
                compute=pool,
                num_cpus=self._pool.cores,
                num_gpus=self._pool.gpus,
            )
        )
        for batch in done.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in batch.to_pylist():
                yield from _read_row(row)

    def start_join(self, unit: Unit) -> None:
        """See `UnitRunner`; joining copies and takes little of a processor."""
        join = self._ray.remote(num_cpus=0, max_retries=-1, scheduling_strategy="SPREAD")(_join)
        self._joins[join.remote(self._job, _packed([unit]))] = unit

    def joined(self, *, wait: bool) -> Iterator[tuple[Unit, ClipRecord]]:
        """See `UnitRunner`."""
        while self._joins:
            ready, _ = self._ray.wait(list(self._joins), timeout=None if wait else 0)
            for reference in ready:
                del self._joins[reference]
                yield from _read_row(self._ray.get(reference))
            if not ready:
                return

    def clear(self) -> None:
        """Remove lists and ranges, those that killed runs left too, once nothing is left to be done."""
        self._place.remove(_LISTS)
        self._place.remove(RANGES)

    def _write_lists(self, units: Iterable[Unit]) -> Iterator[dict[str, Any]]:
        """Write units into lists, and yield of each its name, and the places that are not in it."""
        left = iter(units)
        while some := list(islice(left, _LIST)):
            name = f"{self._lists}/{self._written:06d}.json"
            secret = {}
            for index, unit in enumerate(some):
                if not is_store(unit.place) and label(unit.place) != unit.place:
                    secret[str(index)] = unit.place
                    some[index] = msgspec.structs.replace(unit, place=label(unit.place))
            self._place.write(name, _packed(some))
            self._written += 1
            yield {"list": name, "secret": secret}


def _packed(items: Sequence[Unit] | Sequence[ClipRecord]) -> bytes:
    """Return units or records as JSON of pure ASCII: names may hold bytes that are no UTF-8."""
    return json.dumps(msgspec.to_builtins(items)).encode()


def _units(packed: bytes) -> list[Unit]:
    return msgspec.convert(json.loads(packed), list[Unit])


def _read_row(row: dict[str, Any]) -> Iterator[tuple[Unit, ClipRecord]]:
    """Return what a worker handed on, or raise what it met."""
    if row["error"]:
        name, message = json.loads(row["error"])
        raise getattr(errors, name, LsrError)(message)
    return zip(_units(row["units"]), msgspec.convert(json.loads(row["records"]), list[ClipRecord]), strict=True)


def _row(packed: bytes, work: Callable[[Unit], ClipRecord]) -> dict[str, Any]:
    """Do units one after the other; return them with their records, or with what no other worker would do better."""
    try:
        return {"units": packed, "records": _packed([work(unit) for unit in _units(packed)]), "error": ""}
    except LsrError as error:
        return {"units": packed, "records": b"", "error": json.dumps([_public_name(error), str(error)])}


def _public_name(error: LsrError) -> str:
    """Return the name of the nearest class of an error that `lsr_infer.errors` has."""
    return next(kind.__name__ for kind in type(error).__mro__ if hasattr(errors, kind.__name__))


def _host() -> WorkerHost:
    """Describe this node, by its name and the beginning of Ray's."""
    ray = import_module("ray")

    def alive(name: str) -> bool:
        beginning = name.rpartition("/")[2]
        return any(node["Alive"] and node["NodeID"].startswith(beginning) for node in ray.nodes())

    return WorkerHost(f"{socket.gethostname()}/{ray.get_runtime_context().get_node_id()[:8]}", alive)


def _read_lists(row: dict[str, Any], job: ArchiveJob) -> list[dict[str, Any]]:
    """Return the units of some lists, long clips by their ranges."""
    place, worker, together = result_place(job.place), ClipWorker(job, _host()), row["together"]
    cut = []
    for one in json.loads(row["lists"]):
        content = place.read(one["list"])
        if content is None:
            raise RuntimeError(f"{one['list']} is gone from {job.place}")
        units = _units(content)
        for index, secret in one["secret"].items():
            units[int(index)] = msgspec.structs.replace(units[int(index)], place=secret)
        cut += [part for unit in units for part in (worker.cut(unit) if row["cut"] else [unit])]
    return [{"units": _packed(cut[start : start + together])} for start in range(0, len(cut), together)]


def _clip_worker(job: ArchiveJob) -> ClipWorker:
    return ClipWorker(job, _host())


class _Worker:
    """A worker of the pool: a process with a model."""

    def __init__(self, make: Callable[[ArchiveJob], Any], job: ArchiveJob) -> None:
        self._worker = make(job)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Do the units of a row."""
        return _row(row["units"], self._worker.work)


def _join(job: ArchiveJob, packed: bytes) -> dict[str, Any]:
    """Join the ranges of a clip."""

    def join(clip: Unit) -> ClipRecord:
        worker = ClipWorker(job, _host())
        record = worker.join(clip)
        if record.ended:
            worker.clear(clip)
        return record

    return _row(packed, join)
