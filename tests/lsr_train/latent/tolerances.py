"""How far results of each type may be from the float64 oracle, and why."""

import torch

RELATIVE = {
    torch.float64: 1e-10,  # the oracle's own type: only the order of summation differs
    torch.float32: 2e-5,  # 24 bits, sums of a few hundred numbers
    torch.bfloat16: 2e-5,  # the input is rounded once (for the oracle too), then computed in float32
    torch.float16: 2e-5,  # as bfloat16
}
GRADIENT = {
    torch.float64: 1e-9,
    torch.float32: 1e-4,
    torch.bfloat16: 2e-2,  # the gradient is rounded to 8 bits when it is written
    torch.float16: 2e-3,  # 11 bits
}


def close(value: torch.Tensor, expected: torch.Tensor, relative: float, least: float = 1e-3) -> None:
    """Check values against the oracle's, relative to the largest of them, or to `least` where all are smaller."""
    scale = expected.abs().max().item() if expected.numel() else 0.0
    torch.testing.assert_close(value.double(), expected.double(), rtol=relative, atol=relative * max(scale, least))
