"""The whole way from an ONNX file to an engine that may be opened: build, read its types back, prove it, write it.

Nothing appears under its final name before all of that has passed; what cannot be proved for want of a GPU says so.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.cuda import CudaDevice
from lsr_infer.engine import EngineFacts
from lsr_infer.errors import InputError, LsrError, UsageError
from lsr_infer.files import check_place, refuse_existing, whole_file, write_text
from lsr_infer.frames import FrameSet
from lsr_infer.manifest import Manifest
from lsr_infer.modelfile import read_model_file
from lsr_infer.parity import Bar
from lsr_infer.tensorrt.admission import Host, check_bytes, check_host
from lsr_infer.tensorrt.build import BuildOptions, Shapes, build_engine
from lsr_infer.tensorrt.flavour import Library, platform_name
from lsr_infer.tensorrt.gate import OnnxReference, check_parity_bar, compare_with_onnx, working_image
from lsr_infer.tensorrt.progress import BuildProgress
from lsr_infer.tensorrt.sidecar import engine_manifest, manifest_path, sha256_of
from lsr_infer.tensorrt.types import check_engine_types, check_network_types, engine_types

__all__ = ["Comparison", "Model", "engine_contract", "make_engine", "read_model", "verify_engine"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Model:
    """An ONNX file, read.

    Args:
        path: where it is from.
        data: its bytes.
        manifest: what it says about itself.
    """

    path: Path
    data: bytes
    manifest: Manifest


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What an engine has to pass.

    Args:
        frames: what to compare on.
        bar: what the figures must reach.
    """

    frames: FrameSet
    bar: Bar


def read_model(path: Path) -> Model:
    """Read an ONNX file and check its graph against its Manifest.

    Raises:
        InputError: it is missing, damaged, without a Manifest, or made for ONNX Runtime alone.
    """
    if path.suffix.lower() != ".onnx":
        raise InputError(f"{path}: is no .onnx file. Make one with export/to_onnx.py.")
    manifest = read_model_file(path).manifest
    if manifest.runtime == "onnxruntime":
        raise InputError(
            f"{path}: its INT8 is the kind that ONNX Runtime wants, and TensorRT computes another. Export it with "
            "--precision int8 --for tensorrt."
        )
    if manifest.parity is None:
        logger.warning("%s was never compared with its checkpoint; an engine from it counts as unverified", path.name)
    return Model(path=path, data=path.read_bytes(), manifest=manifest)


def default_shapes(manifest: Manifest) -> Shapes:
    """Return the shapes of an engine that takes nothing but the size its Manifest works at."""
    shape = (manifest.fixed_batch or 1, manifest.height, manifest.width)
    return shape, shape, shape


def engine_contract(manifest: Manifest, shapes: Shapes) -> Manifest:
    """Return an ONNX file's Manifest as it is true of an engine for `shapes`.

    An engine for one size takes that size alone, so that frames are stretched to it, as into any graph of fixed size.
    One for many works at the best of them.

    Raises:
        UsageError: the graph does not take the shapes.
    """
    least, best, most = shapes
    if manifest.fixed_size and any(shape[1:] != (manifest.height, manifest.width) for shape in shapes):
        raise UsageError(f"--shapes: this graph takes {manifest.width}x{manifest.height} alone. Leave --shapes out.")
    if manifest.fixed_batch is not None and any(shape[0] != manifest.fixed_batch for shape in shapes):
        raise UsageError(
            f"--shapes: this graph takes {manifest.fixed_batch} frames at a time. Write that number first."
        )
    fixed = least[1:] == most[1:]
    return replace(
        manifest,
        runtime="tensorrt",
        height=best[1],
        width=best[2],
        fixed_size=fixed,
        fixed_batch=best[0] if least[0] == most[0] else None,
        resize="stretch" if fixed else manifest.resize,
    )


