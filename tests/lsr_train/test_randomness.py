"""What is drawn on the CPU reaches another device without a blocking copy."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lsr_train.randomness import to_device
from lsr_train.selftraining import Strength, class_mix_mask, strong_augmentation


class Copies(TorchDispatchMode):
    """Notes for each copy from the CPU to another device whether it lets the host go on."""

    def __init__(self) -> None:
        super().__init__()
        self.free: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        there = kwargs.get("device") or torch.device("cpu")
        if func._schema.name == "aten::_to_copy" and args[0].device.type == "cpu" and there.type != "cpu":
            self.free.append(bool(kwargs.get("non_blocking")))
        return func(*args, **kwargs)


def test_no_draw_is_copied_while_the_host_waits() -> None:
    generator = torch.Generator().manual_seed(0)
    with Copies() as copies:  # "meta" is another device that every machine has
        strong_augmentation(
            torch.zeros(2, 9, 11, 3, device="meta"), Strength(), torch.rand(2, 7, generator=generator).double()
        )
        class_mix_mask(torch.zeros(2, 9, 11, dtype=torch.int64, device="meta"), torch.rand(2, 4, generator=generator))
    assert len(copies.free) == 5  # matrices, brightness, contrast, kernels; draws
    assert all(copies.free)


@pytest.mark.gpu
def test_numbers_arrive_on_cuda_whole() -> None:
    numbers = torch.rand(1000, 7, dtype=torch.float64)
    torch.cuda.set_sync_debug_mode("error")
    try:
        found = to_device(numbers, torch.device("cuda"), torch.float32)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(found.cpu(), numbers.float())


def test_the_type_is_kept_unless_another_is_asked_for() -> None:
    numbers = torch.rand(3, dtype=torch.float64)
    assert torch.equal(to_device(numbers, torch.device("cpu")), numbers)
    assert to_device(numbers, torch.device("cpu"), torch.float32).dtype == torch.float32
