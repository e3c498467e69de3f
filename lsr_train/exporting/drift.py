"""Where a graph leaves its checkpoint: each convolution of one compared with the module of the other, layer by layer.

As Polygraphy does for two graphs: the same frames go through both, the tensors they share are compared in the order of
the graph, and the layer that adds most to the error it was handed is the one to look at.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.parity.verdict import LayerDrift
from lsr_train.exporting.graph import SAMPLED, Producers, Watched, layers

__all__ = ["layer_drift", "worst_layer"]


def layer_drift(network: Any, model: Any, images: Sequence[NDArray[np.uint8]]) -> list[LayerDrift]:
    """Compare every convolution of a graph with the checkpoint's module of the same name.

    Batch-norm is folded in the graph, so a convolution is compared with the module's together with its batch-norm.

    Args:
        network: the checkpoint's `DeepLabV2` in evaluation mode, on the CPU.
        model: the candidate, an `onnx.ModelProto` made from `trace`, in any precision.
        images: uint8 [1,H,W,3] each, at a size the graph takes.

    Returns:
        One entry for each layer that both have, in the order of the graph.
    """
    found = layers(model)
    watched = Watched(model, list(found.values()))
    squares = {layer: np.zeros(2) for layer in found}  # of the differences, of the checkpoint's values
    largest = dict.fromkeys(found, 0.0)
    for image in images:
        seen, _ = watched.run(image)
        outputs = _outputs(network, image)
        for layer, tensor in found.items():
            low, high, candidate = seen[tensor]
            largest[layer] = float(np.maximum(largest[layer], max(abs(low), abs(high))))
            if layer in outputs:
                reference = outputs[layer].astype(np.float64)
                squares[layer] += ((candidate - reference) ** 2).sum(), (reference**2).sum()
    errors = {layer: _ratio(*pair) for layer, pair in squares.items() if pair.any() or not np.isfinite(pair).all()}
    producers = Producers(model)
    nodes = {node.name: node for node in model.graph.node if node.op_type == "Conv"}
    return [
        LayerDrift(
            layer=layer,
            error=error,
            before=max((errors.get(name, 0.0) for name in producers.upstream(nodes[layer].input, "Conv")), default=0.0),
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


def worst_layer(drift: Sequence[LayerDrift]) -> LayerDrift | None:
    """Return the layer that adds most error to what it was handed, None where there is none.

    A layer behind one that is not finite adds nothing of its own.
    """
    return max(drift, key=lambda item: item.error - item.before if item.before < math.inf else -1.0, default=None)
