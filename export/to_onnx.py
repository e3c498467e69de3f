"""Turn a checkpoint into one ONNX file that carries its Manifest, and prove that both compute the same.

    python export/to_onnx.py RUN -o model.onnx [--size 1024x512] [--frames FOLDER|VIDEO]

The file appears only after it has been compared with the checkpoint, frame by frame, in ONNX Runtime.
"""

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.arguments import ArgumentParser, parse_size
from lsr_infer.errors import DeviceError, InputError, QualityGateError, UsageError, exit_status
from lsr_infer.files import refuse_existing, whole_file
from lsr_infer.images import IMAGE_SUFFIXES, read_image, resize_frame
from lsr_infer.labelspace import LabelSpace
from lsr_infer.manifest import METADATA_KEY, OUTPUTS, Manifest
from lsr_infer.masks import upsample_argmax
from lsr_infer.parity import BARS, Bar, Parity, ParityMeter

logger = logging.getLogger("to_onnx")

OPSET = 20
_LARGEST_FILE = 2**31 - 2**20
_TOYTOWN_SEED = 900_000  # far from the scenes that training and validation draw


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Frames to compare on.

    Args:
        images: uint8 [H,W,3] BGR each.
        origin: where they are from, in words and without a path.
    """

    images: Sequence[NDArray[np.uint8]]
    origin: str


def build_parser() -> ArgumentParser:
    """Return the command line's parser."""
    parser = ArgumentParser("to_onnx.py", (__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="run folder, .safetensors or .pth")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="MODEL.onnx", help="the file to write")
    parser.add_argument("--size", metavar="WxH", help="the graph takes this size alone (default: every size)")
    parser.add_argument("--working-size", metavar="WxH", help="size a free graph works at (default: as trained)")
    parser.add_argument("--outputs", choices=OUTPUTS, default="logits", help="logits at feature size, for lsr-infer's "
                        "exact masks (default), or the class of every pixel, for other consumers")  # fmt: skip
    parser.add_argument("--frames", type=Path, metavar="FOLDER|VIDEO|IMAGE", help="compare on these (default: Toytown)")
    parser.add_argument("--num-frames", type=int, default=8, metavar="N", help="compare on at most N frames (8)")
    parser.add_argument("--agreement", type=float, metavar="SHARE", help="least share of equal pixels (0.9999)")
    parser.add_argument("--label-space", metavar="NAME|YAML", help="classes of a checkpoint that does not name its own")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    return parser


def export(
    checkpoint: Path,
    output: Path,
    *,
    size: tuple[int, int] | None = None,
    working_size: tuple[int, int] | None = None,
    frames: Frames | None = None,
    bar: Bar = BARS["fp32"],
    label_space: LabelSpace | None = None,
    outputs: str = "logits",
    overwrite: bool = False,
) -> Manifest:
    """Export a checkpoint in float32 and compare the result with it.

    Args:
        checkpoint: a run folder (its selected checkpoint, else its last), or what `load_model` reads.
        output: the .onnx file; it appears only when the comparison has passed.
        size: (height, width) of a graph of fixed size; None makes one that takes every size and number of frames.
        working_size: (height, width) a free graph works at; None takes the training's.
        frames: what to compare on; None renders Toytown.
        bar: what the comparison must reach.
        label_space: the classes, for a checkpoint that does not name them.
        outputs: `logits` at feature size, or `classes`, upsampled and decided in the graph.
        overwrite: replace an existing file.

    Returns:
        The Manifest in the file, with the figures of the comparison.

    Raises:
        UsageError: the file exists, or no size is known.
        InputError: the checkpoint is unreadable or larger than one ONNX file can be.
        QualityGateError: the comparison missed the bar; no file appears.
        DeviceError: a package of the extra `export` is missing.
    """
    _require("torch", "onnx", "onnxscript", "safetensors")
    import onnx

    from lsr_train.checkpoint import load_model, model_hash
    from lsr_train.run_folder import resolve_model

    if output.suffix.lower() != ".onnx":
        raise UsageError(f"{output}: the name of the file must end in .onnx.")
    checkpoint = resolve_model(checkpoint)
    network, info = load_model(checkpoint)
    network.eval()
    space = info.label_space or label_space
    if space is None:
        raise UsageError(f"{checkpoint}: does not name its classes. Pass --label-space, such as cityscapes19.")
    if space.num_classes != network.spec.num_classes:
        raise UsageError(
            f"{checkpoint}: has {network.spec.num_classes} classes, {space.name} has {space.num_classes}. "
            "Pass another --label-space."
        )
    height, width = size or working_size or (info.height, info.width)
    if not (height and width):
        raise UsageError(f"{checkpoint}: does not say its training size. Pass --size or --working-size, as 1024x512.")
    if 4 * sum(value.numel() for value in network.state_dict().values()) > _LARGEST_FILE:
        raise InputError(f"{checkpoint}: its weights exceed the 2 GB that one ONNX file can hold.")
    refuse_existing(output, overwrite=overwrite)
    manifest = Manifest(
        label_space=space,
        output=outputs,
        height=height,
        width=width,
        fixed_size=size is not None,
        resize="stretch" if size is not None else "keep-aspect",
        multiple=network.spec.output_stride,
        normalization=network.spec.normalization,
        checkpoint=model_hash(checkpoint),
        method=info.method,
        scores=dict(info.scores),
        licence=info.licence,
        intended_use=info.intended_use,
        opset=OPSET,
        exporter=_exporter(),
    )
    compared = frames or toytown_frames(height, width)
    logger.info("exporting %s (%s classes), comparing on %s", checkpoint.name, space.name, compared.origin)
    with whole_file(output) as temporary:  # before the work, so that an unusable place is known at once
        model = trace(network, fixed=size, outputs=outputs)
        _save(model, manifest, temporary, onnx)
        parity = compare(network, temporary, compared)
        parity.check(bar)
        manifest = replace(manifest, parity=parity)
        _save(model, manifest, temporary, onnx)
    return manifest


