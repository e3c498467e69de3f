"""The regularizer in a training loop that knows nothing else of this project (`examples/foreign_loop.py`)."""

import runpy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lsr_train import latent
from lsr_train.latent import LatentRegularizer


def test_a_foreign_loop_learns(repository: Path) -> None:
    weights = runpy.run_path(str(repository / "examples/foreign_loop.py"))["WEIGHTS"]
    torch.manual_seed(0)
    encoder, head = nn.Conv2d(3, 2048, 8, stride=8), nn.Conv2d(2048, 19, 1)
    optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=0.01)
    regularizer = LatentRegularizer(num_classes=19, channels=2048)
    history = []
    for _ in range(3):
        generator = torch.Generator().manual_seed(1)
        source_image, target_image = (torch.rand(2, 3, 24, 32, generator=generator) for _ in range(2))
        blocks = torch.randint(0, 19, (2, 3, 4), generator=generator)  # one class a cell, so that cells have labels
        source_labels = blocks.repeat_interleave(8, 1).repeat_interleave(8, 2)
        source_labels[:, :8, :8] = 255
        source_features, target_features = encoder(source_image).relu(), encoder(target_image).relu()
        source_logits, target_logits = (
            F.interpolate(head(x), (24, 32), mode="bilinear", align_corners=True)
            for x in (source_features, target_features)
        )
        terms = regularizer(source_features, source_labels, target_features, target_logits)
        loss = F.cross_entropy(source_logits, source_labels, ignore_index=255)
        loss = loss + sum(weights[name] * value for name, value in terms.items())
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
        optimizer.step()
        history.append(loss.item())
    assert set(terms) == set(weights)
    assert history[-1] < history[0]
    assert regularizer.prototypes.seen.any()


@pytest.mark.parametrize(
    ("old", "new"), [("ScaleFreeRegularizer", "CosineRegularizer"), ("SCALE_FREE_TERMS", "COSINE_TERMS")]
)
def test_names_of_0_1_0_still_work_and_warn(old: str, new: str) -> None:
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
        assert getattr(latent, old) is getattr(latent, new)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'ScaleFree'"):
        _ = latent.ScaleFree
