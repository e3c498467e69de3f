"""Networks small enough for a test, and the same with batch-norm that is not the identity."""

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from lsr_train.network import DeepLabV2, NetworkSpec


def small_spec(**changes: object) -> NetworkSpec:
    values: dict[str, object] = {"backbone": "resnet18", "width": 0.125, "num_classes": 5, "dilations": (1, 3)}
    return NetworkSpec(**{**values, **changes})  # type: ignore[arg-type]  # tests pass any field


def small_network(seed: int = 0, **changes: object) -> DeepLabV2:
    """A seeded network whose batch-norm has statistics, scales and shifts of its own."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DeepLabV2(small_spec(**changes))
        for module in network.modules():
            if isinstance(module, _BatchNorm):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
                torch.nn.init.uniform_(module.weight, 0.5, 1.5)
                torch.nn.init.normal_(module.bias, 0, 0.1)
    return network
