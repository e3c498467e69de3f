"""Builds a TensorRT engine from an ONNX file that carries its Manifest, and proves that both compute the same.

    python export/to_trt.py MODEL.onnx -o MODEL.engine [--shapes 1x1024x512] [--frames FOLDER|VIDEO]
    python export/to_trt.py MODEL.onnx --verify MODEL.engine

Precision is the ONNX file's; the types in the built engine are read back before it gets a name. The engine appears,
with MODEL.engine.json beside it, only after it has been compared with the ONNX file on the GPU. TensorRT for RTX builds
without a GPU too: the comparison is then pending, until --verify completes it on the target.

An engine is executable code: build your own, and open none that comes from a place you do not trust.
"""

import argparse
import json
import logging
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lsr_infer.backends.model_file import read_model_file
from lsr_infer.commands.parser import ArgumentParser, disk_path
from lsr_infer.errors import DeviceError, InputError, UsageError, exit_status, stderr_handler
from lsr_infer.io.files import check_output_folder, refuse_existing
from lsr_infer.manifest import LARGEST_BATCH, LARGEST_SIDE, Manifest
from lsr_infer.manifest.records import FLAVOURS, HARDWARE_LEVELS
from lsr_infer.parity.frame_set import FrameSet, check_labels, read_frame_set, shipped_frames_for
from lsr_infer.parity.meter import ParityCheck, add_parity_options, bar_for
from lsr_infer.system.cuda import CudaDevice, CudaProbe, choose_cuda_device, probe_cuda
from lsr_infer.tensorrt.admission import engine_manifest, manifest_path
from lsr_infer.tensorrt.build import Builder, BuildOptions, Shapes, terminal_progress
from lsr_infer.tensorrt.flavour import Library, load_library, resolve_flavour
from lsr_infer.tensorrt.make import OnnxModel, default_shapes, make_engine, verify_engine
from lsr_infer.text import printable_json

logger = logging.getLogger("to_trt")

_BUILDING = (
    "flavour", "shapes", "workspace", "optimization_level", "tf32", "hardware_compatible", "version_compatible",
    "timing_cache", "targets",
)  # fmt: skip
"""Options that say how to build."""

_SMALLEST_SIDE = 32
"""Of what a graph of every size is exported for."""


def build_parser() -> ArgumentParser:
    """Return the command line's parser."""
    parser = ArgumentParser(
        "to_trt.py",
        "MODEL.onnx (-o MODEL.engine | --verify MODEL.engine) [options]",
        "Build a TensorRT engine from an ONNX file that carries its Manifest, and prove that both compute\n"
        "the same. TensorRT for RTX builds without a GPU too: --verify then compares on the target.\n"
        "An engine is executable code: build your own, and open none that comes from a place you do not trust.",
        examples=(
            "python export/to_trt.py model.onnx -o model.engine --shapes 1x1024x512",
            "python export/to_trt.py model.onnx --verify model.engine",
        ),
        notes="Exit codes: 0 done, 2 usage or an existing file, 3 no GPU, library or arithmetic for it, 4 ONNX file,\n"
        "engine, frames or place unusable, 5 the comparison missed its bar, 130 interrupted. More: docs/export.md",
    )
    add = parser.section("files")
    add("model", type=Path, metavar="MODEL.onnx", common=True, help="what export/to_onnx.py wrote")
    add("-o", "--output", type=disk_path, metavar="MODEL.engine", common=True, help="the file to write")
    add("--verify", type=Path, metavar="ENGINE", common=True, help="build nothing: compare this engine with MODEL.onnx "
        "on the GPU here, and complete its Manifest")  # fmt: skip
    add("--overwrite", action="store_true", common=True, help="replace existing files")
    add("--json", action="store_true", common=True, help="print what was made as JSON")
    add = parser.section("build")
    add("--flavour", choices=(*FLAVOURS, "auto"), default="auto", common=True, help="TensorRT, TensorRT for RTX, or "
        "(auto) TensorRT where it is installed and a GPU is there, else TensorRT for RTX")  # fmt: skip
    add("--shapes", metavar="[MIN,OPT,]MAX", common=True, help="frames x width x height the engine takes, one for all "
        "or least, best, most in commas (one frame of the Manifest's size)")  # fmt: skip
    add("--device", default="auto", metavar="cuda:N", common=True, help="the GPU to build and compare on (the first; "
        "without any, TensorRT for RTX builds ahead of time)")  # fmt: skip
    add("--workspace", type=int, metavar="MB", help="scratch memory a layer may use (the library's)")
    add("--optimization-level", type=int, choices=range(6), metavar="LEVEL", help="how long to look for faster "
        "kernels, 0 to 5 (the library's, 3)")  # fmt: skip
    add("--tf32", action="store_true", help="let float32 convolutions round their factors to 10 bits (faster, less "
        "exact)")  # fmt: skip
    add("--hardware-compatible", nargs="?", const=HARDWARE_LEVELS[0], choices=HARDWARE_LEVELS, default="",
        help="TensorRT: the engine shall run on every GPU from Ampere on (if no level is named), or on every one of "
        "this compute capability; slower")  # fmt: skip
    add("--version-compatible", action="store_true", help="TensorRT: later releases of this major version and of the "
        "next shall open it; slower")  # fmt: skip
    add("--timing-cache", type=Path, metavar="FILE", help="TensorRT: times measured before, which make the next build "
        "fast (MODEL.timing)")  # fmt: skip
    add("--targets", metavar="CC,CC", help="TensorRT for RTX: compute capabilities to build for, such as 86,89 (all it "
        "knows but 75: Turing slows the others down and has to be named)")  # fmt: skip
    add_parity_options(parser.section("comparison"), reference="ONNX file", frames="shipped Toytown ones")
    return parser


