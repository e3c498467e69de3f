"""Runs `adapt` from labelled images and footage alone: choices, source stage, adaptation, summary.

The adaptation's run folder is made before either stage starts, so that `--resume` finds both. The source stage has a
run folder of its own beside it, named after its configuration and data, for later runs to use again.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch

from lsr_infer.errors import InputError, UsageError
from lsr_train.autopilot.budget import (
    ADAPTATION,
    SOURCE,
    WANTED_STEPS,
    Budget,
    Plan,
    Stage,
    StageCost,
    Times,
    measure_cost,
    plan_stages,
)
from lsr_train.autopilot.choices import (
    LIGHT_BACKBONE,
    LIGHT_GAIN,
    Choices,
    SourceStage,
    fitting,
    lighter_network_allowed,
    network_of_file,
    smaller_widths,
    split_of_folder,
    take_light_network,
    training_size,
)
from lsr_train.autopilot.memory import available_bytes, evaluation_bytes, step_bytes
from lsr_train.autopilot.summary import write_summary
from lsr_train.config.command_line import Request
from lsr_train.config.fields import with_fields
from lsr_train.config.recipes import read_config, to_yaml
from lsr_train.config.run import Config
from lsr_train.data.footage import frame_size
from lsr_train.data.labelled import choose_label_space
from lsr_train.data.shares import reported_once
from lsr_train.device import choose_device, choose_precision
from lsr_train.engine.deadline import Deadline
from lsr_train.engine.loop import build_accelerator
from lsr_train.engine.setup import RunInputs, network_spec, open_inputs
from lsr_train.engine.train import train
from lsr_train.network import DeepLabV2
from lsr_train.network.weight_files import packaged_imagenet
from lsr_train.network.weights import backbone_of, load_backbone_weights
from lsr_train.runs.folder import STAGES_FILE, RunFolder
from lsr_train.runs.matching import Match, data_fingerprint, find_match, is_finished, note_data, source_name

__all__ = ["adapt_from_scratch", "resume_stages"]

logger = logging.getLogger(__name__)


MEASURED_SHARE, MEASURED_SECONDS = 0.05, 120.0
"""Of a budget, for measuring steps, and at most."""

Costs = tuple[StageCost, StageCost]


@dataclass(frozen=True, kw_only=True)
class _Inputs:
    """What was chosen for a size, and the opened inputs of the adaptation."""

    choices: Choices
    source: Config  # the source stage beside it
    prepared: RunInputs
    light: bool  # whether the network is that of short budgets


@dataclass(frozen=True, kw_only=True)
class _Stages:
    """What will be done."""

    source: Config  # the source stage, complete
    adapted: Config  # the adaptation, complete but for its start
    data: str  # fingerprint of the source stage's data
    ready: Match  # the source stage that is used again, or why none is
    lines: list[str]  # what was chosen, a line each
    times: Times | None = None  # what `resume_stages` keeps to; None where there is no budget


@reported_once()
def adapt_from_scratch(request: Request, stage: SourceStage, started: float | None = None) -> int:
    """Train the source stage where none is ready, adapt, and write the summary; returns the greater exit code.

    `started` is when the command began, on `time.monotonic`'s clock; a budget counts from there.
    """
    assert request.out is not None  # a run to resume comes to `resume_stages`
    started = time.monotonic() if started is None else started
    stages = _plan(request, stage, started)
    source = stages.ready.run
    if source is None:
        source = request.out.parent / source_name(stages.source, stages.data)
        if (source / "config.yaml").is_file():
            logger.info("%s resumed", source)
        else:
            RunFolder.create(source, to_yaml(stages.source)).close()
        note_data(source, stages.data)
    adapted = with_fields(stages.adapted, {"init": str(source)})
    document = {"choices": stages.lines, **({"times": msgspec.to_builtins(stages.times)} if stages.times else {})}
    RunFolder.create(request.out, to_yaml(adapted), stages=document).close()
    return resume_stages(request.out, None if request.budget is None else started + request.budget)


@reported_once()
def resume_stages(out: Path, ends: float | None = None) -> int:
    """Do what is left of both stages, and write the summary; returns the greater exit code.

    `ends` is when all of it shall be over, on `time.monotonic`'s clock. None takes what is left of the budget of the
    command that made the run folder, if it had one.
    """
    config = read_config(out / "config.yaml")
    source = Path(config.init)
    if not (source / "config.yaml").is_file():
        raise InputError(f"{out}: its source stage {source} is not there. Put it back, or start again.")
    times = _times(out)
    if times is not None and ends is None:
        ends = time.monotonic() + times.budget - sum(RunFolder(run).seconds() for run in (source, out))
    seconds: dict[str, float] = {}
    codes = []
    for name, run in ((SOURCE, source), (ADAPTATION, out)):
        if run == source and is_finished(run):
            continue
        start = time.monotonic()
        deadline = None
        if times is not None and ends is not None and name in times.stages:
            own = times.stages[name]
            last = ends - times.summary
            if name == SOURCE:  # the rest is the adaptation's
                last = min(last, start + own.seconds - RunFolder(run).seconds())
            deadline = Deadline(ends=last, most=own.most, evaluation=own.evaluation)
        request = Request(config=read_config(run / "config.yaml"), out=None, resume=run, print_config=False)
        codes.append(train(request, deadline))
        seconds[name] = time.monotonic() - start
        if codes[-1] == 130:
            logger.info("interrupted in the %s; resume with: python -m lsr_train adapt --resume %s", name, out)
            return 130
    write_summary(out, config, seconds)
    return max(codes)


def _times(out: Path) -> Times | None:
    """Return the times that a run folder keeps to; None where there was no budget."""
    found = RunFolder(out).stages().get("times")
    try:
        return None if found is None else msgspec.convert(found, Times)
    except msgspec.ValidationError as error:
        raise InputError(
            f"{out / STAGES_FILE}: its times are damaged ({error}). Remove them there to go on without a clock."
        ) from error


def _plan(request: Request, stage: SourceStage, started: float) -> _Stages:
    """Choose everything; devices and inputs are checked here, and nothing is written."""
    assert request.out is not None
    inputs = _open(request, stage)
    RunFolder.check_free(request.out)
    data = data_fingerprint(inputs.source)
    times, table = None, list[str]()
    if request.budget is None:
        ready = find_match(request.out.parent, inputs.source, data, any_length=False)
        choices, source = inputs.choices, inputs.source
        choices.lines.append(
            f"steps {source.train.steps} and {choices.config.train.steps}: the recipes' or as stated; --budget 30m "
            "would fit them into half an hour"
        )
    else:
        inputs, costs = _sized(inputs, request, stage, started, data)
        choices, source = inputs.choices, inputs.source
        ready = find_match(request.out.parent, source, data, any_length=True)  # of the size that was chosen
        budget = Budget(seconds=request.budget, passed=time.monotonic() - started)
        plan = plan_stages(budget, *_both(inputs, stage, costs), ready.steps)
        source, ready = _take(plan, inputs, ready)
        times = plan.times(budget)
        table = plan.table(budget)
        if short := plan.too_short(budget):
            logger.warning("%s", short)
    choices.lines += [*_few_frames(inputs.prepared), ready.line]
    given_way = stage.given_way(choices.config)
    if given_way:
        choices.lines.append(
            f"the source stage has the adaptation's {', '.join(given_way)}, not its recipe's: both stages share them. "
            "Flags (--source_stage.SECTION.FIELD) would stay"
        )
    if ready.run is None and source.network.weights == "imagenet":  # fetched and fitted before a folder is made
        load_backbone_weights(DeepLabV2(network_spec(source, inputs.prepared.space)), source.network.weights)
    for line in (*choices.lines, *table):
        logger.info("%s", line)
    return _Stages(source=source, adapted=choices.config, data=data, ready=ready, lines=choices.lines, times=times)


def _open(request: Request, stage: SourceStage, widest: int | None = None, *, light: bool = False) -> _Inputs:
    """Choose everything but lengths, and open the adaptation's inputs.

    Images have at most `widest` columns; `light` takes the network for short budgets.
    """
    choices = Choices(request.config, request.stated, request.flags)
    if light:
        take_light_network(choices)
    device = _choose(choices, stage, widest)
    source = stage.beside(choices.config)
    accelerator = build_accelerator(choices.config, device)
    if accelerator.num_processes > 1:
        raise UsageError(
            "the source stage and what is chosen by itself need a single process. Run pretrain on several, then adapt "
            "with --init."
        )
    if widest is None and source.network.weights not in ("imagenet", "none"):
        space = choose_label_space(choices.config)
        load_backbone_weights(DeepLabV2(network_spec(source, space)), source.network.weights)  # before anything is read
    prepared = open_inputs(choices.config, accelerator)  # every file is checked before the output is
    return _Inputs(choices=choices, source=source, prepared=prepared, light=light)


def _both(inputs: _Inputs, stage: SourceStage, costs: Costs) -> tuple[Stage, Stage]:
    return (
        Stage(config=inputs.source, cost=costs[0], keep=stage.flags),
        Stage(config=inputs.choices.config, cost=costs[1], keep=inputs.choices.flags),
    )


def _sized(whole: _Inputs, request: Request, stage: SourceStage, started: float, data: str) -> tuple[_Inputs, Costs]:
    """Take the network and the largest images for which a budget has steps enough, by what was measured.

    The light network comes where nobody stated one and the recipe's has too few steps even on the smallest images. It
    is measured first, since that takes least of the budget.
    """
    assert request.budget is not None
    search = _Search(request, stage, started, data)
    allowed = min(MEASURED_SHARE * request.budget, MEASURED_SECONDS)
    if not lighter_network_allowed(whole.choices):
        return search.largest(whole, search.smallest(whole, allowed / 2), allowed / 2)
    try:
        packaged_imagenet(LIGHT_BACKBONE)
    except InputError:
        found = search.largest(whole, search.smallest(whole, allowed / 2), allowed / 2)
        if not search.enough(*found):
            found.inputs.choices.lines.append(f"{LIGHT_BACKBONE} would have more steps: it needs the extra [mobile]")
        return found
    light = _open(request, stage, light=True)
    of_light = search.smallest(light, allowed / 4)
    if search.enough(of_light.inputs, _slower(of_light.costs)):
        of_whole = search.smallest(whole, allowed / 4)
        if search.enough(*of_whole):
            return search.largest(whole, of_whole, allowed / 2)
    return search.largest(light, of_light, allowed / 2)


def _slower(costs: Costs) -> Costs:
    """Return what a network costs at least that takes `LIGHT_GAIN` times as long as the light one."""
    source, adapted = (StageCost(step=LIGHT_GAIN * cost.step, frame=LIGHT_GAIN * cost.frame) for cost in costs)
    return source, adapted


class _Measured(NamedTuple):
    """Inputs of a size, and what their stages cost."""

    inputs: _Inputs
    costs: Costs


@dataclass(frozen=True)
class _Search:
    """Looks for the largest images for which a budget has steps enough."""

    request: Request
    stage: SourceStage
    started: float  # when the command began
    data: str  # fingerprint of the source stage's data

    def smallest(self, whole: _Inputs, seconds: float) -> _Measured:
        """Measure a network at the smallest size, within about so many seconds."""
        inputs = self._at(whole, [*smaller_widths(whole.choices), None][0])
        return _Measured(inputs, self._measured(inputs, seconds))

    def largest(self, whole: _Inputs, first: _Measured, seconds: float) -> _Measured:
        """Return the largest size that will do, of a network that was measured at the smallest.

        What a larger one takes is at most in proportion to the pixels; the largest that should do is measured, within
        about so many seconds, and sizes between are taken by the straight line through both.
        """
        begin = time.monotonic()
        measured = {_pixels(first.inputs): first.costs}
        for width in reversed([*smaller_widths(whole.choices), None][1:]):
            inputs = self._at(whole, width)
            predicted = _predicted(measured, _pixels(inputs))
            if not self.enough(inputs, predicted):
                continue
            left = seconds - (time.monotonic() - begin)
            if len(measured) == 1 and left > 2 * sum(cost.step for cost in predicted):
                predicted = measured[_pixels(inputs)] = self._measured(inputs, left)
            if self.enough(inputs, predicted):
                return _Measured(inputs, predicted)
        return first

    def enough(self, inputs: _Inputs, costs: Costs) -> bool:
        """Whether the budget has time for the steps that are wanted."""
        assert self.request.out is not None
        assert self.request.budget is not None
        budget = Budget(seconds=self.request.budget, passed=time.monotonic() - self.started)
        ready = find_match(self.request.out.parent, inputs.source, self.data, any_length=True)
        try:
            return plan_stages(budget, *_both(inputs, self.stage, costs), ready.steps).has(WANTED_STEPS)
        except UsageError:
            return False

    def _at(self, whole: _Inputs, width: int | None) -> _Inputs:
        """Open what is open at the footage's own size with images of at most so many columns."""
        with _quiet():
            return whole if width is None else _open(self.request, self.stage, width, light=whole.light)

    def _measured(self, inputs: _Inputs, seconds: float) -> Costs:
        """Measure a step of either stage, within about so many seconds in all."""
        assert self.request.out is not None
        source = open_inputs(inputs.source, inputs.prepared.accelerator)
        out, half = self.request.out, seconds / 2
        return measure_cost(source, out, half), measure_cost(inputs.prepared, out, half)


