"""Runs `lsr-infer info MODEL`: shows what a model file says about itself, without running it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lsr_infer.commands.parser import ArgumentParser, named
from lsr_infer.text import printable, printable_json

if TYPE_CHECKING:
    from lsr_infer.backends.model_file import ModelFile
    from lsr_infer.manifest import Manifest
    from lsr_infer.manifest.records import EngineFacts, Parity

__all__ = ["main"]

_WORST = 3


def main(argv: Sequence[str]) -> None:
    """Run the command; raises `LsrError`."""
    parser = ArgumentParser(
        "lsr-infer info",
        "MODEL [options]",
        "Show what a model says about itself: classes, sizes, precision, scores, and how each step of its\n"
        "making was proved. Reads an .onnx file, or the .json beside an .engine, and runs neither.",
        examples=("lsr-infer info model.onnx", "lsr-infer info model.engine --manifest"),
        notes="Exit codes: 0 done, 2 usage, 4 model unusable.",
    )
    add = parser.section("options")
    add("model", type=named, metavar="MODEL", common=True, help=".onnx or .engine file")
    add("--json", action="store_true", common=True, help="put one JSON document on stdout")
    add("--manifest", action="store_true", common=True, help="put the Manifest alone on stdout, as JSON")
    values = parser.parse_args(argv)
    from lsr_infer.backends.model_file import read_model_file

    model = read_model_file(values.model)
    shown = json.loads(model.manifest.to_json()) if values.manifest else document(model) if values.json else None
    text = "\n".join(_lines(model)) if shown is None else printable_json(shown, indent=2)
    print(text)  # noqa: T201 - the result


def document(model: "ModelFile") -> dict[str, Any]:
    """Return what `--json` puts on stdout."""
    return {
        "file": model.path.name,
        "kind": model.kind,
        "bytes": model.size,
        "weights": model.weights,
        "inputs": [asdict(port) for port in model.inputs],
        "outputs": [asdict(port) for port in model.outputs],
        "worst_classes": {name: _worst(parity) for name, parity in _chain(model.manifest) if parity is not None},
        "manifest": json.loads(model.manifest.to_json()),
    }


def _chain(manifest: "Manifest") -> Iterator[tuple[str, "Parity | None"]]:
    """Yield each step of the proof with its figures, None where they are still to come."""
    if manifest.parity is not None or manifest.engine is None:
        yield "checkpoint -> ONNX", manifest.parity
    if manifest.engine is not None:
        yield "ONNX -> engine", manifest.engine.parity


def _worst(parity: "Parity") -> dict[str, float]:
    """Return the classes that agree least."""
    return dict(sorted(parity.class_agreement.items(), key=lambda item: item[1])[:_WORST])


def _lines(model: "ModelFile") -> Iterator[str]:
    """Yield the lines of the table."""
    for name, text in _rows(model):
        yield f"{name:<13}{printable(text)}".rstrip()


def _rows(model: "ModelFile") -> Iterator[tuple[str, str]]:
    manifest = model.manifest
    space = manifest.label_space
    weights = "" if model.weights is None else f", {model.weights / 1e6:.2f} million weights"
    opset = f", ONNX opset {manifest.opset}" if manifest.opset and model.kind == "onnx" else ""
    yield "file", f"{model.path.name}, {model.size / 1e6:.1f} MB{weights}{opset}"
    yield "classes", f"{space.num_classes} of {space.name}: {', '.join(space.names)}"
    yield "input", f"image uint8 [{manifest.fixed_batch or 'N'},H,W,3] BGR, {_size(manifest)}"
    yield "", f"normalisation in the graph: {manifest.normalization or 'not stated'}"
    what = "float32 at feature size, the mask is made from them" if manifest.output == "logits" else "uint8 [N,H,W]"
    yield "output", f"{manifest.output}, {what}"
    yield "precision", manifest.precision + ("" if manifest.runtime == "any" else f", made for {manifest.runtime}")
    if (quantized := manifest.quantization) is not None:
        yield "quantized", f"{quantized.scheme}, {quantized.calibration} on {quantized.frames} frames"
        yield "", f"calibrated on {quantized.calibrated_on}"
        for way, share in quantized.candidates.items():
            yield "", f"{way}: {100 * share:.2f} % of held-out pixels as in float"
        if quantized.in_float:
            yield "", f"in float: {', '.join(quantized.in_float)}"
    for number, choice in enumerate(manifest.choices):
        yield "choices" if number == 0 else "", choice
    yield "trained by", manifest.method or "not stated"
    for number, (name, score) in enumerate(manifest.scores.items()):
        yield "scores" if number == 0 else "", f"{name} {score:.4g}"
    if (teacher := manifest.teacher) is not None:
        scores = ", ".join(f"{name} {score:.4g}" for name, score in teacher.scores.items())
        yield "teacher", f"{teacher.method or 'not stated'}, step {teacher.step}, SHA-256 {teacher.sha256}"
        yield "", f"its scores: {scores or 'not stated'}"
    for name, parity in _chain(manifest):
        yield from _parity(name, parity, pending=manifest.engine is not None and name.endswith("engine"))
    if manifest.engine is not None:
        yield from _engine(manifest.engine)
    yield "checkpoint", f"SHA-256 {manifest.checkpoint}" if manifest.checkpoint else "not stated"
    yield "made with", manifest.exporter or "not stated"
    yield "licence", manifest.licence or "not stated"
    yield "meant for", manifest.intended_use or "not stated"


def _size(manifest: "Manifest") -> str:
    if manifest.fixed_size:
        return f"{manifest.width}x{manifest.height} alone"
    kept = "area kept, aspect ratio the frame's" if manifest.resize == "keep-aspect" else "stretched to it"
    return f"works at {manifest.width}x{manifest.height} ({kept}, multiples of {manifest.multiple})"


def _parity(name: str, parity: "Parity | None", *, pending: bool) -> Iterator[tuple[str, str]]:
    if parity is None:
        why = "pending, to_trt.py --verify completes it on the target" if pending else "not compared"
        yield "parity", f"{name}: {why}"
        return
    yield "parity", f"{name}: {parity.describe()}, on {parity.frames_from}"
    if parity.clear_agreement is not None:
        yield "", f"{100 * parity.clear_agreement:.4f} % of clear cells agree"
    if parity.miou is not None and parity.miou_reference is not None:
        yield "", f"mIoU {100 * parity.miou_reference:.2f} before, {100 * parity.miou:.2f} after"
    if worst := _worst(parity):
        yield "", "worst: " + ", ".join(f"{title} {100 * share:.3f} %" for title, share in worst.items())


def _engine(facts: "EngineFacts") -> Iterator[tuple[str, str]]:
    yield "engine", f"{facts.flavour} {facts.version}, {facts.platform or 'platform not stated'}"
    if facts.gpu:
        capability = "" if facts.compute_capability is None else " ({}.{})".format(*facts.compute_capability)
        yield "", f"built on {facts.gpu}{capability}"
    if facts.targets:
        yield "", f"built ahead of time for compute capability {', '.join(facts.targets)}"
    compatible = [word for word in (facts.hardware_compatible, "later versions" * facts.version_compatible) if word]
    if compatible:
        yield "", f"compatible: {', '.join(compatible)}"
    for title, (batch, height, width) in zip(("least", "best", "most"), facts.shapes, strict=True):
        yield "", f"{title}: {batch} x {width}x{height}"
    counted = ", ".join(f"{name} {count}" for name, count in facts.types.items()) or "not read"
    yield "", f"types of its layers, read from the {facts.types_checked}: {counted}"
