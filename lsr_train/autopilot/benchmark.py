"""Time a few steps of a run before it: the real engine on real batches of the real configuration, thrown away.

Nothing of it remains: it writes no file, and a run seeds its generators itself when it begins.
"""

import contextlib
import time
from dataclasses import replace
from pathlib import Path

import torch

from lsr_train.autopilot.budget import Pace
from lsr_train.engine.loop import Batches, Engine, Models, build_accelerator
from lsr_train.engine.selection import Selector
from lsr_train.engine.setup import Prepared, network_spec
from lsr_train.evaluation.inference import LOOK_BATCH, FrameBatch
from lsr_train.evaluation.signals import label_free_signals
from lsr_train.network import DeepLabV2
from lsr_train.runs.folder import RunFolder

__all__ = ["measure_pace"]

_SECONDS = 3.0
_MOST = 12
_LEAST = 2
_LOOKED_AT = 2


def measure_pace(prepared: Prepared, place: Path) -> Pace:
    """Measure what the steps and looks of a run take on this machine.

    Args:
        prepared: its configuration and data.
        place: a folder name for the engine; nothing is written there.

    Returns:
        Seconds, waiting for the loader included. One step before is not counted, which builds what is built once.
    """
    config = replace(prepared.config, init="")
    if config.self_training.rectify:  # from the first step on, as in nearly all of the run
        config = replace(config, self_training=replace(config.self_training, rectify_from=0))
    torch.manual_seed(config.seed)
    accelerator = build_accelerator(config, prepared.accelerator.device)
    network = DeepLabV2(network_spec(config, prepared.space)).to(accelerator.device)
    engine = Engine(
        config, prepared.space, Models(network=network), accelerator, RunFolder(place), Selector(config.selection, None)
    )
    engine.model.train()
    engine.method.train()
    times: list[float] = []
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(contextlib.closing(prepared.source_batches(0)))
        target = None
        if engine.method.uses_target:
            target = stack.enter_context(contextlib.closing(prepared.target_batches(0)))
        batches = Batches(source=source, target=target)
        while len(times) <= _LEAST or (sum(times[1:]) < _SECONDS and len(times) <= _MOST):
            times.append(_timed(engine, batches))
    look = _look_seconds(prepared, network)
    looks = 0.0 if config.selection.signal == "none" else look * config.selection.frames
    # AdaBN is one forward a frame where a look is four and the drawing of classes
    begin = look / 4 * config.network.batch_norm_frames if config.network.batch_norm == "target" else 0.0
    return Pace(step=sum(times[1:]) / len(times[1:]), look=looks, begin=begin)


def _timed(engine: Engine, batches: Batches) -> float:
    """Return the seconds of a step, until the device has done it."""
    begun = time.perf_counter()
    engine.train_step(batches)
    if engine.accelerator.device.type == "cuda":
        torch.cuda.synchronize(engine.accelerator.device)
    return time.perf_counter() - begun


def _look_seconds(prepared: Prepared, network: DeepLabV2) -> float:
    """Return the seconds of a look for each frame; 0 where there is no target frame."""
    config = prepared.config
    if prepared.target is None:
        return 0.0
    frames = prepared.target.evenly(_LOOKED_AT)
    assert config.train.precision != "auto"  # the command has chosen
    begun = time.perf_counter()
    label_free_signals(network, (FrameBatch(*b) for b in frames.batches(LOOK_BATCH)), precision=config.train.precision)
    return (time.perf_counter() - begun) / len(frames)
