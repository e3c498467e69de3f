"""Exports a checkpoint as one verified ONNX file, or as none."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import DeviceError, InputError, QualityGateError, UsageError, extra
from lsr_infer.io.addresses import label
from lsr_infer.io.files import check_output_folder, file_status, refuse_existing, whole_file, write_json
from lsr_infer.labelspace import LabelSpace
from lsr_infer.manifest import OUTPUTS, PRECISIONS, Manifest
from lsr_infer.manifest.records import Quantization
from lsr_infer.parity.frame_set import FrameSet, check_labels, read_frame_set, shipped_frames_for, working_image
from lsr_infer.parity.meter import BARS, Bar, ParityCheck, Verdict
from lsr_infer.system.progress import Progress
from lsr_train.exporting.calibration import (
    Calibration,
    Candidate,
    at_most,
    best_of,
    candidates,
    check_reach,
    read_labelled,
    training_frames,
    without,
)
from lsr_train.exporting.checkpoint_parity import Written, judge_export
from lsr_train.exporting.graph import LARGEST_ONNX, OPSET, OPSETS, save, trace
from lsr_train.exporting.precisions import FP16_CHOICES, SCHEMES, Rewriting, quantise, to_half

__all__ = ["ExportOptions", "FramesOptions", "export"]

logger = logging.getLogger(__name__)

_DECIDED = "logits upsampled and decided in float32, the class cast to float32 and then to uint8"
_HELD_OUT = 8
"""Calibration frames that are kept back to choose by, and as many again for the comparison."""


@dataclass(frozen=True, kw_only=True)
class FramesOptions:
    """Which frames an export uses; `to_onnx.py --help all` says what each option means."""

    compare: Path | None = None
    labels: Path | None = None
    label_ids: str = "classes"
    count: int = 8
    calibrate: Path | None = None
    calibration_count: int = 32

    def __post_init__(self) -> None:
        if self.labels is not None and self.compare is None:
            raise UsageError("--labels belong to frames of your own. Name them with --frames.")
        if self.label_ids != "classes" and self.compare is None:
            raise UsageError("--label-ids is about the labels of frames of your own. Name them with --frames.")
        if self.count < 1:
            raise UsageError(f"--num-frames is {self.count}; at least 1 is needed, or nothing is compared.")
        if self.calibration_count < 1:
            raise UsageError(f"--calibration-frames is {self.calibration_count}; at least 1 is needed.")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What is made of a checkpoint; `to_onnx.py --help all` says what each option means.

    Sizes are (height, width); `bar` None takes the precision's own, an empty text the checkpoint's.
    """

    precision: str = "fp32"
    runtime: str = "onnxruntime"
    outputs: str = "logits"
    size: tuple[int, int] | None = None
    working_size: tuple[int, int] | None = None
    opset: int = OPSET
    weight_bits: int = 8
    bar: Bar | None = None
    label_space: LabelSpace | None = None
    dilations: tuple[int, ...] | None = None
    licence: str = ""
    intended_use: str = ""
    overwrite: bool = False
    report: Path | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("--precision", self.precision, PRECISIONS),
            ("--for", self.runtime, tuple(SCHEMES)),
            ("--outputs", self.outputs, OUTPUTS),
            ("--opset", self.opset, OPSETS),
            ("the weights' bits", self.weight_bits, (7, 8)),
        ):
            if value not in allowed:
                raise UsageError(f"{name} is {value!r}; allowed: {', '.join(map(str, allowed))}.")
        if self.precision != "int8" and self.weight_bits != 8:
            raise UsageError(f"--weight-bits is for INT8, the precision is {self.precision}. Leave it out.")
        if self.size and self.working_size:
            raise UsageError("--size makes a graph of that size alone; leave out --working-size.")


@dataclass
class _ExportState:
    """What an export knows so far: the network, the frames, and what is found on the way."""

    network: Any
    manifest: Manifest
    compared: FrameSet
    calibration: Calibration | None = None
    tried: Sequence[Candidate] = field(default_factory=list)


