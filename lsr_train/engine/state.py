"""All that trains in a run, to and from a checkpoint folder: what a resumed run needs to go on bit-equally.

The engine decides when; this decides what lies in `model.safetensors`, `state.safetensors` and `state.json`.
"""

import dataclasses
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from accelerate.optimizer import AcceleratedOptimizer
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from lsr_infer.errors import InputError
from lsr_infer.io.atomic import write_json
from lsr_train.engine.monitor import TermMonitor
from lsr_train.engine.selection import Selector
from lsr_train.methods import Method
from lsr_train.network import DeepLabV2
from lsr_train.runs.checkpoint import ModelInfo, load_model, save_model
from lsr_train.runs.folder import MODEL_FILE
from lsr_train.runs.tensor_files import save_tensors
from lsr_train.runs.tensors import (
    as_plain,
    load_optimizer,
    optimizer_tensors,
    random_tensors,
    restore_random,
    with_prefix,
    without_prefix,
)

__all__ = ["STATE_FORMAT", "RunState"]

logger = logging.getLogger(__name__)

STATE_FORMAT = 1
"""Version of `state.json`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunState:
    """What changes from step to step.

    Args:
        network: what trains.
        method: with its prototypes, teachers and running figures.
        optimizer: of both.
        critics: further optimisers by name.
        monitor: the terms since the last row of the log.
        selector: what was seen without labels so far.
        scaler: of fp16; None elsewhere.
        device: where everything lies.
    """

    network: DeepLabV2
    method: Method
    optimizer: AcceleratedOptimizer
    critics: Mapping[str, AcceleratedOptimizer]
    monitor: TermMonitor
    selector: Selector
    scaler: GradScaler | None
    device: torch.device

    @property
    def outcome(self) -> DeepLabV2:
        """The network that is looked at and saved."""
        return cast(DeepLabV2, self.method.result(self.network))

    @property
    def _modules(self) -> dict[str, nn.Module]:
        return {"network": self.network, "method": self.method}

    def write(self, folder: Path, info: ModelInfo) -> None:
        """Write the files of a checkpoint into an empty folder.

        Args:
            folder: which is there.
            info: of the model; its step is the checkpoint's.

        Raises:
            OSError: the folder cannot be written.
        """
        save_model(folder / MODEL_FILE, self.outcome, info)
        tensors = (
            with_prefix("optimizer", optimizer_tensors(self.optimizer.optimizer, self._modules))
            | with_prefix("method", self.method.state_dict())
            | with_prefix("random", random_tensors(self.device))
            | with_prefix("monitor", self.monitor.state())
        )
        if self.outcome is not self.network:
            tensors |= with_prefix("network", self.network.state_dict())  # the model file holds another
        for name, critic in self.critics.items():
            tensors |= with_prefix(f"critic.{name}", optimizer_tensors(critic.optimizer, self._modules))
        save_tensors(folder / "state.safetensors", tensors)
        write_json(
            folder / "state.json",
            {
                "format": STATE_FORMAT,
                "step": info.step,
                "device": self.device.type,
                "monitor": self.monitor.names,
                "selection": as_plain(self.selector.state()),
                "scaler": None if self.scaler is None else as_plain(self.scaler.state_dict()),
            },
        )

    def read(self, folder: Path) -> int:
        """Take up a checkpoint.

        Returns:
            Its step.

        Raises:
            InputError: the checkpoint is damaged or belongs to another network.
        """
        saved, _ = load_model(folder / MODEL_FILE)
        if saved.spec != self.network.spec:
            raise InputError(f"{folder}: another architecture than config.yaml says. Put the configuration back.")
        try:
            document = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            tensors = load_file(folder / "state.safetensors")
        except Exception as error:
            raise InputError(
                f"{folder}: the checkpoint cannot be read ({error}). Resume from a copy, or start anew."
            ) from error
        if document.get("format") != STATE_FORMAT:
            raise InputError(f"{folder}: state of format {document.get('format')}; this version reads {STATE_FORMAT}.")
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
        if document["scaler"] is not None and self.scaler is not None:
            self.scaler.load_state_dict(document["scaler"])
        restore_random(without_prefix("random", tensors), self.device)
        if document["device"] != self.device.type:
            logger.warning(
                "resumed on %s what ran on %s: it goes on, not bit-equally", self.device.type, document["device"]
            )
        return int(document["step"])
