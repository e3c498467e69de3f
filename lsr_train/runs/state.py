"""Writes the state of a run to a checkpoint folder and restores it, so that a resumed run continues bit-equally.

The engine decides when; this decides what lies in `model.safetensors`, `state.safetensors` and `state.json`.
"""

import copy
import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from accelerate.optimizer import AcceleratedOptimizer
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from lsr_infer.errors import InputError
from lsr_infer.io.digests import BLANK, seal
from lsr_infer.io.files import write_json
from lsr_train.methods import Method
from lsr_train.network import DeepLabV2
from lsr_train.runs.checkpoint import (
    UNSEALED,
    ModelInfo,
    checked_digest,
    damage,
    load_model,
    newest_whole,
    save_model,
    save_tensors,
)  # fmt: skip
from lsr_train.runs.folder import CHECKPOINT_FILES, MODEL_FILE, RunFolder

__all__ = ["RunState", "other_network"]

logger = logging.getLogger(__name__)

_, _TENSORS, _DOCUMENT = CHECKPOINT_FILES
_NETWORKS = ("network.", "method.teacher.network.")
"""Before the tensors of a network that trains where the model file holds its teacher, and of the teacher otherwise."""
STATE_FORMAT = 2
"""Version of `state.json`."""


class MonitorState(Protocol):
    """Sums of the loss terms, as the engine keeps them between two rows of the log."""

    @property
    def names(self) -> list[str]: ...
    def state(self) -> dict[str, Tensor]: ...
    def load_state(self, names: list[str], state: Mapping[str, Tensor], device: torch.device) -> None: ...


