"""Trains a network on accelerate: batch -> named terms -> one backward -> step.

It is the only place that calls `backward` and writes checkpoints. It knows methods by their base class and data by the
two batch types.
"""

import hashlib
import logging
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, broadcast_object_list, gather_object
from torch import Tensor, nn

from lsr_infer.errors import InputError, QualityGateError, UsageError
from lsr_infer.labelspace import LabelSpace
from lsr_infer.system.progress import Progress
from lsr_train.config.recipes import to_yaml
from lsr_train.config.run import Config
from lsr_train.data.loading import Batches
from lsr_train.data.samples import LabelledBatch, UnlabelledBatch
from lsr_train.distributed import all_reduce_sum, average_gradients
from lsr_train.engine.deadline import Deadline, Schedule
from lsr_train.engine.monitor import RunLog, StepClock, TermMonitor, gradient_norms
from lsr_train.engine.optim import build_optimizer, learning_rate, set_decayed_rate, set_learning_rate
from lsr_train.engine.selection import SelectionSignals, Selector
from lsr_train.methods import method_class
from lsr_train.network import DeepLabV2
from lsr_train.runs.checkpoint import ModelInfo, TeacherFacts
from lsr_train.runs.folder import RunFolder
from lsr_train.runs.state import RunState
from lsr_train.selftraining import FrozenTeacher

__all__ = ["Engine", "Networks", "TrainingResult", "build_accelerator"]

logger = logging.getLogger(__name__)

BatchT = TypeVar("BatchT", LabelledBatch, UnlabelledBatch)


@dataclass(frozen=True, kw_only=True)
class Networks:
    """What training starts from, the finished network that teaches it, with where that is from, if any.

    `labelled` frames of the target have labels that it learns from.
    """

    network: DeepLabV2
    teacher: tuple[FrozenTeacher, TeacherFacts] | None = None
    labelled: int = 0


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """How a run ended, after how many steps, and the folders of its last and its selected checkpoint."""

    finished: bool
    step: int
    last: Path
    best: Path | None


