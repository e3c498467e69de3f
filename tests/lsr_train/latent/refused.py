"""A mode under which everything that would make the host wait for the device is an error."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

WAITING = {
    "aten::_local_scalar_dense", "aten::item", "aten::is_nonzero", "aten::nonzero", "aten::masked_select",
    "aten::bincount", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive", "aten::equal",
    "aten::nonzero_static", "aten::histc", "aten::repeat_interleave", "aten::argwhere",
}  # fmt: skip


class NoWaiting(TorchDispatchMode):
    """Refuses the operators behind `.item()`, `if tensor:` and boolean-mask indexing; counts the others.

    Args:
        largest: highest number of elements an operator's result may have, views and in-place results left out; None
            allows any.
    """

    def __init__(self, largest: int | None = None) -> None:
        super().__init__()
        self.count = 0
        self.largest = largest
        self.large: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name
        if name in WAITING:
            raise AssertionError(f"{name} waits for the device")
        if name.startswith("aten::index") and any(
            isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
            for argument in args if isinstance(argument, list | tuple) for index in argument
        ):  # fmt: skip
            raise AssertionError(f"{name} with a boolean mask waits for the device")
        self.count += 1
        result = func(*args, **(kwargs or {}))
        if self.largest is not None and isinstance(result, torch.Tensor) and result.numel() > self.largest:
            owned = {
                a.untyped_storage().data_ptr() for a in (*args, *(kwargs or {}).values()) if isinstance(a, torch.Tensor)
            }
            if result.untyped_storage().data_ptr() not in owned:
                self.large.append(name)
        return result
