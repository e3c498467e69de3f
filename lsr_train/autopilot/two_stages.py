"""Runs `adapt` from labelled images and footage alone: choices, source stage, adaptation, summary.

The adaptation's run folder is made before either stage starts, so that `--resume` finds both. The source stage has a
run folder of its own beside it, named after its configuration and data, for later runs to use again.
"""

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lsr_infer.errors import InputError, UsageError
from lsr_train.autopilot.budget import (
    LEAST_STEPS,
    OVERRUN,
    SOURCE_SHARE,
    USEFUL_STEPS,
    Budget,
    BudgetError,
    Stage,
    StageCost,
    format_duration,
    measure_cost,
    plan_lengths,
    too_short,
    with_length,
)
from lsr_train.autopilot.choices import (
    Choices,
    SourceStage,
    fitting,
    narrower,
    network_of_file,
    split_of_folder,
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
from lsr_train.device import choose_device, choose_precision
from lsr_train.engine.loop import build_accelerator
from lsr_train.engine.setup import RunInputs, network_spec, open_inputs
from lsr_train.engine.train import train
from lsr_train.network import DeepLabV2
from lsr_train.network.weights import backbone_of, load_backbone_weights
from lsr_train.runs.folder import RunFolder
from lsr_train.runs.matching import Match, data_fingerprint, find_match, is_finished, note_data, source_name

__all__ = ["adapt_from_scratch", "resume_stages"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _StagePlan:
    """What will be done."""

    source: Config  # the source stage, complete
    adapted: Config  # the adaptation, complete but for its start
    data: str  # fingerprint of the source stage's data
    ready: Match  # the source stage that is used again, or why none is
    lines: list[str]  # what was chosen, a line each


def adapt_from_scratch(request: Request, stage: SourceStage) -> int:
    """Train the source stage where none is ready, adapt, and write the summary; returns the greater exit code."""
    assert request.out is not None  # a run to resume comes to `resume_stages`
    plan = _plan(request, stage, time.monotonic())
    for line in plan.lines:
        logger.info("%s", line)
    source = plan.ready.run
    if source is None:
        source = request.out.parent / source_name(plan.source, plan.data)
        if (source / "config.yaml").is_file():
            logger.info("%s resumed", source)
        else:
            RunFolder.create(source, to_yaml(plan.source)).close()
        note_data(source, plan.data)
    adapted = with_fields(plan.adapted, {"init": str(source)})
    RunFolder.create(request.out, to_yaml(adapted), stages={"choices": plan.lines}).close()
    return resume_stages(request.out)


def resume_stages(out: Path) -> int:
    """Do what is left of both stages, and write the summary; returns the greater exit code."""
    config = read_config(out / "config.yaml")
    source = Path(config.init)
    if not (source / "config.yaml").is_file():
        raise InputError(f"{out}: its source stage {source} is not there. Put it back, or start again.")
    seconds: dict[str, float] = {}
    codes = []
    for name, run in (("source stage", source), ("adaptation", out)):
        if run == source and is_finished(run):
            continue
        start = time.monotonic()
        codes.append(train(Request(config=read_config(run / "config.yaml"), out=None, resume=run, print_config=False)))
        seconds[name] = time.monotonic() - start
        if codes[-1] == 130:
            logger.info("interrupted in the %s; resume with: python -m lsr_train adapt --resume %s", name, out)
            return 130
    write_summary(out, config, seconds)
    return max(codes)


def _plan(request: Request, stage: SourceStage, started: float) -> _StagePlan:
    """Choose everything; devices and inputs are checked here, and nothing is written.

    Where the budget is too short for the size that was chosen, a smaller one is.
    """
    widest = None
    while True:
        choices = Choices(request.config, request.stated, request.flags)
        try:
            return _plan_within(choices, request, stage, started, widest)
        except BudgetError as error:
            widest = narrower(choices, error.share)
            if widest is None:
                raise
            target = choices.config.data.target
            logger.info(
                "%dx%d is too large for this budget, whose %s hold %.0f %% of the fewest steps; trying %d wide",
                target.width, target.height, format_duration(request.budget or 0), 100 * error.share, widest,
            )  # fmt: skip


def _plan_within(
    choices: Choices, request: Request, stage: SourceStage, started: float, widest: int | None
) -> _StagePlan:
    """Choose everything, with images of at most `widest` columns; raises `BudgetError` where it is too short."""
    assert request.out is not None
    device = _choose(choices, stage, widest)
    source = stage.beside(choices.config)
    accelerator = build_accelerator(choices.config, device)
    if accelerator.num_processes > 1:
        raise UsageError(
            "the source stage and what is chosen by itself need a single process. Run pretrain on several, then adapt "
            "with --init."
        )
    prepared = open_inputs(choices.config, accelerator)  # every file is checked before the output is
    RunFolder.check_free(request.out)
    data = data_fingerprint(source)
    ready = find_match(request.out.parent, source, data, any_length=request.budget is not None)
    if request.budget is None:
        choices.lines.append(
            f"steps {source.train.steps} and {choices.config.train.steps}: the recipes' or as stated; --budget 30m "
            "would fit them into half an hour"
        )
    else:
        costs = measure_cost(open_inputs(source, accelerator), request.out), measure_cost(prepared, request.out)
        budget = Budget(seconds=request.budget, passed=time.monotonic() - started)
        source, ready = _fit_into(budget, choices, stage, ready, costs)
    choices.lines += [*_few_frames(prepared), ready.line]
    given_way = stage.given_way(choices.config)
    if given_way:
        choices.lines.append(
            f"the source stage has the adaptation's {', '.join(given_way)}, not its recipe's: both stages share them. "
            "Flags (--source_stage.SECTION.FIELD) would stay"
        )
    if ready.run is None and source.network.weights != "none":  # fetched and fitted before a folder is made
        load_backbone_weights(DeepLabV2(network_spec(source, prepared.space)), source.network.weights)
    return _StagePlan(source=source, adapted=choices.config, data=data, ready=ready, lines=choices.lines)


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


def _fit_into(
    budget: Budget, choices: Choices, stage: SourceStage, ready: Match, costs: tuple[StageCost, StageCost]
) -> tuple[Config, Match]:
    """Fit both stages into the budget; returns the source stage, and what stands for it where that will do."""
    source = stage.beside(choices.config)
    adapted = replace(costs[1], start=costs[1].start + 2 * costs[1].evaluation)  # the summary evaluates both networks
    fewest = USEFUL_STEPS
    if narrower(choices, 0.0) is None:  # nothing smaller is left to try
        fewest, budget = LEAST_STEPS, replace(budget, overrun=OVERRUN)
    stages = (
        Stage(config=source, cost=costs[0], fewest=fewest), Stage(config=choices.config, cost=adapted, fewest=fewest)
    )  # fmt: skip
    lengths = plan_lengths(budget, *stages, ready.steps)
    if short := too_short(budget, lengths, stages):
        logger.warning("%s", short)
    share = "all for the adaptation"
    if lengths.source:
        if ready.run is not None:
            why = f"{ready.run} has {ready.steps} steps, the budget allows {lengths.source}"
            ready = Match(run=None, steps=0, line=f"the source stage is trained: {why}")
        source = with_fields(source, with_length(source, lengths.source, stage.flags))
        share = f"{SOURCE_SHARE:.0%} for the source stage unless a stage cannot use its part"
    measured = f"measured {costs[0].step:.3g} s a source step and {costs[1].step:.3g} s one of adaptation"
    choices.take(
        with_length(choices.config, lengths.adapted, choices.flags),
        f"steps {lengths.source or ready.steps} and {lengths.adapted}: {measured}; {format_duration(budget.usable)} of "
        f"the budget are planned, {share}",
    )
    return source, ready
