"""Opens and checks the inputs of a run: data sets, starting network, teacher, selector.

Everything is checked here, before the run folder is made.
"""

import contextlib
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator

from lsr_infer.errors import InputError, UnusableFilesError, UsageError
from lsr_infer.io.stores import is_url
from lsr_infer.labelspace import LabelSpace
from lsr_infer.system.progress import with_progress
from lsr_train.config.run import Config, command_of
from lsr_train.config.training import DistillConfig
from lsr_train.data.labelled import LabelledImages, choose_label_space, open_source
from lsr_train.data.loading import (
    Batches,
    SourceDataset,
    TargetDataset,
    TargetLabels,
    build_labelled,
    build_source,
    build_target,
    open_batches,
)
from lsr_train.data.scan import user_cache_folder
from lsr_train.engine.selection import SelectionSignals, Selector
from lsr_train.evaluation.scores import score_frames
from lsr_train.evaluation.signals import SIGNAL_BATCH, CollapseWatch, estimate_target_statistics, label_free_signals
from lsr_train.network import DeepLabV2, NetworkSpec
from lsr_train.network.narrowing import narrow
from lsr_train.network.weights import load_backbone_weights
from lsr_train.runs.checkpoint import ModelInfo, TeacherFacts, load_model, model_hash
from lsr_train.runs.folder import resolve_model
from lsr_train.selftraining import FrozenTeacher

__all__ = [
    "RunInputs", "collapse_advice", "load_teacher", "network_spec", "open_inputs", "starting_network",
    "with_teacher_hash",
]  # fmt: skip

logger = logging.getLogger(__name__)

_SIGNALS = "signals of the target"


@dataclass(frozen=True, kw_only=True)
class RunInputs:
    """The data of a run, and what selects its checkpoint.

    Without a target in the configuration `target` is None, without labelled frames of it `labelled`, without a split of
    source images that the run does not train on `held_out`.
    """

    config: Config
    accelerator: Accelerator
    space: LabelSpace
    source: SourceDataset
    target: TargetDataset | None
    labelled: TargetLabels | None
    held_out: LabelledImages | None
    selector: Selector

    @property
    def left_out(self) -> int:
        """How many unusable files `data.on_bad skip` left out."""
        parts = (self.source, self.target, self.labelled, self.held_out)
        return sum(len(part.left_out) for part in parts if part is not None)

    def batches(self, start: int, *, with_target: bool) -> AbstractContextManager[Batches]:
        """Load this rank's batches from sample `start` on, inside a `with` block that ends the workers."""
        accelerator = self.accelerator
        return open_batches(
            self.config, self.source, self.target if with_target else None, start, labelled=self.labelled,
            rank=accelerator.process_index, world=accelerator.num_processes, pin=accelerator.device.type == "cuda",
        )  # fmt: skip


def open_inputs(config: Config, accelerator: Accelerator) -> RunInputs:
    """Find and scan all data sets.

    Raises:
        UsageError: layout, split and ids do not fit together, or the held-out split is trained on.
        InputError: files are missing or unusable; all of them are listed.
    """
    cache = user_cache_folder()
    space = choose_label_space(config)
    problems: list[str] = []
    target = source = labelled = held_out = None
    with _collected(problems):
        target = build_target(config, cache=cache) if config.data.target.given else None
    with _collected(problems):
        plain = replace(config, augment=replace(config.augment, lab_transfer=0.0))  # needs the target's statistics
        source = build_source(plain if problems else config, space, target, cache=cache)
    with _collected(problems):
        labelled = build_labelled(config, space, cache=cache)
    with _collected(problems):
        held_out = _held_out(config, space, cache)
    if problems:
        raise UnusableFilesError("\n".join(problems))
    assert source is not None
    return RunInputs(
        config=config,
        accelerator=accelerator,
        space=space,
        source=source,
        target=target,
        labelled=labelled,
        held_out=held_out,
        selector=_selector(config, space, target, held_out),
    )


@contextlib.contextmanager
def _collected(problems: list[str]) -> Iterator[None]:
    """Keep the message about unusable files for later, so that every data set is scanned."""
    try:
        yield
    except UnusableFilesError as error:
        problems.append(str(error))