def parse_shapes(text: str) -> Shapes:
    """Read `NxWxH` or `WxH`, once or as min,opt,max, as three (batch, height, width)."""
    shapes = []
    for word in text.split(","):
        match = re.fullmatch(r"(?:(\d{1,4})x)?(\d{1,5})x(\d{1,5})", word)
        shape = (int(match[1] or 1), int(match[3]), int(match[2])) if match else (0, 0, 0)
        fits = min(shape[1:]) >= _SMALLEST_SIDE and max(shape[1:]) <= LARGEST_SIDE
        if not (0 < shape[0] <= LARGEST_BATCH and fits):
            raise UsageError(
                f"--shapes: {word!r} is no shape. Write frames x width x height, such as 1x1024x512, with sides of "
                f"{_SMALLEST_SIDE} to {LARGEST_SIDE}."
            )
        shapes.append(shape)
    if len(shapes) == 1:
        shapes *= 3
    if len(shapes) != 3:
        raise UsageError(f"--shapes: {len(shapes)} are given; write one, or three in commas: least, best, most.")
    least, best, most = shapes
    if not all(low <= good <= high for low, good, high in zip(least, best, most, strict=True)):
        raise UsageError(f"--shapes: {text} does not rise from least to most in every number.")
    return least, best, most


def read_model(path: Path) -> OnnxModel:
    """Read an ONNX file and check its graph against its Manifest."""
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{path}: is no .onnx file. Make one with export/to_onnx.py.")
    return OnnxModel.read(path, read_model_file(path).manifest)


def frames_to_compare(place: Path | None, labels: Path | None, count: int, manifest: Manifest) -> FrameSet:
    """Read the frames to compare on: the user's, else the shipped ones."""
    if place is not None:
        read = read_frame_set(place, count, labels=labels)
        check_labels(read, manifest.label_space.num_classes)
        return read
    return shipped_frames_for(manifest.label_space, count)


def device_to_compare_on(
    library: Library, device: str, probe: CudaProbe, targets: tuple[str, ...]
) -> CudaDevice | None:
    """Return the GPU to build and compare on; None where an engine can only be built ahead of time."""
    if library.flavour == "rtx" and device == "auto" and not probe.devices:
        return None
    if device == "cpu":
        instead = ": it then builds ahead of time where there is none" if library.flavour == "rtx" else ""
        raise DeviceError(f"--device cpu: {library.title} builds for GPUs alone. Leave --device out{instead}.")
    gpu = choose_cuda_device(device, probe, f"building with {library.title}")
    if targets and "{}{}".format(*gpu.compute_capability) not in targets:
        logger.warning("%s is not among the targets %s", gpu, ", ".join(targets))
        return None
    return gpu


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Run the command."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, handlers=[stderr_handler()])
    _check_options(options)
    verify, started = options.verify is not None, time.monotonic()
    output = options.verify if verify else options.output
    manifest = _verify(options) if verify else _build(options)
    _report(output, manifest, time.monotonic() - started, as_json=options.json, model=options.model, verified=verify)
    return None


def _check_options(options: argparse.Namespace) -> None:
    """Raise `UsageError` where options are not allowed, or not together."""
    if (options.output is None) == (options.verify is None):
        raise UsageError("name what to do: -o MODEL.engine builds one, --verify MODEL.engine compares one.")
    if options.output is not None and options.output.suffix.lower() != ".engine":
        raise UsageError(f"{options.output}: the name of the file must end in .engine.")
    if options.workspace is not None and options.workspace < 1:
        raise UsageError(f"--workspace is {options.workspace}; allowed: 1 MB or more.")
    if options.num_frames < 1:
        raise UsageError(f"--num-frames is {options.num_frames}; at least 1 is needed, or nothing is compared.")
    if options.labels is not None and options.frames is None:
        raise UsageError("--labels belong to frames of your own. Name them with --frames.")
    if options.verify is not None:
        defaults = build_parser()
        named = [name for name in _BUILDING if getattr(options, name) != defaults.get_default(name)]
        if named:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in named)
            raise UsageError(
                f"--verify builds nothing, so {flags} would change nothing. Leave it out, or build with -o."
            )


