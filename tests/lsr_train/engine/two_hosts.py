"""Trains on two hosts, each a network namespace with two processes, and kills one now and then.

    python -m tests.lsr_train.engine.two_hosts --kills 10 --out FOLDER

A host that is killed loses all its processes at once (SIGKILL) and comes back with the same command, as Slurm or
Kubernetes would start it again. Prints one JSON document: how many runs ended, and whether their weights are those of
an undisturbed run.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors.numpy import load_file

from tests.lsr_train.training_runs import REPOSITORY, TINY

ADDRESSES = ("10.77.0.1", "10.77.0.2")
PORT = 29400
STEPS = 12
BACK_SECONDS = 10.0
"""After which a host that was killed is there again."""
FIELDS = [
    "--recipe", "toytown_lsr_em", *TINY, "--data.batch_size", "4", "--network.batch_norm", "frozen",
    "--train.steps", str(STEPS), "--train.checkpoint_every", "2", "--train.device", "cpu",
]  # fmt: skip


def ip(*words: str) -> str:
    """Run `ip`."""
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


@contextmanager
def two_hosts() -> Iterator[tuple[str, str]]:
    """Make two network namespaces joined by a cable, and yield their names; they and their processes end with it."""
    names = (f"lsr{os.getpid()}a", f"lsr{os.getpid()}b")
    try:
        for name in names:
            ip("netns", "add", name)
        cable = ["type", "veth", "peer", "name", "eth0", "netns", names[1]]
        ip("link", "add", "eth0", "netns", names[0], *cable)
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                ip("-n", name, "link", "set", device, "up")
        yield names
    finally:
        for name in names:
            with suppress(subprocess.CalledProcessError):
                kill_host(name)
                ip("netns", "delete", name)


def kill_host(name: str) -> None:
    """End every process of a host at once."""
    for pid in ip("netns", "pids", name).split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


class Host:
    """A host that runs torchrun, and is started again by `tend` where that has ended without success."""

    def __init__(self, name: str, address: str, log: Path, words: Sequence[str]) -> None:
        self.name, self.starts = name, 0
        self._log = log
        self._line = [
            "ip", "netns", "exec", name, sys.executable, "-m", "torch.distributed.run", "--nnodes", "2",
            "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"{ADDRESSES[0]}:{PORT}",
            "--rdzv-id", "lsr", "--max-restarts", "100", "--local-addr", address,
            "--rdzv-conf", f"keep_alive_interval=2,keep_alive_max_attempt=3,is_host={int(address == ADDRESSES[0])}",
            "-m", "lsr_train", *words,
        ]  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None
        self._ended = 0.0

    def start(self) -> None:
        self.starts += 1
        own = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "eth0", "TORCH_CPP_LOG_LEVEL": "ERROR"}
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._line, cwd=REPOSITORY, stdout=log, stderr=log, env=os.environ | own)

    def tend(self) -> bool:
        """Start what has ended without success again, after a while; return whether it has ended with success."""
        if self.process is None:
            self.start()
        elif self.process.poll() not in (None, 0):
            self._ended = self._ended or time.monotonic()
            if time.monotonic() - self._ended > BACK_SECONDS:  # by then the other host knows that it was lost
                self._ended = 0.0
                self.start()
        return self.process is not None and self.process.poll() == 0


def train(hosts: tuple[str, str], words: Sequence[str], out: Path, *, kills: Sequence[tuple[int, int]] = ()) -> int:
    """Train on two hosts to the end, and return how many times a host was started.

    Args:
        hosts: names of the namespaces.
        words: the training command's own.
        out: its run folder, which both see.
        kills: in order, from which step on a host is killed once that has a checkpoint, and which.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    machines = [
        Host(name, address, out.parent / f"{out.name}-{address}.log", [*words, "--out", str(out), "--or_resume"])
        for name, address in zip(hosts, ADDRESSES, strict=True)
    ]
    left = list(kills)
    end = time.monotonic() + 900
    ended = [False, False]
    while not all(ended):
        assert time.monotonic() < end, (out.parent / f"{out.name}-{ADDRESSES[0]}.log").read_text()[-3000:]
        ended = [done or machine.tend() for done, machine in zip(ended, machines, strict=True)]
        if left and last_step(out) >= left[0][0]:
            kill_host(hosts[left.pop(0)[1]])
        time.sleep(0.05)
    return sum(machine.starts for machine in machines)


def last_step(run: Path) -> int:
    """Return the step of the last checkpoint; -1 where there is none."""
    try:
        return int((run / "checkpoints" / "last").read_text().strip().removeprefix("step-"))
    except FileNotFoundError:
        return -1


def final_weights(run: Path) -> dict[str, bytes]:
    """Return the bytes of every weight after the last step."""
    found = load_file(run / "checkpoints" / f"step-{STEPS}" / "model.safetensors")
    return {name: value.tobytes() for name, value in found.items()}


def main() -> None:
    """Train once undisturbed and `kills` times with a host killed at a random step, and compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    init = options.out / "start"
    words = [sys.executable, "-m", "lsr_train", "pretrain", "--recipe", "toytown_source", *TINY, "--network.weights",
             "none", "--out", str(init)]  # fmt: skip
    subprocess.run(words, cwd=REPOSITORY, check=True)
    command = ["adapt", *FIELDS, "--init", str(init)]
    runs = []
    with two_hosts() as hosts:
        train(hosts, command, options.out / "undisturbed")
        wanted = final_weights(options.out / "undisturbed")
        for number in range(options.kills):
            run = options.out / f"killed-{number}"
            step, host = draw.randrange(0, STEPS - 2), draw.randrange(2)
            started = time.monotonic()
            starts = train(hosts, command, run, kills=[(step, host)])
            runs.append({"step": step, "host": host, "starts": starts, "equal": final_weights(run) == wanted,
                         "seconds": round(time.monotonic() - started, 1)})  # fmt: skip
            print(json.dumps(runs[-1]), file=sys.stderr, flush=True)
            shutil.rmtree(run)
    ended = {"kills": options.kills, "ended": len(runs), "equal": sum(bool(run["equal"]) for run in runs)}
    print(json.dumps(ended | {"runs": runs}, indent=2))


if __name__ == "__main__":
    main()