def make_engine(
    library: Library,
    model: Model,
    output: Path,
    options: BuildOptions,
    *,
    comparison: Comparison,
    gpu: CudaDevice | None,
    progress: BuildProgress | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Build an engine, and write it with its Manifest beside it.

    Args:
        library: what to build with.
        model: the ONNX file.
        output: the .engine file.
        options: how to build.
        comparison: what the engine has to pass where there is a GPU to run it on.
        gpu: the GPU to build and compare on; None builds ahead of time and leaves the comparison pending.
        progress: told where the build stands.
        overwrite: replace existing files.

    Returns:
        The Manifest beside the engine.

    Raises:
        UsageError: a file exists, or the graph does not take the shapes.
        InputError: the library cannot read the ONNX file, or the place cannot be written.
        DeviceError: the build failed, or the engine is not in the precision that was asked for.
        QualityGateError: the ONNX file is not in the precision it claims, or the engine missed the bar.
    """
    contract = engine_contract(model.manifest, options.shapes)
    beside = manifest_path(output)
    refuse_existing(output, overwrite=overwrite)
    refuse_existing(beside, overwrite=overwrite)
    check_place(output.parent)
    if options.timing_cache is not None:
        check_place(options.timing_cache.parent)

    def check(working: Mapping[str, int]) -> None:
        try:
            check_network_types(contract.precision, working)
        except LsrError as error:
            raise type(error)(f"{model.path}: {error}") from error

    with whole_file(beside) as document, whole_file(output) as temporary:  # before the work: the place may be unusable
        built = build_engine(library, model.data, options, progress=progress, gpu=gpu, check=check)
        facts = EngineFacts(
            flavour=library.flavour,
            version=library.version,
            gpu=gpu.name if gpu is not None and not options.targets else "",
            compute_capability=gpu.compute_capability if gpu is not None and not options.targets else None,
            targets=options.targets,
            hardware_compatible=options.hardware_compatible,
            version_compatible=options.version_compatible,
            platform=platform_name(),
            shapes=options.shapes,
            types=built.types,
            sha256=sha256_of(built.plan),
            onnx_sha256=sha256_of(model.data),
        )
        choices = (*contract.choices, *(["float32 convolutions may use TF32"] if options.tf32 else []))
        manifest = replace(contract, engine=facts, choices=choices)
        if gpu is not None:
            manifest = _prove(library, model, built.plan, manifest, comparison, gpu, options)
        temporary.write_bytes(built.plan)
        document.write_text(manifest.to_json() + "\n", encoding="utf-8")
    return manifest


def verify_engine(library: Library, model: Model, engine: Path, *, comparison: Comparison, gpu: CudaDevice) -> Manifest:
    """Compare an engine with its ONNX file on the target, and write the figures into the Manifest beside it.

    Args:
        library: of the engine's flavour and version.
        model: the ONNX file it was built from.
        engine: the engine.
        comparison: what it has to pass.
        gpu: the GPU to run it on.

    Returns:
        The Manifest, now with figures.

    Raises:
        InputError: the engine or its Manifest is unusable, or they are not from this ONNX file.
        DeviceError: the engine does not run here, or is not in the precision it claims.
        QualityGateError: it missed the bar; its Manifest is left as it was.
    """
    _, manifest, facts = engine_manifest(engine)
    try:
        plan = engine.read_bytes()
    except OSError as error:
        raise InputError(f"{engine}: cannot be read ({error.strerror or error}).") from error
    check_bytes(engine, facts, sha256_of(plan))
    if sha256_of(model.data) != facts.onnx_sha256:
        raise InputError(
            f"{engine}: was not built from {model.path}, whose SHA-256 is {sha256_of(model.data)[:12]}…; its Manifest "
            f"names {facts.onnx_sha256[:12]}…. Name the ONNX file it was built from."
        )
    host = Host(flavour=library.flavour, version=library.version, platform=platform_name(), gpu=gpu)
    check_host(engine, facts, host)
    options = BuildOptions(
        shapes=facts.shapes, targets=facts.targets, tf32=any("TF32" in choice for choice in manifest.choices)
    )
    manifest = _prove(library, model, plan, manifest, comparison, gpu, options)
    write_text(manifest_path(engine), manifest.to_json() + "\n")
    return manifest


def _prove(
    library: Library,
    model: Model,
    plan: bytes,
    manifest: Manifest,
    comparison: Comparison,
    gpu: CudaDevice,
    options: BuildOptions,
) -> Manifest:
    """Open an engine, read its types back, compare it, and return its Manifest with what was found."""
    from lsr_infer.tensorrt.runner import EngineRunner

    facts = manifest.engine
    assert facts is not None
    runner = EngineRunner(library, plan, gpu, host_code=facts.version_compatible)
    try:
        types = engine_types(runner.engine, library.module)
        if types:
            check_engine_types(manifest.precision, types)
            facts = replace(facts, types=types, types_checked="engine")
        else:
            logger.warning("the built engine does not show its types; they stay as read from the network")
        logger.info("comparing with the ONNX file on %s", comparison.frames.origin)
        parity = compare_with_onnx(
            OnnxReference(model.data, model.manifest),
            lambda image: runner.run({runner.inputs[0]: image})[runner.outputs[0]],
            manifest,
            comparison.frames,
            where=gpu.name,
        )
    finally:
        runner.close()
    image = np.repeat(working_image(comparison.frames.frames[0], manifest), manifest.fixed_batch or 1, axis=0)
    check_parity_bar(parity, comparison.bar, model.data, image, _builder_of(library, options, gpu))
    return replace(manifest, engine=replace(facts, parity=parity, proved_on=gpu.compute_capability))


def _builder_of(
    library: Library, options: BuildOptions, gpu: CudaDevice
) -> Callable[[bytes, NDArray[np.uint8]], dict[str, NDArray[Any]]]:
    """Return a `Run` that builds a graph as the engine was built, and runs it."""
    from lsr_infer.tensorrt.runner import EngineRunner

    def run(model: bytes, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        runner = EngineRunner(library, build_engine(library, model, options, gpu=gpu).plan, gpu, graphs=False)
        try:
            return runner.run({runner.inputs[0]: image})
        finally:
            runner.close()

    return run
