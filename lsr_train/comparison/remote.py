"""Runs the trainings of a table on a Ray cluster, which places them and starts those of a lost node again."""

import logging
import os
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lsr_infer.errors import InputError
from lsr_infer.system.ray_cluster import join_cluster
from lsr_train.comparison.activity import Activity
from lsr_train.comparison.options import TableOptions
from lsr_train.comparison.schedule import LocalWorkers, Processes, Slot, T, Workers, available_slots

__all__ = ["RayWorkers", "workers_of"]

logger = logging.getLogger(__name__)


@contextmanager
def workers_of(options: TableOptions) -> Iterator[Workers]:
    """Yield what does the work of a table: slots of this machine, or a Ray cluster.

    Raises:
        UsageError: a device's name is not allowed.
        DeviceError: a device is not there, Ray is not installed, or its cluster cannot be reached.
    """
    if options.on == "local":
        yield LocalWorkers(available_slots(options.device_list))
        return
    ray = join_cluster(options.address, "tables on a cluster are made by Ray")
    try:
        yield RayWorkers(ray, options.devices, options.cpus)
    finally:
        ray.shutdown()


class RayWorkers:
    """Does work as tasks of a Ray cluster, whose nodes have the folder that this process works in.

    A task whose node or worker is lost is started again on another, as often as that happens: a training then resumes
    from its last checkpoint.

    Args:
        ray: the module, with a cluster.
        device: `cpu`, `cuda` (one GPU for each task), or `auto`: `cuda` where the cluster has a GPU.
        cpus: cores of each task.
    """

    def __init__(self, ray: Any, device: str, cpus: int) -> None:
        there = ray.cluster_resources()
        if device == "auto":
            device = "cuda" if there.get("GPU") else "cpu"
        needed = {"CPU": cpus, "GPU": 1 if device == "cuda" else 0}
        room = min(int(there.get(name, 0) // number) for name, number in needed.items() if number)
        if not room:
            what = f"{cpus} CPUs{' and a GPU' if needed['GPU'] else ''}"
            logger.warning(
                "Ray: the cluster lacks %s for a run, which waits until they are there (Ctrl-C ends it)", what
            )
        self.count = max(1, room)
        self._lock = threading.Lock()
        self.stopping = False
        threads = {name: str(cpus) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")} if device == "cpu" else {}
        self._slot = Slot(device=device, environment=threads)
        self._ray = ray
        self._task = ray.remote(num_cpus=cpus, num_gpus=needed["GPU"], max_retries=-1)(_on_node)
        self._begun: dict[Any, Activity] = {}

    def activities(self) -> Collection[Activity]:
        """See `Workers`; a task that waits for a node is among them."""
        return list(self._begun.values())

    def do(self, work: Callable[[Slot, Processes], T], activity: Activity) -> T:
        """See `Workers`."""
        with self._lock:
            if self.stopping:
                raise InputError(f"{activity.name}: interrupted")
            task = self._task.remote(work, self._slot, Path.cwd())
            self._begun[task] = activity
        try:
            result: T = self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except self._ray.exceptions.RayError as error:
            raise InputError(f"Ray: {' '.join(str(error).split())[:300]}") from error
        finally:
            del self._begun[task]
        return result

    def stop(self) -> None:
        """See `Workers`; trainings end at once, and keep their last checkpoint."""
        with self._lock:
            self.stopping = True
            tasks = tuple(self._begun)
        for task in tasks:
            self._ray.cancel(task, force=True)


def _on_node(work: Callable[[Slot, Processes], T], slot: Slot, folder: Path) -> T:
    """Do work on a node, in the folder in which the command was started."""
    try:
        os.chdir(folder)
    except OSError as error:
        raise InputError(
            f"{folder}: node {socket.gethostname()} has no such folder. Start the command in one that all nodes share."
        ) from error
    return work(slot, Processes())
