"""What the first line of a summary says."""

import pytest
import torch

from lsr_infer.labelspace import LabelSpace
from lsr_train.autopilot.summary import TELLING, verdict
from lsr_train.evaluation.signals import ClassSignals, Signals

SPACE = LabelSpace(name="three", names=("road", "sky", "pole"), colors=((1, 2, 3), (4, 5, 6), (7, 8, 9)))
MORE, LESS = 2 * TELLING, -2 * TELLING


def signals(flip: float, scale: float, *shares: float) -> Signals:
    share = torch.tensor(shares or (0.5, 0.4, 0.1), dtype=torch.float64)
    nothing = torch.zeros_like(share)
    return Signals(
        flip=flip,
        scale=scale,
        entropy=0.3,
        frames=4,
        classes=ClassSignals(share=share, confidence=nothing, flip=nothing),
    )


@pytest.mark.parametrize(
    ("flip", "scale", "shares", "steps", "expected"),
    [
        (MORE, MORE, (), 500, "verdict: better by"),
        (MORE, 0.0, (), 500, "verdict: no better"),
        (MORE, LESS, (), 500, "verdict: no better"),
        (LESS, LESS, (), 500, "verdict: worse by"),
        (MORE, MORE, (0.5, 0.5, 0.0), 500, "verdict: worse, it gave up pole; "),
        (MORE, MORE, (), 199, "verdict: too short to tell, a stage had 199 steps; "),
    ],
)
def test_the_verdict(flip: float, scale: float, shares: tuple[float, ...], steps: int, expected: str) -> None:
    line = verdict(signals(0.5, 0.4), signals(0.5 + flip, 0.4 + scale, *shares), steps, SPACE)
    assert line.startswith(expected)
    assert line.endswith(f"agreement with the mirrored frame {flip:+.3f}, over scales {scale:+.3f}")
