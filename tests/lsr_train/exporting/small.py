"""A small network to export, and where its checkpoint lies."""

from pathlib import Path

import torch

from lsr_infer.labelspace import LabelSpace
from lsr_train.data.labels import CAMVID_11
from lsr_train.network import DeepLabV2, NetworkSpec
from lsr_train.runs.checkpoint import ModelInfo, save_model


def network(**changes: object) -> DeepLabV2:
    """A network whose batch-norm statistics and classifier are not the initial ones."""
    torch.manual_seed(4)
    spec = {
        "backbone": "resnet18",
        "width": 0.125,
        "num_classes": 11,
        "output_stride": 8,
        "dilations": (2, 4),
    } | changes
    made = DeepLabV2(NetworkSpec(**spec))  # type: ignore[arg-type]  # fields of several types
    with torch.no_grad():
        for parameter in made.head.parameters():
            parameter.mul_(30)
        for name, buffer in made.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
    return made.eval()


def write_checkpoint(path: Path, made: DeepLabV2, space: LabelSpace = CAMVID_11) -> Path:
    """Write a network that says it was trained at 128x96."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(path, made, ModelInfo(label_space=space, method="lsr", height=96, width=128, scores={"miou": 0.25}))
    return path
