"""Runs a training command: check, open the inputs, train, report."""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from types import FrameType

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from lsr_infer.errors import LsrError, UsageError
from lsr_train.config.command_line import Request
from lsr_train.config.recipes import read_config, to_yaml
from lsr_train.config.run import Config
from lsr_train.device import choose_device, choose_precision
from lsr_train.engine.deadline import Deadline
from lsr_train.engine.loop import Engine, Networks, TrainingResult, build_accelerator
from lsr_train.engine.setup import RunInputs, load_teacher, open_inputs, starting_network, with_teacher_hash
from lsr_train.evaluation.signals import nothing_selected
from lsr_train.runs.copies import check_copy, copy_run, fetch_run
from lsr_train.runs.folder import RunFolder, describe_environment
from lsr_train.runs.matching import differing

__all__ = ["train"]

logger = logging.getLogger(__name__)

_LOST_HOST_SECONDS = 120.0
"""How long a run folder may still be held by a host that is gone: NFS lets go of its locks after 90 s."""


def train(request: Request, deadline: Deadline | None = None) -> int:
    """Check, prepare, train, report; with a deadline as many steps as there is time for.

    Returns:
        0 when finished, 130 when interrupted (after a checkpoint), 6 when finished without the files that
        `data.on_bad skip` left out.
    """
    device = choose_device(request.config.train.device, request.config.train.precision, prefix="train.")
    request = _taken_up(request, device)
    config = request.config
    precision = choose_precision(device, config.train.precision)
    config = replace(config, train=replace(config.train, precision=precision))  # so that a resumed run computes alike
    config = with_teacher_hash(config)
    if config.train.threads:
        torch.set_num_threads(config.train.threads)
    torch.manual_seed(config.seed)
    accelerator = build_accelerator(config, device)
    inputs = open_inputs(config, accelerator)
    teacher = load_teacher(config, inputs.space, accelerator.device)
    fresh = request.resume is None or RunFolder(request.resume).pointer("last") is None
    network, meaning = starting_network(config, inputs, accelerator.device, fresh=fresh)
    if teacher is not None:
        facts = teacher[1]
        method = facts.method or "an unknown method"
        logger.info("teacher %s: %s, step %d, SHA-256 %s", config.distill.teacher, method, facts.step, facts.sha256)
    with _run_folder(request, config, main=accelerator.is_main_process, wait=accelerator.wait_for_everyone) as run:
        few = 0 if inputs.labelled is None else len(inputs.labelled)
        with_labels = f", {few} labelled ones ({config.data.labelled_batch} a step)" if few else ""
        networks = Networks(network=network, teacher=teacher, labelled=few)
        engine = Engine(config, inputs.space, networks, accelerator, run, inputs.selector, deadline)
        if request.copy_to:
            run.saved = partial(copy_run, run, request.copy_to)
        if request.resume is not None:
            engine.resume()
        if accelerator.is_main_process:
            run.note_environment({**describe_environment(accelerator.device), "step": engine.step})
            if request.copy_to:
                check_copy(run, request.copy_to)
        logger.info(
            "%s on %s (%s), %s, %d source images, %s target frames%s, steps %d to %d, run folder %s",
            config.method, accelerator.device, config.train.precision, meaning, len(inputs.source),
            "no" if inputs.target is None else len(inputs.target), with_labels, engine.step, engine.schedule.steps,
            run.path,
        )  # fmt: skip
        try:
            loading = inputs.batches(engine.samples, with_target=engine.method.uses_target)
            with _interruption() as interrupted, contextlib.closing(engine.log), loading as batches:
                result = engine.run(batches, interrupted)
        except LsrError:
            if accelerator.is_main_process:
                with contextlib.suppress(LsrError):  # the disk may be what failed
                    engine.write_status("failed")
            raise
        if accelerator.is_main_process:
            state = "finished" if result.finished else "interrupted"
            engine.write_status(state)
            run.saved()
            _report(result, inputs, run)
    accelerator.wait_for_everyone()
    accelerator.end_training()  # a process that ends with its group open may abort: its threads are still running
    if not result.finished:
        return 130
    return 6 if inputs.left_out else 0


def _taken_up(request: Request, device: torch.device) -> Request:
    """Return the request to resume where `or_resume` finds the run; every process does as the main one.

    Raises:
        UsageError: the run that is there is one of another configuration.
    """
    out = request.out
    if not request.or_resume or out is None:
        return request
    PartialState(cpu=device.type == "cpu")  # with which `broadcast_object_list` works
    if request.copy_to and PartialState().is_main_process:
        fetch_run(request.copy_to, out)
    is_there = broadcast_object_list([(out / "config.yaml").is_file()])[0]
    if not is_there:
        return request
    found, given = read_config(out / "config.yaml"), request.config
    if given.train.precision == "auto":
        given = replace(given, train=replace(given.train, precision=found.train.precision))
    if others := differing(with_teacher_hash(given), found):
        raise UsageError(f"{out} is a run of another configuration: {', '.join(others[:3])}. Choose another --out.")
    return replace(request, config=found, resume=out, out=None)


@contextlib.contextmanager
def _run_folder(request: Request, config: Config, *, main: bool, wait: Callable[[], None]) -> Iterator[RunFolder]:
    """Create or open the run folder; processes other than the main one only read it."""
    path = request.resume or request.out
    assert path is not None
    if not main:
        wait()  # until the main process has made it
        yield RunFolder(path)
        return
    patience = _LOST_HOST_SECONDS if request.or_resume else 0.0
    run = RunFolder.open(path, patience) if request.resume else RunFolder.create(path, to_yaml(config))
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


@contextlib.contextmanager
def _interruption() -> Iterator[Callable[[], bool]]:
    """Within the block the first SIGINT or SIGTERM only makes the yielded function true; a second one acts as usual."""
    requested = False

    def request(number: int, frame: FrameType | None) -> None:
        nonlocal requested
        requested = True
        restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, request)
    try:
        yield lambda: requested
    finally:
        restore()
