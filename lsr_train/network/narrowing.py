"""Makes a narrower network from a wider one, keeping the channels of each layer that carry most.

What is left is not yet a good network: its batch-norm statistics are those of the wider one. It is a start for
distillation. Channels were ranked before by the scale of their batch-norm (Liu et al. 2017) and by the weights around
them (Li et al. 2017); the product of both is ours.
"""

import itertools
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from lsr_train.network.deeplab import DeepLabV2
from lsr_train.network.spec import LITES


class _Layer(NamedTuple):
    convolution: nn.Conv2d
    norm: nn.BatchNorm2d


class _Block(NamedTuple):
    layers: list[_Layer]
    projection: _Layer | None  # beside the layers, where the block has one


@torch.no_grad()
def narrow(wide: DeepLabV2, network: DeepLabV2) -> None:
    """Fill a network with the channels of a wider one that carry most.

    A channel's worth is the variance that batch-norm gives it (its squared scale), summed over the layers that write
    it, times the squared weights with which the next layers read it: how much it moves what comes after. Channels that
    a stage's shortcuts hand on are kept or left out in all its blocks alike. A projection that only the narrower block
    has picks the channels.

    Args:
        wide: where the weights come from; on any device, in float32.
        network: filled in place; of the same backbone, stem, classes, dilations and normalisation, and no stage wider.

    Raises:
        ValueError: they are no ResNets, the two differ in more than width and output stride, a stage is wider, or the
            narrower network has no projection where the wider one has one (a ResNet-50 of width 0.25, whose first stage
            is as wide as the stem).
    """
    own = network.spec.to_dict() | {"width": 0, "output_stride": 0}
    other = wide.spec.to_dict() | {"width": 0, "output_stride": 0}
    if network.spec.backbone in LITES:
        raise ValueError(f"only a ResNet has channels to choose from, not an {network.spec.backbone}")
    different = [key for key, value in own.items() if other[key] != value]
    if different:
        raise ValueError(f"the networks differ in {', '.join(different)}; only width and output stride may")
    widths = list(zip(network.spec.stage_channels, wide.spec.stage_channels, strict=True))
    if any(narrower > wider for narrower, wider in widths):
        raise ValueError(f"a width of {network.spec.width:g} cannot be made out of one of {wide.spec.width:g}")
    old, new = _stages(wide), _stages(network)
    pairs = zip(itertools.chain(*old), itertools.chain(*new), strict=True)
    if any(a.projection is not None and b.projection is None for a, b in pairs):
        raise ValueError(
            f"at a width of {network.spec.width:g} a stage is as wide as what enters it and has no projection, unlike "
            f"at {wide.spec.width:g}; another width, such as {network.spec.width + 0.01:g}, has one"
        )
    kept = torch.arange(wide.backbone.conv1.out_channels)  # of the stream between blocks
    stem, narrow_stem = (_Layer(item.backbone.conv1, item.backbone.bn1) for item in (wide, network))
    _copy(stem, narrow_stem, kept, torch.arange(3))
    for stage, (blocks, narrow_blocks) in enumerate(zip(old, new, strict=True)):
        following = old[stage + 1][0] if stage + 1 < len(old) else None
        count = network.spec.stage_channels[stage] * network.spec.shape.expansion
        entering, kept = kept, _best(_stream_worth(stem, blocks, following, wide), count)
        for index, (block, narrow_block) in enumerate(zip(blocks, narrow_blocks, strict=True)):
            _narrow_block(block, narrow_block, entering if index == 0 else kept, kept)
    for branch, narrow_branch in zip(_branches(wide), _branches(network), strict=True):
        narrow_branch.weight.copy_(branch.weight[:, kept])
        narrow_branch.get_parameter("bias").copy_(branch.get_parameter("bias"))


def _narrow_block(old: _Block, new: _Block, entering: Tensor, leaving: Tensor) -> None:
    """Fill a residual block whose input and output keep these channels."""
    inputs = entering
    for place, (layer, narrow_layer) in enumerate(zip(old.layers, new.layers, strict=True)):
        outputs = leaving
        if place + 1 < len(old.layers):
            worth = layer.norm.weight.square() * _read(*old.layers[place + 1])
            outputs = _best(worth, narrow_layer.convolution.out_channels)
        _copy(layer, narrow_layer, outputs, inputs)
        inputs = outputs
    if new.projection is None:
        return
    if old.projection is not None:
        _copy(old.projection, new.projection, leaving, entering)
    else:  # the wider block hands its input on as it is
        weight = new.projection.convolution.weight
        weight.copy_((leaving[:, None] == entering).to(weight.dtype)[:, :, None, None])
        new.projection.norm.reset_parameters()


def _stream_worth(stem: _Layer, blocks: list[_Block], following: _Block | None, wide: DeepLabV2) -> Tensor:
    """Return the worth [E] of the channels that the blocks of a stage hand on."""
    writers = [block.layers[-1] for block in blocks]
    writers.append(blocks[0].projection or stem)  # only a first stage has no projection: the stem enters it
    readers = [block.layers[0] for block in blocks[1:]]
    if following is not None:
        readers.append(following.layers[0])
        if following.projection is not None:
            readers.append(following.projection)
    read = [_read(*reader) for reader in readers]
    if following is None:
        read += [_read(branch, None) for branch in _branches(wide)]
    written = torch.stack([writer.norm.weight.square() for writer in writers]).sum(dim=0)
    return written * torch.stack(read).sum(dim=0)


def _stages(network: DeepLabV2) -> list[list[_Block]]:
    """Return the residual blocks of the four stages."""
    stages = (network.backbone.get_submodule(f"layer{stage}") for stage in range(1, 5))
    return [[_block(module) for module in stage.children()] for stage in stages]


def _block(module: nn.Module) -> _Block:
    parts: dict[str, Any] = dict(module.named_children())
    layers = [_Layer(parts[f"conv{place}"], parts[f"bn{place}"]) for place in (1, 2, 3) if f"conv{place}" in parts]
    return _Block(layers, _Layer(*parts["downsample"].children()) if "downsample" in parts else None)


def _branches(network: DeepLabV2) -> list[nn.Conv2d]:
    return [cast(nn.Conv2d, branch) for branch in network.head.branches]


def _read(convolution: nn.Conv2d, norm: nn.BatchNorm2d | None) -> Tensor:
    """Return the squared weights [C] with which a convolution and its batch-norm read each input channel."""
    weight = convolution.weight
    if norm is not None and norm.running_var is not None:
        weight = weight * (norm.weight * torch.rsqrt(norm.running_var + norm.eps)).view(-1, 1, 1, 1)
    return weight.square().sum(dim=(0, 2, 3))


def _best(worth: Tensor, count: int) -> Tensor:
    """Return the places of the largest values in their own order."""
    return worth.topk(count).indices.sort().values.cpu()


def _copy(layer: _Layer, into: _Layer, outputs: Tensor, inputs: Tensor) -> None:
    """Copy the given channels of a convolution and its batch-norm."""
    into.convolution.weight.copy_(layer.convolution.weight[outputs][:, inputs])
    for name in ("weight", "bias", "running_mean", "running_var"):
        getattr(into.norm, name).copy_(getattr(layer.norm, name)[outputs])
