"""Compares an exported file with its checkpoint on frames, and finds the layer that differs most.

The tensors that they share are compared in the order of the graph, and below the bar the layer is named that adds most
to the error it reads.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.errors import InputError, QualityGateError
from lsr_infer.io.images import resize_labels
from lsr_infer.manifest import Manifest
from lsr_infer.manifest.records import Parity
from lsr_infer.parity.frame_set import FrameSet, working_image
from lsr_infer.parity.meter import LayerError, ParityCheck, ParityMeter, Verdict, check_bar
from lsr_infer.render.masks import upsample_argmax
from lsr_infer.segmenter import Segmenter
from lsr_infer.system.progress import with_progress
from lsr_train.exporting.graph import SAMPLED, Producers, Watched, layers

__all__ = ["Written", "compare_with_checkpoint", "judge_export", "layer_errors", "worst_layer"]

_DRIFT_FRAMES = 2
"""Frames in the search for the drifting layer: the answer is the same on each, and one costs two forwards."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """An exported file before its comparison: its path, its `onnx.ModelProto` and its Manifest."""

    path: Path
    model: Any
    manifest: Manifest


def compare_with_checkpoint(network: Any, model: Path, frames: FrameSet, *, margin: float = 1.0) -> Parity:
    """Compare a checkpoint's network, in evaluation mode on the CPU, with an exported file on frames.

    A frame's classes are compared at its own size, or at the graph's where it gives classes. `QualityGateError` where
    the file fails on a frame, or logits are not finite.
    """
    import torch

    try:
        opened = Segmenter(model, device="cpu", backend="onnxruntime")
    except InputError as error:
        raise QualityGateError(f"{model.name}: the exported graph cannot be opened ({error})") from error
    with opened as segmenter, torch.inference_mode():
        meter = ParityMeter(segmenter.label_space, margin=margin)
        for frame, labels in with_progress(frames.pairs(), "comparing", len(frames)):
            size = frame.shape[0], frame.shape[1]
            image = working_image(frame, segmenter.manifest)
            expected = network(network.normalize(torch.from_numpy(image))).logits[0].numpy()
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
                size = found.shape[0], found.shape[1]
                logits, classes = None, np.asarray(found, dtype=np.uint8)
            else:
                logits = np.asarray(found, dtype=np.float32)
                classes = upsample_argmax(logits, *size)
            truth = None if labels is None else resize_labels(labels, *size)
            meter.update(expected, logits, upsample_argmax(expected, *size), classes, truth)
    return meter.result(reference="checkpoint", frames_from=frames.origin)


def judge_export(network: Any, written: Written, comparison: ParityCheck, *, always_layers: bool = False) -> Verdict:
    """Compare a file with its checkpoint and hold it against a bar; layers are examined below it, or where asked to.

    It does not raise where the bar is missed, so that the figures can be reported.
    """
    parity, failure = None, None
    try:
        parity = compare_with_checkpoint(network, written.path, comparison.frames, margin=comparison.bar.margin)
        check_bar(parity, comparison.bar)
    except QualityGateError as error:
        failure = error
    if failure is None and not always_layers:
        return Verdict(parity=parity)
    images = [working_image(frame, written.manifest) for frame in comparison.frames.frames[:_DRIFT_FRAMES]]
    drift = tuple(layer_errors(network, written.model, images))
    worst = worst_layer(drift)
    if failure is not None and worst is not None:
        failure = QualityGateError(f"{str(failure).rstrip('.')}; the layer that drifts most is {worst.describe()}.")
    return Verdict(parity=parity, drift=drift, failure=failure)


def layer_errors(network: Any, model: Any, images: Sequence[NDArray[np.uint8]]) -> list[LayerError]:
    """Compare every convolution of a graph, in any precision, with the checkpoint's module of the same name.

    Batch-norm is folded in the graph, so a convolution is compared with the module's together with its batch-norm.
    """
    found = layers(model)
    watched = Watched(model, list(found.values()))
    squares = {layer: np.zeros(2) for layer in found}  # of the differences, of the checkpoint's values
    largest = dict.fromkeys(found, 0.0)
    for image in with_progress(images, "comparing layers", len(images)):
        observed = watched.run(image)
        outputs = _outputs(network, image)
        for layer, tensor in found.items():
            low, high, candidate = observed[tensor]
            largest[layer] = float(np.maximum(largest[layer], max(abs(low), abs(high))))
            if layer in outputs:
                reference = outputs[layer].astype(np.float64)
                squares[layer] += ((candidate - reference) ** 2).sum(), (reference**2).sum()
    errors = {layer: _ratio(*pair) for layer, pair in squares.items() if pair.any() or not np.isfinite(pair).all()}
    producers = Producers(model)
    nodes = {node.name: node for node in model.graph.node if node.op_type == "Conv"}
    return [
        LayerError(
            layer=layer,
            error=error,
            before=max((errors.get(name, 0.0) for name in producers.upstream(nodes[layer].input)), default=0.0),
            largest=largest[layer],
        )
        for layer, error in errors.items()
    ]


def _ratio(difference: float, reference: float) -> float:
    if not (np.isfinite(difference) and np.isfinite(reference)):
        return math.inf
    return math.sqrt(difference / reference) if reference else (math.inf if difference else 0.0)


def _outputs(network: Any, image: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
    """Return a sample of what each convolution of the network gives, batch-norm included, by its module's name.

    The network folds batch-norm into scaled weights and calls no module there, so convolutions are known by their
    weights: what is computed from a weight and has its shape stands for it.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    names = {id(module.weight): name for name, module in network.named_modules() if isinstance(module, torch.nn.Conv2d)}
    outputs: dict[str, NDArray[np.float32]] = {}
    alive = []  # an id is only unique as long as its tensor lives

    class Listening(TorchFunctionMode):
        def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if func is torch.conv2d:
                name = names.get(id(args[1]))
                if name is not None:
                    outputs[name] = result[:, :, ::SAMPLED, ::SAMPLED].float().numpy().copy()
            elif func in (torch.Tensor.mul, torch.Tensor.__mul__) and id(args[0]) in names:
                names[id(result)] = names[id(args[0])]
                alive.append(result)
            return result

    with torch.inference_mode():
        normalised = network.normalize(torch.from_numpy(np.ascontiguousarray(image)))
        with Listening():
            network(normalised)
    return outputs


def worst_layer(drift: Sequence[LayerError]) -> LayerError | None:
    """Return the layer that adds most error to what it reads, None where there is none.

    A layer behind one that is not finite adds nothing of its own.
    """
    return max(drift, key=lambda item: item.error - item.before if item.before < math.inf else -1.0, default=None)