def export(
    checkpoint: Path | str,
    output: Path,
    options: ExportOptions = ExportOptions(),
    frames: FramesOptions = FramesOptions(),
) -> Manifest:
    """Export a checkpoint, compare the file with it, and return its Manifest with the figures of the comparison.

    Raises:
        UsageError: a file exists, no size is known, or INT8 has no frames to calibrate with.
        InputError: the checkpoint or frames are unreadable, or it is larger than one ONNX file can be.
        QualityGateError: the comparison missed the bar; no file appears.
        DeviceError: a package of the extra `export` is missing.
    """
    missing = [
        name for name in ("torch", "onnx", "onnxscript", "safetensors", "yaml", "filelock") if find_spec(name) is None
    ]
    if missing:
        raise DeviceError(f"{', '.join(missing)}: not installed. {extra('export')}")
    if output.suffix.lower() != ".onnx":
        raise UsageError(f"{output}: the name of the file must end in .onnx.")
    if Path(checkpoint).suffix.lower() == ".onnx":
        raise UsageError(
            f"{label(checkpoint)}: is an ONNX file already. Name the checkpoint or the run it was made from."
        )
    state = _prepare(checkpoint, options, frames)
    for path in (output, options.report):
        if path is not None:
            refuse_existing(path, overwrite=options.overwrite)
            check_output_folder(path.parent)
    names = state.manifest.label_space.name, state.compared.origin
    logger.info("exporting in %s (%s classes), comparing on %s", options.precision, *names)
    with whole_file(output, overwrite=options.overwrite) as temporary:  # before the state: the place may be unusable
        with Progress("writing the graph", unit=""):
            floats = trace(state.network, fixed=options.size, outputs=options.outputs, opset=options.opset)
        bar = options.bar or BARS[options.precision]
        try:
            with Progress(f"bringing the graph to {options.precision}", unit=""):
                model = _in_precision(floats, state, options, bar)
        except QualityGateError as error:
            verdict = Verdict(failure=error)
        else:
            save(model, state.manifest, temporary)
            written = Written(path=temporary, model=model, manifest=state.manifest)
            comparison = ParityCheck(frames=state.compared, bar=bar)
            verdict = judge_export(state.network, written, comparison, always_layers=options.report is not None)
        if options.report is not None:
            tried = [candidate.to_dict() for candidate in state.tried]
            report = verdict.report(state.manifest, candidates=tried)
            write_json(options.report, report, overwrite=options.overwrite)
            logger.info("all figures are in %s", options.report)
        if verdict.failure is not None:
            raise verdict.failure
        return save(model, replace(state.manifest, parity=verdict.parity), temporary)


def _prepare(checkpoint: Path | str, options: ExportOptions, frames: FramesOptions) -> _ExportState:
    """Read the checkpoint and the frames, and check that they fit together."""
    from lsr_train.runs.checkpoint import load_model, model_hash
    from lsr_train.runs.folder import resolve_model

    if isinstance(checkpoint, Path):
        file_status(checkpoint)  # raises where it cannot be examined
    model = resolve_model(checkpoint)
    network, info = load_model(model, dilations=options.dilations)
    network.eval()
    space = _space_of(model, info.label_space, network.spec.num_classes, options)
    height, width = options.size or options.working_size or (info.height, info.width)
    if not (height and width):
        raise UsageError(f"{model}: does not say its training size. Pass --size or --working-size, as 1024x512.")
    if info.height and info.width and (height, width) != (info.height, info.width):
        logger.warning(
            "%s was trained at %dx%d and will work at %dx%d: check its scores there",
            model.name, info.width, info.height, width, height,
        )  # fmt: skip
    if 4 * sum(value.numel() for value in network.state_dict().values()) > LARGEST_ONNX:
        raise InputError(f"{model}: its weights exceed the 2 GB that one ONNX file can hold.")
    fixed = options.size is not None
    manifest = Manifest(
        label_space=space, output=options.outputs, height=height, width=width, fixed_size=fixed,
        resize="stretch" if fixed else "keep-aspect", multiple=network.spec.output_stride, precision=options.precision,
        normalization=network.spec.normalization, checkpoint=model_hash(model), method=info.method,
        scores=dict(info.scores), teacher=info.teacher, licence=options.licence or info.licence,
        intended_use=options.intended_use or info.intended_use, opset=options.opset,
        exporter=", ".join(f"{name} {version(name)}" for name in ("torch", "onnxscript", "onnx")),
        runtime=options.runtime if options.precision == "int8" else "any",
        choices=("batch-norm folded into the convolutions", *(() if options.outputs == "logits" else (_DECIDED,))),
    )  # fmt: skip
    compared, calibration = _frames_of(model, options, frames, space)
    return _ExportState(network=network, manifest=manifest, compared=compared, calibration=calibration)


def _space_of(model: Path, own: LabelSpace | None, num_classes: int, options: ExportOptions) -> LabelSpace:
    """Return the classes of a checkpoint: those it names itself, else those that were asked for."""
    space = own or options.label_space
    if space is None:
        raise UsageError(f"{model}: does not name its classes. Pass --label-space, such as cityscapes19.")
    if own and options.label_space and own.names != options.label_space.names:
        raise UsageError(
            f"{model}: names its classes itself ({own.name}), --label-space asks for {options.label_space.name}. Leave "
            "--label-space out."
        )
    if options.precision == "int8" and space.num_classes == 1:
        raise UsageError(f"{model}: has one class, so that nothing could judge an INT8 file. Take fp32 or fp16.")
    if space.num_classes != num_classes:
        raise UsageError(
            f"{model}: has {num_classes} classes, {space.name} has {space.num_classes}. Pass another --label-space."
        )
    return space