def _held_out(config: Config, space: LabelSpace, cache: Path) -> LabelledImages | None:
    """Open the source images that the `source` signal is scored on; `UsageError` where they are trained on."""
    source, split = config.data.source, config.selection.source_split
    if not split:
        return None
    trained = [item.split for item in config.data.sources if item.name == source.name and item.split in ("", split)]
    if trained:
        raise UsageError(
            f"selection.source_split is {split}, and data.source.split trains on {trained[0] or 'every split'}: "
            "nothing is held out. Set --data.source.split to another split."
        )
    return open_source(config, replace(source, split=split, limit=0), space, cache=cache)


def _selector(
    config: Config, space: LabelSpace, target: TargetDataset | None, held_out: LabelledImages | None
) -> Selector:
    """Build what evaluates on unlabelled frames, and on held-out source images where there are some."""
    selection, source = config.selection, config.data.source
    adapts = command_of(config.method) == "adapt"  # learns from unlabelled frames alone
    if selection.signal == "none":
        if adapts:
            logger.info("selection.signal none: target frames are not evaluated, so a class that dies is not noticed")
        return Selector(selection, None)
    if target is None and selection.signal != "source":
        logger.info("no target frames for the %s signal: the last checkpoint stands", selection.signal)
        return Selector(selection, None)
    precision = config.train.precision
    assert precision != "auto"  # the command has chosen
    frames = None if target is None else target.evenly(selection.frames)

    def evaluate(network: DeepLabV2) -> SelectionSignals:
        signals: dict[str, float] = {}
        classes = None
        if frames is not None:
            found = label_free_signals(network, frames.batches(SIGNAL_BATCH, what=_SIGNALS), precision=precision)
            signals, classes = found.higher_is_better(), found.classes
        if held_out is not None:
            size = (source.height, source.width)
            scored = with_progress(held_out, "held-out source images", len(held_out))
            signals["source"] = score_frames(network, scored, size, space.num_classes, precision=precision)
        return SelectionSignals(signals, classes)

    watch = CollapseWatch(space.names) if adapts and frames is not None else None
    return Selector(selection, evaluate, watch, collapse_advice(config))


def collapse_advice(config: Config) -> str:
    """Say what may help a class that collapses, by what the method has to set."""
    weights, alignment = config.weights, config.self_training.alignment
    if weights.self_training and not alignment:
        first = "Set --self_training.alignment 1 and --self_training.alignment_of labels, lower"
    elif weights.self_training and config.self_training.alignment_of == "probabilities":
        first = "Set --self_training.alignment_of labels, lower"
    elif weights.self_training and alignment < 1:
        first = f"Raise --self_training.alignment (it is {alignment:g}, of at most 1), lower"
    elif weights.entropy:
        first = f"Lower --weights.entropy (it is {weights.entropy:g}) or"
    else:
        first = "Lower"
    return f"{first} --optim.lr (it is {config.optim.lr:g}), or keep the network from before"


def network_spec(config: Config, space: LabelSpace) -> NetworkSpec:
    """Return the architecture of a run's network."""
    return NetworkSpec(
        backbone=config.network.backbone,
        width=config.network.width,
        output_stride=config.network.output_stride,
        stem=config.network.stem,
        dilations=config.network.dilations,
        num_classes=space.num_classes,
        normalization=config.network.normalization,
    )