class Engine:
    """One training run; the precision of `accelerator` is the configuration's, a `deadline` that of its last step."""

    def __init__(
        self,
        config: Config,
        space: LabelSpace,
        models: Networks,
        accelerator: Accelerator,
        run: RunFolder,
        selector: Selector,
        deadline: Deadline | None = None,
    ) -> None:
        self.config, self.space, self.accelerator = config, space, accelerator
        self.run_folder, self.selector = run, selector
        self._is_main = bool(accelerator.is_main_process)
        self.log = RunLog(run, tensorboard=config.log.tensorboard and self._is_main)
        self.step = 0
        self.labelled = models.labelled
        self.schedule = Schedule(config.train.steps, config.selection.every, deadline)
        self._started, self._spent = time.monotonic(), run.seconds()
        self.monitor = TermMonitor()
        network, self.teacher = models.network, models.teacher
        if config.train.channels_last:
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch documents it
        if config.network.batch_norm == "train" and accelerator.num_processes > 1:
            network = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]  # torch's own
        network.set_batch_norm("train" if config.network.batch_norm == "train" else "frozen")
        self.method = method_class(config.method)(config, space.num_classes, network.feature_channels)
        self.method.start(network)
        if self.teacher is not None:
            self.method.take_teacher(self.teacher[0])
        self.method.to(accelerator.device)
        groups = network.parameter_groups() | self.method.parameter_groups()
        optimizer = build_optimizer(groups, config.optim)
        self.network = network  # the bare one, without accelerate's and torch.compile's wrapping
        model = cast(nn.Module, torch.compile(network)) if config.train.compile else network
        self.model, self.optimizer = accelerator.prepare(model, optimizer)
        self.critics = {name: accelerator.prepare(item) for name, item in self.method.optimizers().items()}
        self.state = RunState(
            network=network, method=self.method, optimizer=self.optimizer, critics=self.critics, monitor=self.monitor,
            selector=selector, schedule=self.schedule, scaler=accelerator.scaler, device=accelerator.device,
            config=hashlib.sha256(to_yaml(config).encode()).hexdigest(),
        )  # fmt: skip
        self._rate = 0.0  # of the last step
        self._recent: deque[tuple[int, tuple[str, ...]]] = deque(maxlen=config.log.every * config.train.accumulate + 1)

    @property
    def samples(self) -> int:
        """Number of the first sample of the next step, over all processes."""
        return self.step * self.config.train.accumulate * self.config.data.batch_size

    def _placed(self, batch: BatchT) -> BatchT:
        """Return a batch of the loader's on the device, normalised."""
        return batch.on(self.accelerator.device, self.network.normalize, channels_last=self.config.train.channels_last)

    def train_step(self, batches: Batches) -> float:
        """Do one optimiser step and return the seconds spent waiting for the loader."""
        config = self.config
        waited = 0.0
        position = self.schedule.position(self.step)
        self._rate = learning_rate(position, config.optim, config.train.steps)
        set_learning_rate(self.optimizer, self._rate)
        for critic in self.critics.values():
            set_decayed_rate(critic, position, config.optim, config.train.steps)
        weights = {**self.method.term_weights(), "labelled": config.data.labelled_share}
        for micro in range(config.train.accumulate):
            begin = time.perf_counter()
            source = next(batches.source)
            target = None if batches.target is None else next(batches.target)
            labelled = None if batches.labelled is None else next(batches.labelled)
            waited += time.perf_counter() - begin
            source = self._placed(source)
            target = None if target is None else self._placed(target)
            self.method.labelled = None if labelled is None else self._placed(labelled)
            files = [file for batch in (source, target, labelled) if batch is not None for file in batch.files]
            self._recent.append((self.step, tuple(files)))
            first = self.samples + micro * config.data.batch_size + self.accelerator.process_index * len(source.image)
            self.method.begin(self.step, first)
            last = micro == config.train.accumulate - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                terms = self.method.terms(self.model, source, target) | self.method.labelled_terms(self.model)
                if last and config.log.gradients and (self.step + 1) % config.log.gradients == 0:
                    groups = self.network.parameter_groups()
                    norms = gradient_norms(terms, [*groups["stem"], *groups["backbone"]])
                    if self._is_main:
                        self.log.gradients(self.step + 1, norms)
                total = cast(Tensor, sum(weights.get(name, 1.0) * value for name, value in terms.items()))
                self.accelerator.backward(total / config.train.accumulate)
            self.monitor.observe(self.step, terms, self.method.diagnostics())
        average_gradients(self.method)
        if config.optim.clip_norm:
            self.accelerator.clip_grad_norm_(self.model.parameters(), config.optim.clip_norm)
        for optimizer in (self.optimizer, *self.critics.values()):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.method.after_step(self.network, self.step)
        return waited

    def run(self, batches: Batches, interrupted: Callable[[], bool]) -> TrainingResult:
        """Train on batches from `self.samples` on, until the last step, an early stop or an interruption.

        Raises:
            QualityGateError: a loss term was not finite; names it, the first such step and that batch's files.
            InputError: the run folder cannot be written.
        """
        config, schedule = self.config, self.schedule
        clock = StepClock()
        saved = self.run_folder.pointer("last")
        self.model.train()
        self.method.train()
        stop = self.step >= schedule.steps or self.selector.exhausted
        if self.step == 0 and self.selector.evaluates_first:
            self._evaluate()
        silent = not self._is_main
        with Progress(config.method, schedule.steps, unit="step", done=self.step, silent=silent) as progress:
            while not stop:
                begin = time.perf_counter()
                clock.count(self.train_step(batches))
                progress.step()
                if schedule.stepped(self.step, time.perf_counter() - begin):
                    progress.total = schedule.steps
                done = self.step >= schedule.steps
                if self.step % config.log.every == 0 or done:
                    self._log_row(clock, progress)
                    clock = StepClock()
                stop = done or self._interrupted(interrupted)
                paused = time.perf_counter()
                evaluated = self.selector.due(self.step, last=done)
                improved = False
                if evaluated:
                    improved = self._evaluate()
                    stop = stop or self.selector.exhausted
                if evaluated or stop or self.step % config.train.checkpoint_every == 0:
                    self.save(best=improved)
                    saved = self.step
                paused = time.perf_counter() - paused
                clock.leave_out(paused)  # evaluations and checkpoints are not steps
                if evaluated:
                    schedule.evaluated(paused)
        if saved is None:
            self.save(best=False)
        best = self.run_folder.pointer("best")
        return TrainingResult(
            finished=self.step >= schedule.steps or self.selector.exhausted,
            step=self.step,
            last=self.run_folder.checkpoint(self.step),
            best=None if best is None else self.run_folder.checkpoint(best),
        )

    def _interrupted(self, interrupted: Callable[[], bool]) -> bool:
        """Whether to stop; several processes agree on it, at log intervals only."""
        if self.accelerator.num_processes == 1:
            return interrupted()
        if self.step % self.config.log.every:
            return False
        flag = torch.tensor(float(interrupted()), device=self.accelerator.device)
        return bool(all_reduce_sum(flag).item() > 0)

    def _evaluate(self) -> bool:
        """Compute the label-free signals; every process learns whether they improved."""
        result: list[Any] = [None]
        if self._is_main:
            assert self.selector.evaluate is not None  # as `due` and `evaluates_first` require
            result = [self.selector.evaluate(self.state.result)]
            self.log.signals(self.step, result[0], self.space)
        if self.accelerator.num_processes > 1:
            broadcast_object_list(result)
        self.model.train()
        found: SelectionSignals = result[0]
        if self.step == 0:
            self.selector.start(found)
            return False
        improved = self.selector.update(self.step, found, log=self._is_main)
        if self._is_main:
            shown = ", ".join(f"{name} {value:.4f}" for name, value in found.signals.items())
            logger.info("step %d: %s%s", self.step, shown, " (best so far)" if improved else "")
            if remark := self.method.remark(self.space.names):
                logger.info("step %d: %s", self.step, remark)
        return improved

    def _check(self) -> dict[str, float]:
        """Read the monitor and raise where a term was not finite, on every process alike."""
        reading = self.monitor.read()
        bad = [reading.first_bad]
        if self.accelerator.num_processes > 1:
            bad = gather_object(bad)
        if any(bad):
            step = min(first for found in bad for first in found.values())
            names = sorted({name for found in bad for name, first in found.items() if first == step})
            files = [file for at, batch in self._recent if at == step for file in batch]
            if self.accelerator.num_processes > 1:
                files = gather_object(files)
            shown = ", ".join(files) if files else "not known any more"
            raise QualityGateError(
                f"the loss term {' and '.join(names)} was not finite at step {step + 1} (files: {shown}). "
                f"No checkpoint holds it; {self._last_good()}. Lower --optim.lr or the term's weight, set "
                "--optim.clip_norm, or use --train.precision fp32."
            )
        return reading.means

    def _last_good(self) -> str:
        step = self.run_folder.pointer("last")
        return "there is no checkpoint yet" if step is None else f"the last good one is step {step}"

    def _log_row(self, clock: StepClock, progress: Progress) -> None:
        """Write one row of the log; the only regular transfer from the device."""
        means = self._check()
        self.monitor.reset()
        if not self._is_main:
            return
        images = clock.steps * self.config.train.accumulate * self.config.data.batch_size
        self.log.row(self.step, means, {"learning_rate": self._rate, **clock.figures(images)})
        text = ", ".join(f"{name} {value:.4g}" for name, value in means.items())
        left = (self.schedule.steps - self.step) * clock.seconds() / clock.steps
        progress.tell(text, f"step {self.step}/{self.schedule.steps}: {text} ({left:.0f} s left)")
        self.write_status("running")

    def write_status(self, state: str) -> None:
        """Replace status.json."""
        self.run_folder.write_status(
            state=state, step=self.step, steps=self.schedule.steps, selection=self.selector.state(),
            seconds=round(self._spent + time.monotonic() - self._started, 3),
        )  # fmt: skip

    def save(self, *, best: bool) -> None:
        """Write a checkpoint of everything; raises `QualityGateError` where a loss term or a weight is not finite."""
        self._check()
        finite = torch.stack([torch.isfinite(tensor).all() for tensor in self.network.state_dict().values()])
        if not bool(finite.all()):
            names = [n for n, ok in zip(self.network.state_dict(), finite.tolist(), strict=True) if not ok]
            raise QualityGateError(
                f"weights are not finite after step {self.step} although the losses were: {', '.join(names[:3])}; "
                f"{self._last_good()}. Lower --optim.lr or set --optim.clip_norm."
            )
        failed: list[str | None] = [None]
        if self._is_main:
            try:
                self.run_folder.save(self.step, self._fill, best=best, keep=self.config.train.keep)
                self.write_status("running")
            except InputError as error:
                failed = [str(error)]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(failed)  # the others would wait for a process that has given up
        if failed[0] is not None:
            raise InputError(failed[0])

    def _fill(self, folder: Path) -> None:
        """Write the files of a checkpoint into `folder`."""
        data = self.config.data
        size = data.target if data.target.given else data.source
        info = ModelInfo(
            label_space=self.space, method=self.config.method, step=self.step, height=size.height, width=size.width,
            scores=self.selector.scores(self.step), teacher=None if self.teacher is None else self.teacher[1],
            labelled=self.labelled,
        )  # fmt: skip
        self.state.write(folder, info)

    def resume(self) -> None:
        """Restore the last checkpoint of the run folder; without one the run starts at step 0."""
        step = self.run_folder.pointer("last")
        if self._is_main:
            folder = self.run_folder
            for table in (folder.metrics, folder.signals, folder.classes, folder.gradients):
                table.cut(-1 if step is None else step)
        if step is None:
            return
        self.step = self.state.read(self.run_folder.checkpoint(step))
        best = self.selector.best_step
        if self._is_main:  # a kill may have come between the last checkpoint and what is done after it
            if best is not None and best in self.run_folder.steps():
                self.run_folder.point("best", best)
            self.run_folder.prune(self.config.train.keep)


def build_accelerator(config: Config, device: torch.device) -> Accelerator:
    """Set accelerate up for one or several processes with the configuration's precision, which is no longer `auto`.

    Raises:
        UsageError: several processes on the CPU would have to synchronise batch-norm, which torch cannot.
        ValueError: the precision is still `auto`.
    """
    if config.train.precision == "auto":
        raise ValueError("choose the precision of the device before the engine is built")
    precision = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[config.train.precision]
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    # Without looking for unused parameters DDP regroups gradients after its first step, and sums them in another order
    # from there on, so that a resumed run would have other weights.
    own = DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=True)
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision=precision,
        kwargs_handlers=[own],
    )
    if accelerator.num_processes > 1 and device.type == "cpu" and config.network.batch_norm == "train":
        raise UsageError(
            "torch synchronises batch-norm over several processes on CUDA devices alone. Train in one process, or set "
            "--network.batch_norm frozen or target."
        )
    return accelerator