def _frames_of(
    model: Path, options: ExportOptions, frames: FramesOptions, space: LabelSpace
) -> tuple[FrameSet, Calibration | None]:
    """Read the frames to compare on, and for INT8 those to calibrate with."""
    if frames.count < 1:
        raise UsageError(f"--num-frames is {frames.count}; at least 1 is needed, or nothing is compared.")
    calibration, toytown = None, True
    if options.precision == "int8":
        wanted = frames.calibration_count + 2 * min(_HELD_OUT, frames.calibration_count)
        if frames.calibrate is None:
            read, toytown = training_frames(model, wanted)
        else:
            read, toytown = read_frame_set(frames.calibrate, wanted, split="train", labelled=False), False
        calibration = Calibration.split(read, _HELD_OUT)
    elif frames.calibrate is not None:
        raise UsageError(f"--calibrate is for INT8, the precision is {options.precision}. Pass --precision int8.")
    if frames.compare is not None:
        return _named_frames(frames, frames.compare, space, calibration), calibration
    if calibration is not None and not toytown:
        return at_most(calibration.proof, frames.count), calibration
    return shipped_frames_for(space, frames.count), calibration


def _named_frames(frames: FramesOptions, place: Path, space: LabelSpace, calibration: Calibration | None) -> FrameSet:
    """Read the user's frames to compare on: as many as asked for beside those that calibrate."""
    taken = () if calibration is None else (calibration.ranges, calibration.choice)
    wanted = frames.count + sum(map(len, taken))
    read = read_labelled(place, wanted, space, labels=frames.labels, label_ids=frames.label_ids)
    compared = at_most(without(read, taken), frames.count)
    if len(compared) < min(frames.count, len(read)):
        logger.warning(
            "%d frames are compared, %d were asked for: the others of %s calibrate",
            len(compared), frames.count, place.name,
        )  # fmt: skip
    check_labels(compared, space.num_classes)
    return replace(compared, origin=f"{len(compared)} frames of the user's ({place.name})")


def _in_precision(floats: Any, state: _ExportState, options: ExportOptions, bar: Bar) -> Any:
    """Bring the float32 graph to the precision, and note in the Manifest how."""
    if options.precision == "fp32":
        return floats
    if options.precision == "fp16":
        check_reach(floats, _images(state.compared, state.manifest))
        state.manifest = replace(state.manifest, choices=(*state.manifest.choices, *FP16_CHOICES))
        return to_half(floats)
    assert state.calibration is not None
    how = Rewriting.of(floats, SCHEMES[options.runtime], weight_bits=options.weight_bits)
    logger.info("calibrating on %s", state.calibration.ranges.origin)
    try:
        state.tried = candidates(
            floats, how, state.manifest.label_space, _images(state.calibration.ranges, state.manifest),
            _images(state.calibration.choice, state.manifest), margin=bar.margin,
        )  # fmt: skip
    except ValueError as error:
        raise QualityGateError(f"calibration: {error} inside the network. Export another checkpoint.") from error
    chosen = best_of(state.tried)
    for candidate in state.tried:
        logger.info("calibration %s: %s", candidate.calibration, candidate.parity.describe())
    clear, overall = chosen.parity.clear_agreement, 100 * chosen.parity.agreement
    among = "" if clear is None else f" ({100 * clear:.3f} % of clear pixels, then {overall:.2f} %)"
    state.manifest = replace(
        state.manifest,
        quantization=Quantization(
            scheme=how.scheme.name,
            calibration=chosen.calibration,
            calibrated_on=state.calibration.ranges.origin,
            frames=len(state.calibration.ranges),
            candidates={candidate.calibration: candidate.parity.agreement for candidate in state.tried},
            in_float=how.in_float,
        ),
        choices=(
            *state.manifest.choices,
            *how.scheme.choices,
            "the normalisation in float32",
            "extremes of whole maps, histograms of one value in nine, one frame at a time",
            f"calibration {chosen.calibration} agrees best with the float file on {chosen.parity.frames} held-out "
            f"frames{among}",
            "weights use 7 of 8 bits, so that no x86 processor saturates"
            if how.weight_bits == 7
            else "weights use all 8 bits; x86 processors without VNNI may saturate on them (--weight-bits 7 would not)",
        ),
    )
    return quantise(floats, chosen.ranges, how)


def _images(frames: FrameSet, manifest: Manifest) -> list[NDArray[np.uint8]]:
    """Return frames as the graph takes them."""
    return [working_image(frame, manifest) for frame in frames.frames]
