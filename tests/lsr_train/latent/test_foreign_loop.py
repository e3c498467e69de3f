"""The README's lines, run in a training loop that knows nothing else of this project."""

import ast
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn


def readme_lines(repository: Path) -> str:
    """Return the README's code block that uses the regularizer."""
    blocks = re.findall(r"```python\n(.*?)```", (repository / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (lines,) = [block for block in blocks if "LatentRegularizer(" in block]
    return lines


def test_documents_in_a_foreign_loop(repository: Path) -> None:
    imports, build, *step = [ast.unparse(statement) for statement in ast.parse(readme_lines(repository)).body]
    assert len(step) <= 3  # five statements in all
    torch.manual_seed(0)
    encoder, head = nn.Conv2d(3, 2048, 8, stride=8), nn.Conv2d(2048, 19, 1)
    optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=0.01)
    space: dict = {}
    exec(f"{imports}\n{build}", space)  # what a reader would paste above the loop
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
        space |= {
            "source_features": source_features,
            "source_labels": source_labels,
            "target_features": target_features,
            "target_logits": target_logits,
            "cross_entropy": F.cross_entropy(source_logits, source_labels, ignore_index=255),
        }
        exec("\n".join(step), space)  # and into it
        optimizer.zero_grad()
        space["loss"].backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in encoder.parameters())
        optimizer.step()
        history.append(space["loss"].item())
    assert set(space["terms"]) == set(space["weights"])
    assert history[-1] < history[0]
    assert space["regularizer"].prototypes.seen.any()
