"""Defines critics that tell the domain of encoder features, their loss, and ways to train features against them."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lsr_train.distributed import all_reduce_sum, world_size
from lsr_train.latent.cells import compute_dtype

_WIDTHS = (64, 128, 256, 512)
_LEAST = 32
"""Cells a side that five halvings need."""


class FeatureCritic(nn.Module):
    """Five 4x4 convolutions of stride 2, each but the last followed by a leaky ReLU (Tsai et al. 2018, Sec. 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width in _WIDTHS:
            layers += [nn.Conv2d(channels, width, kernel_size=4, stride=2, padding=1), nn.LeakyReLU(0.2, inplace=True)]
            channels = width
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels, 1, kernel_size=4, stride=2, padding=1))

    def forward(self, features: Tensor) -> Tensor:
        """Return scores [B,1,h',w'] of features [B,K,h,w], above 0 for the target.

        A side of less than 32 cells is brought to 32 by bilinear interpolation, since nothing of it would be left.
        """
        height, width = features.shape[-2:]
        if min(height, width) < _LEAST:
            size = (max(height, _LEAST), max(width, _LEAST))
            features = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
        scores: Tensor = self.layers(features)
        return scores


_EMBEDDED = 256
_SQUEEZED = 64
"""Channels between the two layers of the attention over levels. Ours."""
_DROPOUT = 0.5
"""Ours: the paper's detection code uses it in its classifiers."""


class PyramidCritic(nn.Module):
    """Say of which domain images are from their features (Li et al. 2020, SAPNet, Sec. 3).

    Three convolutions embed the features; average pools of several windows summarise them at several scales; in each
    level an attention over places, guided by the level's features and the network's own prediction, makes one vector of
    it; an attention over levels, for each channel, makes one of all; a linear layer gives the domain.

    The paper is about detection, and no code of it for segmentation is published. Ours are: windows that overlap by
    half, the prediction as probabilities and without gradient, the width of the attention over levels.

    Args:
        channels: K, of the features.
        num_classes: C, of the prediction.
        windows: cells a side of each pool, cut to the map; beside them the whole map is a level.
    """

    def __init__(self, channels: int, num_classes: int, windows: tuple[int, ...] = (3, 9, 15, 21)) -> None:
        super().__init__()
        self.windows = windows
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [
                nn.Conv2d(channels, _EMBEDDED, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(_EMBEDDED),
                nn.ReLU(inplace=True), nn.Dropout2d(_DROPOUT),
            ]  # fmt: skip
            channels = _EMBEDDED
        self.embed = nn.Sequential(*layers)
        self.places = nn.ModuleList(nn.Conv2d(_EMBEDDED + num_classes, 1, kernel_size=1) for _ in windows)
        self.squeeze = nn.Sequential(nn.Linear(_EMBEDDED, _SQUEEZED), nn.ReLU(inplace=True))
        self.levels = nn.ModuleList(nn.Linear(_SQUEEZED, _EMBEDDED) for _ in range(len(windows) + 1))
        self.classify = nn.Linear(_EMBEDDED, 1)

    def forward(self, features: Tensor, logits: Tensor) -> Tensor:
        """Judge images.

        Args:
            features: [B,K,h,w], of both domains: statistics of a batch of one would hide what tells them apart.
            logits: the network's, [B,C,h,w]; constants.

        Returns:
            Scores [B,1], above 0 for the target. The sigmoid of one score is the softmax of two.
        """
        embedded = self.embed(features)
        prediction = logits.detach().float().softmax(dim=1).to(embedded.dtype)
        vectors = [
            self._summed(_pooled(embedded, window), _pooled(prediction, window), attention)
            for window, attention in zip(self.windows, self.places, strict=True)
        ]
        vectors.append(embedded.mean(dim=(2, 3)))
        stacked = torch.stack(vectors)  # [L,B,D]
        squeezed = self.squeeze(stacked.sum(dim=0))
        shares = torch.stack([level(squeezed) for level in self.levels]).softmax(dim=0)
        scores: Tensor = self.classify((shares * stacked).sum(dim=0))
        return scores

    def _summed(self, features: Tensor, prediction: Tensor, attention: nn.Module) -> Tensor:
        """Return the mean of the places [B,D], weighted by the attention."""
        shares = attention(torch.cat([features, prediction], dim=1)).flatten(2).softmax(dim=2)  # [B,1,N]
        summed: Tensor = (features.flatten(2) * shares).sum(dim=2)
        return summed


def _pooled(values: Tensor, window: int) -> Tensor:
    """Return means over windows that overlap by half; a window is no larger than the map."""
    size = (min(window, values.shape[2]), min(window, values.shape[3]))
    return F.avg_pool2d(values, size, stride=((size[0] + 1) // 2, (size[1] + 1) // 2))


SOURCE, TARGET = 0, 1


def domain_loss(scores: Tensor, domain: int) -> Tensor:
    """Return the binary cross-entropy of a critic's scores, above 0 for the target, which are all of one domain.

    Returns:
        Scalar >= 0 in float32 (float64 for float64 input): the mean over the scores of all ranks, with equally many.
    """
    if domain not in (SOURCE, TARGET):
        raise ValueError(f"domain is {domain}; allowed: {SOURCE} (source) and {TARGET} (target)")
    exact = scores.to(compute_dtype(scores.dtype))
    return all_reduce_sum(F.softplus(exact if domain == SOURCE else -exact).mean()) / world_size()


def critic_loss(of_source: Tensor, of_target: Tensor) -> Tensor:
    """Return the mean of the losses of both domains' scores."""
    return (domain_loss(of_source, SOURCE) + domain_loss(of_target, TARGET)) / 2


def frozen(critic: nn.Module, *inputs: Tensor) -> Tensor:
    """Run a critic whose parameters get no gradient; its inputs do."""
    parameters = {name: parameter.detach() for name, parameter in critic.named_parameters()}
    result: Tensor = functional_call(critic, parameters, inputs)
    return result


class _Reversed(torch.autograd.Function):
    """The identity; its gradient has the opposite sign."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return values.view_as(values)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return -gradient


def reverse_gradient(values: Tensor) -> Tensor:
    """Return the values as they are; gradients pass with their sign turned (Ganin and Lempitsky 2015)."""
    reversed_values: Tensor = _Reversed.apply(values)  # type: ignore[no-untyped-call]  # torch's
    return reversed_values
