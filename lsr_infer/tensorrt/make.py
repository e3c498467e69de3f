"""Makes an engine from an ONNX file: builds it, reads its types back, compares it, writes it.

Nothing appears under its final name before all of that has passed. Without a GPU the comparison stays pending.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError, QualityGateError, UsageError
from lsr_infer.io.files import AtomicOutputs, check_output_folder, refuse_existing, write_json, write_text, writing
from lsr_infer.manifest import Manifest
from lsr_infer.manifest.records import EngineFacts
from lsr_infer.parity.frame_set import working_image
from lsr_infer.parity.meter import ParityCheck, Verdict
from lsr_infer.system.cuda import CudaDevice
from lsr_infer.tensorrt.admission import Host, check_bytes, check_host, engine_manifest, manifest_path, sha256_of
from lsr_infer.tensorrt.build import Builder, BuildOptions, BuildProgress, Built, Shapes, build_engine
from lsr_infer.tensorrt.flavour import Library, platform_name
from lsr_infer.tensorrt.runner import EngineRunner
from lsr_infer.tensorrt.types import check_engine_types, check_network_types, inspected_types
from lsr_infer.tensorrt.verify import (
    OnnxReference,
    RunGraph,
    compare_with_onnx,
    find_worst_layer,
    judge_parity,
    run_onnx,
)

__all__ = ["OnnxModel", "default_shapes", "engine_contract", "make_engine", "runs_of", "verify_engine"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class OnnxModel:
    """An ONNX file, read: where it is from, its bytes and its Manifest."""

    path: Path
    data: bytes
    manifest: Manifest

    @classmethod
    def read(cls, path: Path, manifest: Manifest) -> "OnnxModel":
        """Read the bytes of a file whose Manifest is known; `InputError` where it is made for ONNX Runtime alone."""
        if manifest.runtime == "onnxruntime":
            raise InputError(
                f"{path}: its INT8 is the kind that ONNX Runtime wants, and TensorRT computes another. Export it with "
                "--precision int8 --for tensorrt."
            )
        if manifest.parity is None:
            logger.warning("%s was never compared with its checkpoint; its engine counts as unverified", path.name)
        return cls(path=path, data=path.read_bytes(), manifest=manifest)


def default_shapes(manifest: Manifest) -> Shapes:
    """Return the shapes of an engine that takes nothing but the size its Manifest works at."""
    shape = (manifest.fixed_batch or 1, manifest.height, manifest.width)
    return shape, shape, shape


def engine_contract(manifest: Manifest, shapes: Shapes) -> Manifest:
    """Return an ONNX file's Manifest as it is true of an engine for `shapes`.

    An engine for one size takes that size alone, so that frames are stretched to it, as into any graph of fixed size.
    One for many works at the best of them. `UsageError` where the graph does not take the shapes.
    """
    least, best, most = shapes
    if manifest.fixed_size and any(shape[1:] != (manifest.height, manifest.width) for shape in shapes):
        raise UsageError(f"--shapes: this graph takes {manifest.width}x{manifest.height} alone. Leave --shapes out.")
    batch = manifest.fixed_batch
    if batch is not None and any(shape[0] != batch for shape in shapes):
        raise UsageError(f"--shapes: this graph takes {batch} frames at a time. Write that number first.")
    fixed, batch = least[1:] == most[1:], best[0] if least[0] == most[0] else None
    return replace(
        manifest, digest="", runtime="tensorrt", height=best[1], width=best[2], fixed_size=fixed, fixed_batch=batch,
        resize="stretch" if fixed else manifest.resize,
    )  # fmt: skip


def make_engine(
    builder: Builder,
    model: OnnxModel,
    output: Path,
    *,
    comparison: ParityCheck,
    progress: BuildProgress | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Build an engine, compare it, and write it with its Manifest beside it.

    Without a GPU in the builder the comparison stays pending. Raises `UsageError` for shapes the graph does not take,
    `DeviceError` where the engine is not in the precision of the ONNX file, `QualityGateError` where that is not in the
    precision it claims, or the engine missed the bar.
    """
    contract = engine_contract(model.manifest, builder.options.shapes)
    beside = manifest_path(output)
    refuse_existing(output, overwrite=overwrite)
    refuse_existing(beside, overwrite=overwrite)
    check_output_folder(output.parent)
    if builder.options.timing_cache is not None:
        check_output_folder(builder.options.timing_cache.parent)

    def check(working: Mapping[str, int]) -> None:
        try:
            check_network_types(contract.precision, working)
        except QualityGateError as error:
            raise QualityGateError(f"{model.path}: {error}") from error

    with AtomicOutputs() as results:
        # Before the work: the place may be unusable. The engine appears first: without a Manifest nothing opens it.
        temporary = results.file(output, overwrite=overwrite)
        document = results.file(beside, overwrite=overwrite)
        plan, manifest, verdict = b"", contract, Verdict()
        try:
            built = build_engine(builder, model.data, progress=progress, check=check)
            plan, manifest = built.plan, _manifest_of(built, builder, model, contract)
            if builder.gpu is not None:
                manifest, verdict = _prove(builder, model, plan, manifest, comparison)
        except QualityGateError as error:
            verdict = Verdict(failure=error)
        _settle(verdict, manifest, comparison)
        with writing(output):
            temporary.write_bytes(plan)
        with writing(beside):
            document.write_text(manifest.to_json() + "\n", encoding="utf-8")
    return manifest