class PlainState(Protocol):
    """The choice of the best checkpoint so far, or the length of the run, as the engine keeps it; plain data."""

    def state(self) -> dict[str, Any]: ...
    def load_state(self, state: Mapping[str, Any]) -> None: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunState:
    """What changes from step to step.

    Args:
        critics: the method's further optimisers.
        scaler: fp16's alone.
        config: what tells the run's configuration from another, such as a hash of it.
    """

    network: DeepLabV2
    method: Method
    optimizer: AcceleratedOptimizer
    critics: Mapping[str, AcceleratedOptimizer]
    monitor: MonitorState
    selector: PlainState
    schedule: PlainState
    scaler: GradScaler | None
    device: torch.device
    config: str

    @property
    def result(self) -> DeepLabV2:
        """The network that is evaluated and saved."""
        return cast(DeepLabV2, self.method.result(self.network))

    @property
    def _modules(self) -> dict[str, nn.Module]:
        return {"network": self.network, "method": self.method}

    def write(self, folder: Path, info: ModelInfo) -> None:
        """Write the files of a checkpoint, whose step is the model's, into an empty folder."""
        files = {MODEL_FILE: save_model(folder / MODEL_FILE, self.result, info)}
        random = {"cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self.device)
        tensors = (
            with_prefix("optimizer", optimizer_tensors(self.optimizer.optimizer, self._modules))
            | with_prefix("method", self.method.state_dict())
            | with_prefix("random", random)
            | with_prefix("monitor", self.monitor.state())
        )
        if self.result is not self.network:
            tensors |= with_prefix("network", self.network.state_dict())  # the model file holds another
        for name, critic in self.critics.items():
            tensors |= with_prefix(f"critic.{name}", optimizer_tensors(critic.optimizer, self._modules))
        files[_TENSORS] = save_tensors(folder / _TENSORS, tensors, {"digest": BLANK})
        document = {
            "format": STATE_FORMAT,
            "digest": BLANK,
            "files": files,
            "config": self.config,
            "step": info.step,
            "device": self.device.type,
            "monitor": self.monitor.names,
            "selection": self.selector.state(),
            "schedule": self.schedule.state(),
            "scaler": None if self.scaler is None else self.scaler.state_dict(),
        }
        write_json(folder / _DOCUMENT, document)
        seal(folder / _DOCUMENT)

    def read(self, folder: Path) -> int:
        """Restore a checkpoint and return its step; `InputError` where it is damaged or of another network."""
        document, tensors = _read_whole(folder)
        saved, _ = load_model(folder / MODEL_FILE)
        if saved.spec != self.network.spec:
            raise InputError(f"{folder}: another architecture than config.yaml says. Put the configuration back.")
        if document.get("format") not in (UNSEALED, STATE_FORMAT):
            raise InputError(f"{folder}: state of format {document.get('format')}; this version reads {STATE_FORMAT}.")
        if document.get("config", self.config) != self.config:
            logger.warning(
                "%s was written with another config.yaml than the one that is there: the run goes on as that says",
                folder,
            )
        self.network.load_state_dict(saved.state_dict())
        try:
            return self._restore(document, tensors)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            text = " ".join(str(error).split())[:200]
            raise InputError(f"{folder}: its state does not fit this run ({text}). Start a new run.") from error

    def _restore(self, document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> int:
        """Put everything but the saved model back; raises what its parts raise on data that do not fit."""
        self.method.load_state_dict(without_prefix("method", tensors))
        trained = without_prefix("network", tensors)
        if trained:
            self.network.load_state_dict(trained)
        load_optimizer(self.optimizer.optimizer, self._modules, without_prefix("optimizer", tensors))
        for name, critic in self.critics.items():
            load_optimizer(critic.optimizer, self._modules, without_prefix(f"critic.{name}", tensors))
        self.monitor.load_state(document["monitor"], without_prefix("monitor", tensors), self.device)
        self.selector.load_state(document["selection"])
        if "schedule" in document:  # 0.1.0 had none
            self.schedule.load_state(document["schedule"])
        if document["scaler"] is not None and self.scaler is not None:
            self.scaler.load_state_dict(document["scaler"])
        random = without_prefix("random", tensors)
        torch.set_rng_state(random["cpu"])
        if self.device.type == "cuda" and "cuda" in random:
            torch.cuda.set_rng_state(random["cuda"], self.device)
        if document["device"] != self.device.type:
            logger.warning(
                "resumed on %s what ran on %s: it continues, not bit-equally", self.device.type, document["device"]
            )
        return int(document["step"])


def _read_whole(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read the state of a checkpoint, whose files have the digests that they state.

    Raises:
        InputError: a file is missing, damaged, or of another checkpoint; says how to go on from one that is whole.
    """
    try:
        own = checked_digest(folder / _DOCUMENT)
        document = json.loads((folder / _DOCUMENT).read_text(encoding="utf-8"))
        if own is None and document["format"] > UNSEALED:
            raise damage(folder / _DOCUMENT)
        if own is not None:
            for name, digest in document["files"].items():
                if checked_digest(folder / name) != digest:
                    raise InputError(f"{folder / name}: it is damaged, or of another checkpoint.")
        if folder.name != f"step-{document['step']}":
            raise InputError(f"{folder}: holds the checkpoint of step {document['step']}.")
        return document, load_file(folder / _TENSORS)
    except Exception as error:
        what = str(error) if isinstance(error, InputError) else f"{folder}: the checkpoint cannot be read ({error})."
        raise InputError(f"{what} {_way_on(folder)}") from error


def other_network(model: Path, network: DeepLabV2) -> DeepLabV2 | None:
    """Return the teacher of a checkpoint whose model is the student, or the student of one whose model is the teacher.

    Args:
        model: the model file; what it does not hold stands beside it in the checkpoint's folder.
        network: what was read from it; stays as it is.

    Returns:
        The other network on the same device, or None where there is none.

    Raises:
        InputError: the state beside the model is damaged.
    """
    file = model.with_name(_TENSORS)
    if model.name != MODEL_FILE or not file.is_file():
        return None
    checked_digest(file)  # 0.1.0 wrote none
    other = copy.deepcopy(network)
    wanted = set(other.state_dict())
    try:
        with safe_open(file, framework="pt") as tensors:
            there = set(tensors.keys())
            prefix = next((name for name in _NETWORKS if {f"{name}{key}" for key in wanted} <= there), None)
            if prefix is None:
                return None
            other.load_state_dict({key: tensors.get_tensor(f"{prefix}{key}") for key in wanted})
    except SafetensorError as error:
        raise damage(file) from error
    return other


def _way_on(folder: Path) -> str:
    """Say what to do about a damaged checkpoint: how to go on from the newest whole one, where there is one."""
    other = newest_whole(folder / _DOCUMENT)
    if other is None:
        return "Put a copy of the checkpoint back, or start a new run; no other one of this run is whole."
    steps = RunFolder(folder.parent.parent).steps()
    gone = [f"step-{step}" for step in steps if step > int(other.name.removeprefix("step-"))]
    return f"To go on from {other.name}, write its name into {folder.parent / 'last'} and remove {', '.join(gone)}."


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
    """Put back what `optimizer_tensors` returned, each tensor in its parameter's memory format and device."""
    parameters = dict(_names(optimizer, modules))
    unknown = sorted({key.rpartition("/")[0] for key in tensors} - parameters.keys())
    if unknown:
        raise InputError(f"the optimiser state has parameters this run does not: {', '.join(unknown[:5])}.")
    for key, value in tensors.items():
        name, _, kind = key.rpartition("/")
        parameter = parameters[name]
        placed = value.shape == parameter.shape and value.dim()
        restored = torch.empty_like(parameter, dtype=value.dtype).copy_(value) if placed else value.clone()
        optimizer.state[parameter][kind] = restored
