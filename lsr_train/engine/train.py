"""Runs a training command: check, open the inputs, train, report."""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from types import FrameType

import torch

from lsr_infer.errors import LsrError
from lsr_train.config.command_line import Request
from lsr_train.config.recipes import to_yaml
from lsr_train.config.run import Config
from lsr_train.device import choose_device, choose_precision
from lsr_train.engine.loop import Engine, Networks, TrainingResult, build_accelerator
from lsr_train.engine.setup import RunInputs, load_teacher, open_inputs, starting_network, with_teacher_hash
from lsr_train.evaluation.signals import nothing_selected
from lsr_train.runs.environment import describe_environment
from lsr_train.runs.folder import RunFolder

__all__ = ["Interruption", "train"]

logger = logging.getLogger(__name__)


def train(request: Request) -> int:
    """Check, prepare, train, report.

    Returns:
        0 when finished, 130 when interrupted (after a checkpoint), 6 when finished without the files that
        `data.on_bad skip` left out.

    Raises:
        LsrError: with the exit code of what went wrong.
    """
    config = request.config
    device = choose_device(config.train.device, config.train.precision, prefix="train.")
    precision = choose_precision(device, config.train.precision)
    config = replace(config, train=replace(config.train, precision=precision))  # so that a resumed run computes alike
    config = with_teacher_hash(config)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    torch.manual_seed(config.seed)
    accelerator = build_accelerator(config, device)
    inputs = open_inputs(config, accelerator)
    resuming = request.resume is not None
    teacher = load_teacher(config, inputs.space, accelerator.device)
    network, meaning = starting_network(config, inputs, accelerator.device, fresh=not _has_checkpoint(request))
    if teacher is not None:
        facts = teacher[1]
        method = facts.method or "an unknown method"
        logger.info("teacher %s: %s, step %d, SHA-256 %s", config.distill.teacher, method, facts.step, facts.sha256)
    with _run_folder(request, config, main=accelerator.is_main_process, wait=accelerator.wait_for_everyone) as run:
        engine = Engine(
            config, inputs.space, Networks(network=network, teacher=teacher), accelerator, run, inputs.selector
        )
        if resuming:
            engine.resume()
        if accelerator.is_main_process:
            run.note_environment({**describe_environment(accelerator.device), "step": engine.step})
        logger.info(
            "%s on %s (%s), %s, %d source images, %s target frames, steps %d to %d, run folder %s",
            config.method, accelerator.device, config.train.precision, meaning, len(inputs.source),
            "no" if inputs.target is None else len(inputs.target), engine.step, config.train.steps, run.path,
        )  # fmt: skip
        try:
            loading = inputs.batches(engine.samples, with_target=engine.method.uses_target)
            with Interruption() as interruption, loading as batches:
                result = engine.run(batches, lambda: interruption.requested)
        except LsrError:
            if accelerator.is_main_process:
                with contextlib.suppress(LsrError):  # the disk may be what failed
                    engine.write_status("failed")
            raise
        if accelerator.is_main_process:
            state = "finished" if result.finished else "interrupted"
            engine.write_status(state)
            _report(result, inputs, run)
    accelerator.wait_for_everyone()
    accelerator.end_training()  # a process that ends with its group open may abort: its threads are still running
    if not result.finished:
        return 130
    return 6 if inputs.left_out else 0


def _has_checkpoint(request: Request) -> bool:
    return request.resume is not None and RunFolder(request.resume).pointer("last") is not None


@contextlib.contextmanager
def _run_folder(request: Request, config: Config, *, main: bool, wait: Callable[[], None]) -> Iterator[RunFolder]:
    """Create or open the run folder; processes other than the main one only read it."""
    path = request.resume or request.out
    assert path is not None
    if not main:
        wait()  # until the main process has made it
        yield RunFolder(path)
        return
    run = RunFolder.open(path) if request.resume else RunFolder.create(path, to_yaml(config))
    with run:
        wait()
        yield run


def _report(result: TrainingResult, inputs: RunInputs, run: RunFolder) -> None:
    """Say what was written, and where."""
    if not result.finished:
        logger.info("interrupted at step %d; continue with --resume %s", result.step, run.path)
    logger.info("last checkpoint: %s", result.last)
    if result.best is not None:
        logger.info("selected without target labels: %s", result.best)
    elif collapsed := inputs.selector.nothing_because:
        logger.warning("%s", nothing_selected(collapsed))
    if inputs.left_out:
        logger.warning("%d unusable files were left out (--data.on_bad skip)", inputs.left_out)


class Interruption:
    """While entered, the first SIGINT or SIGTERM only sets `requested`; a second one acts as usual."""

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, object] = {}

    def __enter__(self) -> "Interruption":
        for number in self.SIGNALS:
            self._previous[number] = signal.signal(number, self._request)
        return self

    def __exit__(self, *exception: object) -> None:
        self._restore()

    def _request(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.signal itself returned
        self._previous.clear()