def _build(options: argparse.Namespace) -> Manifest:
    """Build what the command line asks for; device and inputs are checked before the output."""
    shapes = parse_shapes(options.shapes) if options.shapes else None
    probe = probe_cuda()
    library = resolve_flavour(options.flavour, probe)
    library.check_options(hardware_compatible=options.hardware_compatible,
                          version_compatible=options.version_compatible,
                          timing_cache=options.timing_cache is not None)  # fmt: skip
    targets = library.targets(tuple(word for word in (options.targets or "").replace(".", "").split(",") if word))
    gpu = device_to_compare_on(library, options.device, probe, targets)
    model = read_model(options.model)
    comparison = _comparison(options, model.manifest)
    refuse_existing(options.output, overwrite=options.overwrite)
    default_cache = options.output.with_suffix(".timing") if library.flavour == "tensorrt" else None
    how = BuildOptions(
        shapes=shapes or default_shapes(model.manifest), workspace_mb=options.workspace,
        hardware_compatible=options.hardware_compatible, version_compatible=options.version_compatible,
        timing_cache=options.timing_cache or default_cache, targets=targets,
        optimization_level=options.optimization_level, tf32=options.tf32,
    )  # fmt: skip
    builder = Builder(library=library, options=how, gpu=gpu)
    where = str(gpu) if gpu else f"compute capability {', '.join(targets)}, ahead of time"
    logger.info("%s: building %s (%s) for %s", library.title, model.path.name, model.manifest.precision, where)
    if model.manifest.output == "logits":
        logger.warning(
            "%s gives logits: on a GPU their copy and the masks made from them on the CPU will bound the speed. Export "
            "it with --outputs classes.", model.path.name)  # fmt: skip
    with terminal_progress() as progress:
        return make_engine(
            builder, model, options.output, comparison=comparison, progress=progress, overwrite=options.overwrite
        )


def _verify(options: argparse.Namespace) -> Manifest:
    """Compare the engine that the command line names."""
    _, _, facts = engine_manifest(options.verify)
    library = load_library(facts.flavour)
    gpu = choose_cuda_device(options.device, probe_cuda(), f"{options.verify.name}, a TensorRT engine,")
    model = read_model(options.model)
    comparison = _comparison(options, model.manifest)
    return verify_engine(library, model, options.verify, comparison=comparison, gpu=gpu)


def _comparison(options: argparse.Namespace, manifest: Manifest) -> ParityCheck:
    """Read what the engine has to pass, and check the place of its report."""
    bar = bar_for(**vars(options) | {"precision": manifest.precision})
    frames = frames_to_compare(options.frames, options.labels, options.num_frames, manifest)
    if options.report is not None:
        refuse_existing(options.report, overwrite=options.overwrite)
        check_output_folder(options.report.parent)
    return ParityCheck(frames=frames, bar=bar, report=options.report, overwrite_report=options.overwrite)


def _report(output: Path, manifest: Manifest, seconds: float, *, as_json: bool, model: Path, verified: bool) -> None:
    """Say what was made, and on stdout as JSON where asked to."""
    facts = manifest.engine
    assert facts is not None
    logger.info(
        "types, read from the %s: %s", facts.types_checked, ", ".join(f"{n} {k}" for k, n in facts.types.items())
    )
    if facts.parity is None:
        logger.warning(
            "parity is pending: nothing has run this engine yet. On the target: python export/to_trt.py %s --verify %s",
            model, output)  # fmt: skip
    else:
        logger.info("parity with the ONNX file on %s: %s", facts.parity.frames_from, facts.parity.describe())
    size = output.stat().st_size
    if verified:
        logger.info("verified: %s; its figures are in %s", output, manifest_path(output).name)
    else:
        logger.info("written: %s (%.1f MB) and %s", output, size / 1e6, manifest_path(output).name)
    if as_json:
        document = {"engine": str(output), "bytes": size, "seconds": round(seconds, 2),
                    "manifest": json.loads(manifest.to_json())}  # fmt: skip
        print(printable_json(document, indent=2, ensure_ascii=False))  # noqa: T201 - the result


if __name__ == "__main__":
    sys.exit(exit_status(main, needs="trt"))
