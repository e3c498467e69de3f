"""The device-side sums: means, the first bad step, and no wait in between."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from lsr_train.engine.monitor import TermMonitor, gradient_norms


class NoWaiting(TorchDispatchMode):
    """Refuses the operators behind `.item()` and `if tensor:`."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        assert func is not torch.ops.aten._local_scalar_dense.default, "a wait for the device"
        return func(*args, **(kwargs or {}))


def test_observing_never_waits_and_reading_gives_means() -> None:
    monitor = TermMonitor()
    with NoWaiting():
        for step in range(4):
            monitor.observe(step, {"a": torch.tensor(float(step)), "b": torch.tensor(2.0)}, {"d": torch.tensor(step)})
    reading = monitor.read()
    assert reading.means == {"a": 1.5, "b": 2.0, "d": 3.0}
    assert reading.first_bad == {}


def test_the_first_bad_step_of_each_term_is_kept() -> None:
    monitor = TermMonitor()
    values = [1.0, math.nan, math.inf, 1.0]
    for step, value in enumerate(values):
        monitor.observe(step, {"a": torch.tensor(value), "b": torch.tensor(math.inf if step == 3 else 0.0)}, {})
        monitor.reset()
    assert monitor.read().first_bad == {"a": 1, "b": 3}


def test_a_saved_interval_goes_on_where_it_was() -> None:
    whole, part = TermMonitor(), TermMonitor()
    values = [torch.tensor(v) for v in (0.1, 0.2, 0.3)]
    for step, value in enumerate(values):
        whole.observe(step, {"a": value}, {})
    part.observe(0, {"a": values[0]}, {})
    again = TermMonitor()
    again.load_state(part.names, part.state(), torch.device("cpu"))
    for step in (1, 2):
        again.observe(step, {"a": values[step]}, {})
    assert again.read().means == whole.read().means


def test_gradient_norms_are_those_of_each_term_alone_and_leave_everything_as_it_was() -> None:
    one, two, fixed = (torch.nn.Parameter(torch.tensor(values)) for values in ([3.0, 4.0], [1.0], [2.0]))
    fixed.requires_grad_(False)
    terms = {
        "squares": 0.5 * one.square().sum(), "both": one.sum() + 2 * two.sum(), "none": torch.tensor(1.0),
        "elsewhere": torch.nn.Parameter(torch.tensor(1.0)) * 3,
    }  # fmt: skip
    norms = gradient_norms(terms, [one, two, fixed])
    assert norms == {"squares": 5.0, "both": pytest.approx(math.sqrt(1 + 1 + 4)), "none": 0.0, "elsewhere": 0.0}
    assert one.grad is None
    sum(terms.values()).backward()  # the graph is still there
    assert one.grad is not None
    assert one.grad.tolist() == [4.0, 5.0]
