"""A training state as named tensors and plain data, and back: what a checkpoint holds besides the network.

No pickle: tensors go to safetensors, numbers to JSON. It knows no file.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from lsr_infer.errors import InputError

__all__ = ["load_optimizer", "optimizer_tensors", "random_tensors", "restore_random", "with_prefix", "without_prefix"]


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return `tensors` under `prefix.`, contiguous and on the CPU, as safetensors wants them."""
    return {f"{prefix}.{name}": value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def without_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what stands under `prefix.`, without it."""
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}


def _names(optimizer: Optimizer, modules: Mapping[str, nn.Module]) -> list[tuple[str, nn.Parameter]]:
    """Return the optimiser's parameters in order with the names that their modules give them."""
    known = {id(p): f"{prefix}.{name}" for prefix, module in modules.items() for name, p in module.named_parameters()}
    return [(known[id(p)], p) for group in optimizer.param_groups for p in group["params"]]


def optimizer_tensors(optimizer: Optimizer, modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Return an optimiser's state by parameter name and kind, such as `network.head.0.weight/exp_avg`."""
    tensors = {}
    for name, parameter in _names(optimizer, modules):
        for kind, value in optimizer.state.get(parameter, {}).items():
            if value is not None:
                tensors[f"{name}/{kind}"] = value if isinstance(value, Tensor) else torch.tensor(value)
    return tensors


def load_optimizer(optimizer: Optimizer, modules: Mapping[str, nn.Module], tensors: Mapping[str, Tensor]) -> None:
    """Put back what `optimizer_tensors` returned, each tensor in its parameter's memory format and device.

    Raises:
        InputError: the state belongs to other parameters.
    """
    parameters = dict(_names(optimizer, modules))
    unknown = sorted({key.rpartition("/")[0] for key in tensors} - parameters.keys())
    if unknown:
        raise InputError(f"the optimiser state has parameters this run does not: {', '.join(unknown[:5])}.")
    for key, value in tensors.items():
        name, _, kind = key.rpartition("/")
        parameter = parameters[name]
        if value.shape == parameter.shape and value.dim():
            restored = torch.empty_like(parameter, dtype=value.dtype)
            restored.copy_(value)
            optimizer.state[parameter][kind] = restored
        else:
            optimizer.state[parameter][kind] = value.clone()


def random_tensors(device: torch.device) -> dict[str, Tensor]:
    """Return the states of torch's generators."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_random(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Put torch's generators back; one for another kind of device is left alone."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


def as_plain(value: Any) -> Any:
    """Return `value` as JSON data, tensors as numbers."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): as_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [as_plain(item) for item in value]
    return value