def starting_network(config: Config, inputs: RunInputs, device: torch.device, *, fresh: bool) -> tuple[DeepLabV2, str]:
    """Build the network a run starts from, and a phrase on where its weights are from.

    Target frames give the statistics of `batch_norm target`. `fresh` is false where a checkpoint of the run will
    replace all weights anyway.

    Raises:
        InputError: the weights are missing, damaged, or of another architecture.
    """
    spec = network_spec(config, inputs.space)
    network = DeepLabV2(spec)
    if not fresh:
        return network.to(device), "resumed"
    if config.init:
        path = resolve_model(config.init)
        loaded, info = load_model(path, dilations=spec.dilations, sure=False)
        wanted = spec.to_dict()
        found = [(key, value) for key, value in loaded.spec.to_dict().items() if wanted[key] != value]
        resampled = bool(found) and spec.is_resampled(loaded.spec)
        if found and not resampled:
            shown = ", ".join(f"{key} {value} (here {wanted[key]})" for key, value in found)
            flags = [f"--network.{key} '{value}'" for key, value in found if hasattr(config.network, key)]
            flags = [flag if " " in flag[flag.index("'") :] else flag.replace("'", "") for flag in flags]
            raise InputError(f"{path}: another architecture: {shown}. Set {' '.join(flags) or '--label_space'}.")
        if info.label_space is not None and info.label_space.names != inputs.space.names:
            raise InputError(
                f"{path}: trained on the classes of {info.label_space.name}, this run has those of "
                f"{inputs.space.name}. Set --label_space."
            )
        network.load_state_dict(loaded.state_dict())
        meaning = f"from {path}"
        if resampled:
            meaning += f", its output stride {loaded.spec.output_stride} made {spec.output_stride}"
    elif config.network.weights == "none":
        meaning = "from random weights"
    elif config.network.weights == "teacher":
        meaning = _narrowed(network, config.distill)
    else:
        meaning = load_backbone_weights(network, config.network.weights)
    network = network.to(device)
    if config.network.batch_norm == "target":
        assert inputs.target is not None  # the configuration checks it
        meaning += ", " + estimate_target_statistics(network, inputs.target.evenly(config.network.batch_norm_frames))
    return network, meaning


def _teacher_model(settings: DistillConfig, device: torch.device | str = "cpu") -> tuple[DeepLabV2, ModelInfo]:
    """Read the teacher's network."""
    path, dilations = resolve_model(settings.teacher), settings.teacher_dilations or None
    return load_model(path, device, dilations=dilations, option="--distill.teacher_dilations")


def _narrowed(network: DeepLabV2, settings: DistillConfig) -> str:
    """Fill a student with the channels of its teacher that carry most, and return a phrase on it."""
    wide, _ = _teacher_model(settings)
    try:
        narrow(wide, network)
    except ValueError as error:
        found = wide.spec
        raise InputError(
            f"{settings.teacher}: no start for this student, {error}. Set --network.backbone {found.backbone} "
            f"--network.stem {found.stem} --network.normalization {found.normalization} --network.dilations "
            f"'{list(found.dilations)}' and a --network.width of at most {found.width:g}, or --network.weights none."
        ) from error
    return f"from the channels of its teacher that carry most ({wide.spec.width:g} -> {network.spec.width:g} wide)"


def with_teacher_hash(config: Config) -> Config:
    """Return the configuration with the teacher's very file and hash, so that a resumed run has the same teacher."""
    if not config.distill.teacher:
        return config
    path = resolve_model(config.distill.teacher)
    found, wanted = model_hash(path), config.distill.sha256
    if wanted and found != wanted:
        raise InputError(
            f"{path}: the teacher's SHA-256 begins {found[:12]}, and the run was configured with {wanted[:12]}. Put "
            "the file back, or start a new run with this teacher."
        )
    teacher = config.distill.teacher if is_url(config.distill.teacher) else str(path)
    return replace(config, distill=replace(config.distill, teacher=teacher, sha256=found))


def load_teacher(config: Config, space: LabelSpace, device: torch.device) -> tuple[FrozenTeacher, TeacherFacts] | None:
    """Read the teacher that a configuration from `with_teacher_hash` names, and where it is from; None without one.

    Raises:
        InputError: the file is damaged, or has other classes than the student.
        UsageError: it shall run at its training size, which its file does not state.
    """
    settings = config.distill
    if not settings.teacher:
        return None
    path = resolve_model(settings.teacher)
    network, info = _teacher_model(settings, device)
    if config.train.channels_last:
        network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch documents it
    if info.label_space is None:
        same, theirs = network.spec.num_classes == space.num_classes, f"{network.spec.num_classes} classes"
    else:
        same, theirs = info.label_space.names == space.names, f"the classes of {info.label_space.name}"
    if not same:
        raise InputError(
            f"{path}: the teacher has {theirs}, the student the {space.num_classes} of {space.name}. Set --label_space "
            "to the teacher's."
        )
    scale = (1.0, 1.0)
    if settings.teacher_size == "own":
        if not (info.height and info.width):
            raise UsageError(f"{path}: does not state the size it was trained at. Set --distill.teacher_size student.")
        scale = (info.height / config.data.target.height, info.width / config.data.target.width)
    facts = TeacherFacts(sha256=settings.sha256, method=info.method, step=info.step, scores=info.scores)
    return FrozenTeacher(network, scale), facts