def _pixels(inputs: _Inputs) -> int:
    config = inputs.choices.config
    height, width = config.augment.crop_height, config.augment.crop_width
    target = config.data.target
    return config.data.batch_size * (height or target.height) * (width or target.width)


def _predicted(measured: dict[int, Costs], pixels: int) -> Costs:
    """Return the costs at a size: of one measured size in proportion to the pixels, of two on their line."""
    (low, small), *others = sorted(measured.items())
    high, large = others[-1] if others else (0, (StageCost(step=0.0), StageCost(step=0.0)))
    part = (pixels - low) / (high - low)

    def between(first: float, second: float) -> float:
        return max(first + part * (second - first), min(first, second))

    source, adapted = (
        StageCost(step=between(one.step, other.step), frame=between(one.frame, other.frame))
        for one, other in zip(small, large, strict=True)
    )
    return source, adapted


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what opening the same inputs once more would say again."""
    data = logging.getLogger("lsr_train.data")
    level = data.level
    data.setLevel(logging.ERROR)
    try:
        yield
    finally:
        data.setLevel(level)


def _take(plan: Plan, inputs: _Inputs, ready: Match) -> tuple[Config, Match]:
    """Set the planned lengths; returns the source stage, and what stands for it where that will do."""
    choices, source = inputs.choices, inputs.source
    costs = [stage.cost.step for stage in plan.stages]
    steps = ready.steps
    if plan.source is not None:
        steps = plan.source.steps
        if ready.run is not None:
            why = f"{ready.run} has {ready.steps} steps, the budget allows {steps}"
            ready = Match(run=None, steps=0, line=f"the source stage is trained: {why}")
        source = with_fields(source, plan.source.values)
    choices.take(
        plan.adapted.values,
        f"steps {steps} and {plan.adapted.steps}: measured {costs[0]:.3g} s a source step and {costs[1]:.3g} s one of "
        "adaptation",
    )
    return source, ready


def _few_frames(prepared: RunInputs) -> list[str]:
    """Return a line where the footage gave fewer frames than an evaluation takes."""
    target, config = prepared.target, prepared.config
    if target is None or len(target) >= config.selection.frames:
        return []
    line = f"only {len(target)} target frames: they come again and again, and the label-free signals are of the same"
    footage = config.data.target
    if footage.layout == "frames" and footage.seconds:
        line += f"; --data.target.seconds {footage.seconds / 5:g} takes more of a video"
    return [line]


def _choose(choices: Choices, stage: SourceStage, widest: int | None) -> torch.device:
    """Choose device, precision, network, sizes, batch and crop."""
    train_config = choices.config.train
    device = choose_device(train_config.device, train_config.precision, prefix="train.")
    precision = choose_precision(device, train_config.precision)
    why = "as stated" if train_config.precision == precision else "what it computes fastest"
    choices.take({"train.precision": precision}, f"device {device}, precision {precision}: {why}")
    if train_config.threads:
        torch.set_num_threads(train_config.threads)
    network_of_file(choices, backbone_of)
    frame = frame_size(choices.config.data.target)
    if frame is not None:
        training_size(choices, frame, device.type, widest)
    split_of_folder(choices)
    space = choose_label_space(choices.config)
    choices.lines.append(f"classes: the {space.num_classes} of {space.name}")

    def needs(config: Config) -> int:
        runs = (config, stage.beside(config))
        return max(predict(run, space.num_classes) for run in runs for predict in (step_bytes, evaluation_bytes))

    fitting(choices, available_bytes(device), needs)
    return device