def _manifest_of(built: Built, builder: Builder, model: OnnxModel, contract: Manifest) -> Manifest:
    """Return the contract with the facts of a built engine, which nothing has run yet."""
    options, gpu = builder.options, None if builder.options.targets else builder.gpu
    facts = EngineFacts(
        flavour=builder.library.flavour, version=builder.library.version, gpu="" if gpu is None else gpu.name,
        compute_capability=None if gpu is None else gpu.compute_capability, targets=options.targets,
        hardware_compatible=options.hardware_compatible, version_compatible=options.version_compatible,
        platform=platform_name(), shapes=options.shapes, types=built.types, sha256=sha256_of(built.plan),
        onnx_sha256=sha256_of(model.data),
    )  # fmt: skip
    choices = (*contract.choices, *(["float32 convolutions may use TF32"] if options.tf32 else []))
    return replace(contract, engine=facts, choices=choices)


def _settle(verdict: Verdict, manifest: Manifest, comparison: ParityCheck) -> None:
    """Write the report where one is wanted, and raise where the engine must not appear."""
    if comparison.report is not None:
        write_json(comparison.report, verdict.report(manifest), overwrite=comparison.overwrite_report)
        logger.info("all figures are in %s", comparison.report)
    if verdict.failure is not None:
        raise verdict.failure


def verify_engine(
    library: Library, model: OnnxModel, engine: Path, *, comparison: ParityCheck, gpu: CudaDevice
) -> Manifest:
    """Compare an engine with its ONNX file on the target, and write the figures into the Manifest beside it.

    Raises `InputError` for files that do not belong together, `DeviceError` for an engine that does not run here, and
    `QualityGateError` where it missed the bar; its Manifest then stays as it was.
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
    tf32 = any("TF32" in choice for choice in manifest.choices)
    options = BuildOptions(shapes=facts.shapes, targets=facts.targets, tf32=tf32)
    builder = Builder(library=library, options=options, gpu=gpu)
    try:
        manifest, verdict = _prove(builder, model, plan, manifest, comparison)
    except QualityGateError as error:
        verdict = Verdict(failure=error)
    _settle(verdict, manifest, comparison)
    write_text(manifest_path(engine), manifest.to_json() + "\n")
    return manifest


def _prove(
    builder: Builder, model: OnnxModel, plan: bytes, manifest: Manifest, comparison: ParityCheck
) -> tuple[Manifest, Verdict]:
    """Open an engine, read its types back and compare it; return its Manifest with the result, and the verdict."""
    facts, gpu = manifest.engine, builder.gpu
    assert facts is not None
    assert gpu is not None
    runner = EngineRunner(builder.library, plan, gpu, host_code=facts.version_compatible)
    try:
        kind = builder.library.module.LayerInformationFormat.JSON
        shown = inspected_types(runner.engine.create_engine_inspector().get_engine_information(kind))
        check_engine_types(manifest.precision, shown)
        if shown.working:
            facts = replace(facts, types=shown.layers, types_checked="engine")
        else:
            logger.warning("the built engine does not show what it computes in; its types are those of the network")
        logger.info("comparing with the ONNX file on %s", comparison.frames.origin)
        parity = compare_with_onnx(
            OnnxReference(model.data, model.manifest),
            lambda image: runner.run({runner.inputs[0]: image})[runner.outputs[0]],
            manifest,
            comparison.frames,
            margin=comparison.bar.margin,
            where=gpu.name,
        )
    finally:
        runner.close()
    image = np.repeat(working_image(comparison.frames.frames[0], manifest), manifest.fixed_batch or 1, axis=0)
    verdict = judge_parity(
        parity, comparison.bar, lambda: find_worst_layer(model.data, image, run_onnx, runs_of(builder))
    )
    return replace(manifest, engine=replace(facts, parity=parity, proved_on=gpu.compute_capability)), verdict


def runs_of(builder: Builder) -> RunGraph:
    """Return what builds a graph as an engine was built, and runs it."""
    gpu = builder.gpu
    assert gpu is not None

    def run(model: bytes, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        runner = EngineRunner(builder.library, build_engine(builder, model).plan, gpu, graphs=False)
        try:
            return runner.run({runner.inputs[0]: image})
        finally:
            runner.close()

    return run
