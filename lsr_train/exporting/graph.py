"""Traces a network as a float32 ONNX graph with the names of the checkpoint's modules, and looks into such graphs."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError
from lsr_infer.io.digests import BLANK, seal
from lsr_infer.manifest import METADATA_KEY, Manifest
from lsr_infer.system.process import import_onnxruntime, usable_cores

__all__ = [
    "LARGEST_ONNX", "OPSET", "OPSETS", "SAMPLED", "Producers", "Watched", "copy_of", "layers", "logits_name",
    "open_session", "save", "trace",
]  # fmt: skip

OPSET = 20
OPSETS = (18, 19, 20, 21)
"""Opsets a graph can be written in: from 18 torch's exporter writes them, up to 21 they are what is tested here."""

LARGEST_ONNX = 2**31 - 2**20
"""Bytes of weights that one ONNX file holds with room for the rest; protobuf ends at 2 GiB."""

SAMPLED = 3
"""One value in so many along each side of a map is sampled: coprime to the network's strides and dilations."""


def trace(network: Any, *, fixed: tuple[int, int] | None, outputs: str = "logits", opset: int = OPSET) -> Any:
    """Translate a network in evaluation mode, its normalisation included, into an `onnx.ModelProto`.

    It takes `image`, uint8 [N,H,W,3], of any size or the `fixed` (height, width) alone, and gives `logits`, float32
    [N,C,h,w], or `classes`, uint8 [N,H,W]. Convolutions carry the names of the checkpoint's modules; batch-norm is
    folded. `InputError` where torch gives no program.
    """
    import torch

    class Graph(torch.nn.Module):
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
            Graph().eval(), (example,), dynamo=True, opset_version=opset, input_names=["image"],
            output_names=[outputs], dynamic_shapes={"image": axes}, external_data=False, verbose=False,
        )  # fmt: skip
    if program is None:
        raise InputError("torch.onnx.export gave no program. Report the versions of torch and onnxscript.")
    model = program.model_proto
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        item.doc_string = ""  # torch's notes about the source lines and paths of the machine that made the graph
        del item.metadata_props[:]
    _name_layers(model)
    return model


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's commentary, also torch's about torchvision, which this project does without."""
    names = ("torch", "onnxscript", "onnx_ir", "torch.onnx._internal.exporter._registration")
    levels = {logger: logger.level for logger in map(logging.getLogger, names)}
    for logger in levels:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in levels.items():
            logger.setLevel(level)


def _name_layers(model: Any) -> None:
    """Name every convolution, and what it gives, after the module whose weight it has.

    Types of tensors in between are dropped: they would be wrong in a graph of another precision.
    """
    graph = model.graph
    del graph.value_info[:]
    ends = {output.name for output in graph.output}
    renamed: dict[str, str] = {}
    for node in graph.node:
        name = node.input[1].removeprefix("network.").removesuffix(".weight") if node.op_type == "Conv" else ""
        if name and name not in renamed.values():  # the exporter lets equal weights share one initializer
            node.name = name
            if node.output[0] not in ends:
                renamed[node.output[0]] = name
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]


def save(model: Any, manifest: Manifest, path: Path) -> Manifest:
    """Write a model with its Manifest in the metadata, and return that with the digest of the file."""
    import onnx

    for entry in [entry for entry in model.metadata_props if entry.key == METADATA_KEY]:
        model.metadata_props.remove(entry)
    model.metadata_props.add(key=METADATA_KEY, value=replace(manifest, digest=BLANK).to_json())
    model.producer_name = "lsr-road"
    if model.ByteSize() > LARGEST_ONNX:
        raise InputError(f"the graph has {model.ByteSize() / 1e9:.1f} GB, an ONNX file holds 2. Export a smaller one.")
    onnx.save(model, str(path))
    return replace(manifest, digest=seal(path))


def copy_of(model: Any) -> Any:
    """Return a copy of an `onnx.ModelProto`."""
    result = type(model)()
    result.CopyFrom(model)
    return result


def open_session(model: Any, **settings: Any) -> Any:
    """Load a model into ONNX Runtime on the CPU, with further attributes of its `SessionOptions`."""
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    for name, value in ({"log_severity_level": 4, "intra_op_num_threads": usable_cores()} | settings).items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def layers(model: Any) -> dict[str, str]:
    """Return the tensor that each convolution gives, by the name of its module, in the order of the graph."""
    return {node.name: node.output[0] for node in model.graph.node if node.op_type == "Conv"}


def logits_name(model: Any) -> str:
    """Return the tensor that holds the logits at feature size, whichever of the two outputs the graph has."""
    for node in model.graph.node:
        if node.op_type == "Resize":
            return str(node.input[0])
    return str(model.graph.output[0].name)


class Producers:
    """Which node gives a tensor, and what a tensor depends on; the graph may not change meanwhile."""

    def __init__(self, model: Any) -> None:
        self._node_of = {name: node for node in model.graph.node for name in node.output}

    def of(self, tensor: str) -> Any | None:
        """Return the node that gives `tensor`, None for an input or a weight."""
        return self._node_of.get(tensor)

    def upstream(self, tensors: Sequence[str]) -> set[str]:
        """Return the names of the nearest convolutions above `tensors`."""
        found, seen, waiting = set(), set(), list(tensors)
        while waiting:
            tensor = waiting.pop()
            node = self.of(tensor)
            if node is None or tensor in seen:
                continue
            seen.add(tensor)
            if node.op_type == "Conv":
                found.add(str(node.name))
            else:
                waiting += node.input
        return found


class Watched:
    """A copy of a model that gives for each of some tensors [N,C,h,w] its least and largest value, and a sample of it.

    The whole maps never leave the session, which a ResNet-101 at 512x1024 would need gigabytes for.
    """

    def __init__(self, model: Any, tensors: Sequence[str]) -> None:
        import onnx

        watched = copy_of(model)
        graph = watched.graph
        for name, values in (("starts", [0, 0]), ("ends", [2**31 - 1] * 2), ("axes", [2, 3]), ("steps", [SAMPLED] * 2)):
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(values, np.int64), f"watched/{name}"))
        del graph.output[:]
        nodes = []
        for tensor in tensors:
            sliced = [f"watched/{name}" for name in ("starts", "ends", "axes", "steps")]
            parts = [onnx.helper.make_node("Slice", [tensor, *sliced], [f"{tensor}/sample"])]
            for reduction in ("Min", "Max"):
                output = f"{tensor}/{reduction}"
                parts.append(onnx.helper.make_node(f"Reduce{reduction}", [tensor], [output], keepdims=0))
            for part in parts:
                cast = f"{part.output[0]}/float"
                nodes += [part, onnx.helper.make_node("Cast", list(part.output), [cast], to=onnx.TensorProto.FLOAT)]
                graph.output.append(onnx.helper.make_tensor_value_info(cast, onnx.TensorProto.FLOAT, None))
        placed = _after_their_inputs(graph.node, nodes)
        del graph.node[:]
        graph.node.extend(placed)
        onnxruntime = import_onnxruntime()
        self._session = open_session(
            watched,
            # Rewritten graphs would have lost some of the tensors that are to be seen.
            graph_optimization_level=onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
            # Nodes run in the order they stand, and maps go back to the system at once: measured on a ResNet-101 at
            # 512x1024, 1.7 GB at the peak instead of 7.3.
            execution_order=onnxruntime.ExecutionOrder.PRIORITY_BASED,
            enable_cpu_mem_arena=False,
            enable_mem_pattern=False,
        )
        self._tensors = list(tensors)

    def run(self, images: NDArray[np.uint8]) -> dict[str, tuple[float, float, Any]]:
        """Return for each tensor on frames [N,H,W,3] its extremes and the sample float32 [N,C,h/3,w/3]."""
        values = iter(self._session.run(None, {"image": images}))
        found = {tensor: (next(values), next(values), next(values)) for tensor in self._tensors}
        return {tensor: (float(least), float(largest), sample) for tensor, (sample, least, largest) in found.items()}


def _after_their_inputs(old: Sequence[Any], new: Sequence[Any]) -> list[Any]:
    """Place nodes right after what they read, so that a map can be freed before the next one is computed."""
    readers: dict[str, list[Any]] = {}
    for node in new:
        readers.setdefault(node.input[0], []).append(node)
    placed: list[Any] = []

    def place(node: Any) -> None:
        placed.append(node)
        for output in node.output:
            for reader in readers.get(output, ()):
                place(reader)

    for node in old:
        place(node)
    return placed