def trace(network: Any, *, fixed: tuple[int, int] | None, outputs: str = "logits") -> Any:
    """Translate a network, its normalisation included, into an ONNX model.

    Args:
        network: a `DeepLabV2` in evaluation mode.
        fixed: (height, width) of the only size the graph takes; None leaves it free.
        outputs: what comes out, `logits` or `classes`.

    Returns:
        An `onnx.ModelProto` with the input `image`, uint8 [N,H,W,3], and the output `logits`, float32 [N,C,h,w], or
        `classes`, uint8 [N,H,W].
    """
    import torch

    class Graph(torch.nn.Module):
        """Frames in, logits or classes out; the features stay inside."""

        def __init__(self) -> None:
            super().__init__()
            self.network = network

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.network(self.network.normalize(image)).logits
            if outputs == "logits":
                return logits
            full = torch.nn.functional.interpolate(logits, image.shape[1:3], mode="bilinear", align_corners=True)
            return full.argmax(dim=1).float().to(torch.uint8)  # TensorRT casts no int64 to uint8

    # Two frames, and sides that differ: a traced 1 would be taken for a constant, equal sides for one axis.
    height, width = fixed or (96, 160)
    example = torch.zeros((2, height, width, 3), dtype=torch.uint8)
    axes: dict[int, Any] = {0: torch.export.Dim("N", min=1, max=1024)}
    if fixed is None:
        axes |= {1: torch.export.Dim("H", min=32, max=16384), 2: torch.export.Dim("W", min=32, max=16384)}
    quiet = io.StringIO()
    with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(quiet), _quiet_exporter():
        warnings.simplefilter("ignore")  # torch's own deprecations and guesses about unset names
        program = torch.onnx.export(
            Graph().eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=[outputs],
            dynamic_shapes={"image": axes},
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise InputError("torch.onnx.export gave no program. Report the versions of torch and onnxscript.")
    model = program.model_proto
    _strip(model)
    return model


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence torch's word about torchvision, which this project does without."""
    registration = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = registration.level
    registration.setLevel(logging.ERROR)
    try:
        yield
    finally:
        registration.setLevel(level)


def _strip(model: Any) -> None:
    """Remove torch's notes about the source lines and paths of the machine that made the graph."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.doc_string = ""
        del item.metadata_props[:]


def compare(network: Any, model: Path, frames: Frames) -> Parity:
    """Compare a checkpoint's network with an exported file on frames.

    Args:
        network: a `DeepLabV2` in evaluation mode, on the CPU.
        model: the exported file.
        frames: what to compare on.

    Returns:
        The figures; a frame's classes are compared at its own size, or at the graph's where it gives classes.
    """
    import torch

    from lsr_infer.segmenter import Segmenter

    with Segmenter(model, device="cpu") as segmenter, torch.inference_mode():
        meter = ParityMeter(segmenter.label_space)
        for frame in frames.images:
            size = frame.shape[0], frame.shape[1]
            image = resize_frame(frame, *segmenter.manifest.working_size(*size))[None]
            expected = network(network.normalize(torch.from_numpy(np.ascontiguousarray(image)))).logits[0].numpy()
            try:
                found = segmenter.run(image)[0]
            except InputError as error:  # the runtime refuses what is not finite
                raise QualityGateError(f"{model.name}: the exported graph fails on a frame ({error})") from error
            if not np.isfinite(expected).all():
                raise QualityGateError(
                    "the checkpoint's own logits are not finite on a frame: there is nothing to compare with. Export "
                    "another checkpoint."
                )
            if segmenter.manifest.output == "classes":
                meter.update(expected, None, upsample_argmax(expected, *found.shape), np.asarray(found, dtype=np.uint8))
                continue
            logits = np.asarray(found, dtype=np.float32)
            meter.update(expected, logits, upsample_argmax(expected, *size), upsample_argmax(logits, *size))
    return meter.result(reference="checkpoint", frames_from=frames.origin)


def toytown_frames(height: int, width: int, count: int = 4) -> Frames:
    """Render frames of Toytown, half of each domain, that no training draws."""
    from lsr_train.data.toytown import render

    size = {"height": max(16, height), "width": max(16, width)}
    images = [render(("camera", "game")[n % 2], _TOYTOWN_SEED + n, **size)[0] for n in range(count)]
    return Frames(images=images, origin=f"{count} rendered Toytown frames")


def read_frames_of(place: Path, count: int) -> Frames:
    """Read up to `count` evenly spread frames of a folder of images, a video or an image.

    Raises:
        UsageError: `count` is below 1.
        InputError: the place is missing, holds no image, or one of its files is broken.
    """
    if count < 1:
        raise UsageError(f"--num-frames is {count}; at least 1 is needed, or nothing is compared.")
    if place.is_dir():
        files = sorted(path for path in place.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
        if not files:
            raise InputError(f"{place}: holds no image. Name a folder of images, a video or an image.")
        images = [read_image(files[n]) for n in _spread(len(files), count)]
    elif place.suffix.lower() in IMAGE_SUFFIXES:
        images = [read_image(place)]
    else:
        images = list(_video_frames(place, count))
    return Frames(images=images, origin=f"{len(images)} frames of the user's ({place.name})")


def _video_frames(path: Path, count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield frames spread evenly over a video; decoding it all once finds out how many it really has."""
    from lsr_infer.video import read_frames

    total = sum(1 for _ in read_frames(path))
    wanted = set(_spread(total, count))
    for item in read_frames(path):
        if item.index in wanted:
            yield item.frame


def _spread(total: int, count: int) -> list[int]:
    """Return at most `count` indices, evenly spread over `total`."""
    return sorted({round(n) for n in np.linspace(0, total - 1, min(count, total)).tolist()})


def _save(model: Any, manifest: Manifest, path: Path, onnx: Any) -> None:
    """Write the model with the Manifest in its metadata."""
    for entry in [entry for entry in model.metadata_props if entry.key == METADATA_KEY]:
        model.metadata_props.remove(entry)
    model.metadata_props.add(key=METADATA_KEY, value=manifest.to_json())
    model.producer_name = "lsr-road"
    onnx.save(model, str(path))


def _exporter() -> str:
    """Name the tools that make the file, with their versions."""
    from importlib.metadata import version

    return ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxscript", "onnx"))


def _require(*names: str) -> None:
    """Raise where a package of the extra is missing."""
    from importlib.util import find_spec

    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise DeviceError(f"{', '.join(missing)}: not installed. Install lsr-road[export].")


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Run the command."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("onnxscript", "onnx_ir", "torch"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    if options.size and options.working_size:
        raise UsageError("--size makes a graph of that size alone; leave out --working-size.")
    agreement = BARS["fp32"].agreement if options.agreement is None else options.agreement
    if agreement is None or not 0 < agreement <= 1:
        raise UsageError(f"--agreement is {agreement}; allowed: above 0 and up to 1.")
    space = None
    if options.label_space:
        from lsr_train.labels import load_label_space

        space = load_label_space(options.label_space)
    manifest = export(
        options.checkpoint,
        options.output,
        size=parse_size(options.size) if options.size else None,
        working_size=parse_size(options.working_size) if options.working_size else None,
        frames=read_frames_of(options.frames, options.num_frames) if options.frames else None,
        bar=replace(BARS["fp32"], agreement=agreement),
        label_space=space,
        outputs=options.outputs,
        overwrite=options.overwrite,
    )
    parity = manifest.parity
    assert parity is not None
    logger.info("parity with the checkpoint on %s: %s", parity.frames_from, parity.describe())
    logger.info("written: %s (%.1f MB)", options.output, options.output.stat().st_size / 1e6)
    return None


if __name__ == "__main__":
    sys.exit(exit_status(main))
