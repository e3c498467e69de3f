"""Predicts the memory of a training step and of an evaluation, and says how much there is.

The constants are what `tests/benchmarks/step_memory.py` measured on a CPU; a test holds prediction and measurement
together.
"""

from pathlib import Path

import torch

from lsr_infer.system.process import usable_bytes
from lsr_train.config.run import Config, command_of
from lsr_train.evaluation.signals import SIGNAL_BATCH
from lsr_train.network import DeepLabV2, NetworkSpec

__all__ = ["TOLERANCE", "available_bytes", "evaluation_bytes", "step_bytes"]

TOLERANCE = 0.25
"""How far a measured step may be from the prediction, as a share of it."""
_FIXED_BYTES = 100 << 20
_STATE_BYTES = {False: 17, True: 30}
"""A parameter, without and with a teacher: weight, gradient, two moments and what the optimiser needs meanwhile; the
teacher and its labels beside it."""
_PIXEL_BYTES = {
    ("resnet18", 16): (1010, 650), ("resnet18", 8): (1340, 1030),
    ("resnet34", 16): (1130, 940), ("resnet34", 8): (1470, 1890),
    ("resnet50", 16): (2690, 2510), ("resnet50", 8): (4240, 4410),
    ("resnet101", 16): (3080, 2910), ("resnet101", 8): (7560, 8130),
    ("efficientnet-lite0", 16): (2500, 3260), ("efficientnet-lite0", 8): (5250, 7180),
    ("efficientnet-lite2", 16): (3160, 4160), ("efficientnet-lite2", 8): (7160, 9330),
}  # fmt: skip
"""A pixel of one image in a step, fp32, width 1, 19 classes: source stage with batch-norm in training mode; adaptation
by self-training, one image of each domain, batch-norm frozen, whose outputs need not be kept. Slopes between 512x256
and 768x384, torch's CPU build; all of these numbers by the benchmark with its own defaults."""
_DISTANCE_BYTES = (4, 280)
"""Of `weights.distance`, a parameter and a pixel: the starting network, frozen, and its forward. Measured 240 and 280 a
pixel (ResNet-50 and -18, stride 16, the benchmark's --distance)."""
_WHOLE_WIDTH_PART = 0.25
"""Of these, what does not shrink with the network's width: first convolution, logits and labels at full size."""
_EVALUATION_BYTES = 550
"""A pixel of a frame in an evaluation, 19 classes: logits and probabilities at full size. Measured 280 to 530 on
ResNet-18 to -101 at stride 16 and 8 (the benchmark's --evaluation); the width of the network plays no part in it."""
_BF16 = 0.65
"""Of the activations of fp32 under autocast; measured 0.42 for the source stage, 0.63 for adaptation (ResNet-50)."""
_CUDA_BYTES = 1 << 30
"""Context and workspaces of a GPU; an estimate, never measured here."""


def step_bytes(config: Config, num_classes: int) -> int:
    """Predict the peak memory of a training step in bytes on its device, above those of the bare process.

    On a GPU it is an estimate: the constants are those of a CPU.
    """
    network, augment = config.network, config.augment
    trained, frozen = _PIXEL_BYTES[network.backbone, network.output_stride]
    if command_of(config.method) == "pretrain":
        a_pixel: float = trained
    else:
        a_pixel = 2 * trained if network.batch_norm == "train" else frozen
        further = (config.weights.masked > 0) + (config.method == "lsr-st" and config.latent.image == "target")
        a_pixel *= 1 + further / 2  # each is one image more beside the two
    if config.weights.distance:
        a_pixel += _DISTANCE_BYTES[1]
    if config.train.precision in ("bf16", "fp16"):
        a_pixel *= _BF16
    height = augment.crop_height or config.data.source.height
    width = augment.crop_width or config.data.source.width
    alone = 1.0 if command_of(config.method) == "pretrain" else 0.5  # of what an image of each domain takes
    pixels = (config.data.batch_size + alone * config.data.labelled_batch) * height * width
    fixed = _FIXED_BYTES + _resident_bytes(config, num_classes)
    narrow = _WHOLE_WIDTH_PART + (1 - _WHOLE_WIDTH_PART) * network.width
    return round(fixed + pixels * a_pixel * narrow)


def evaluation_bytes(config: Config, num_classes: int) -> int:
    """Predict the peak memory of evaluating the signals on whole target frames during a run; as `step_bytes`."""
    pixels = SIGNAL_BATCH * config.data.target.height * config.data.target.width
    fixed = _FIXED_BYTES + _resident_bytes(config, num_classes)
    return round(fixed + pixels * _EVALUATION_BYTES * max(1.0, num_classes / 19))


def _resident_bytes(config: Config, num_classes: int) -> int:
    """Return what the networks and the optimiser take, whatever the images."""
    network = config.network
    spec = NetworkSpec(
        backbone=network.backbone, width=network.width, output_stride=network.output_stride,
        dilations=network.dilations, num_classes=num_classes,
    )  # fmt: skip
    with torch.device("meta"), torch.random.fork_rng(devices=[]):  # counts the parameters without making them
        parameters = sum(item.numel() for item in DeepLabV2(spec).parameters())
    a_parameter = _STATE_BYTES[command_of(config.method) != "pretrain"]
    return parameters * (a_parameter + (_DISTANCE_BYTES[0] if config.weights.distance else 0))


def available_bytes(device: torch.device, system: Path = Path("/")) -> int:
    """Return how much memory of a GPU, or of the machine and this process's control group, a run may take.

    `system` is the root of the file system that control groups are read from, which psutil does not know.
    """
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what was freed counts as free
        free, _ = torch.cuda.mem_get_info(device)
        return max(0, free - _CUDA_BYTES)
    return usable_bytes(system)
