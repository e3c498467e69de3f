"""A narrower network out of a wider one: exact where the other channels carry nothing."""

import dataclasses

import pytest
import torch
from torch import nn

from lsr_train.network import DeepLabV2, NetworkSpec
from lsr_train.network.narrowing import narrow

WIDE = NetworkSpec(backbone="resnet50", num_classes=4, width=0.125, output_stride=16, dilations=(2, 3))


def random_network(spec: NetworkSpec, seed: int) -> DeepLabV2:
    torch.manual_seed(seed)
    network = DeepLabV2(spec).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
            for tensor in (module.bias, module.running_mean):
                nn.init.normal_(tensor, std=0.1)
    return network


@torch.no_grad()
def embed(network: DeepLabV2, wide: DeepLabV2, seed: int) -> None:
    """Put a network into a wider one at random places; the other channels are written as 0."""
    generator = torch.Generator().manual_seed(seed)

    def places(count: int, of: int) -> torch.Tensor:
        return torch.randperm(of, generator=generator)[:count].sort().values

    def put(old: nn.Conv2d, norm: nn.BatchNorm2d, into: nn.Conv2d, into_norm: nn.BatchNorm2d, out, inp) -> None:
        into.weight[out[:, None], inp] = old.weight
        into_norm.weight.zero_()
        into_norm.bias.zero_()
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(into_norm, name)[out] = getattr(norm, name)

    old, new = network.backbone, wide.backbone
    stream = torch.arange(64)
    put(old.conv1, old.bn1, new.conv1, new.bn1, stream, torch.arange(3))
    for stage in range(1, 5):
        blocks = list(zip(old.get_submodule(f"layer{stage}"), new.get_submodule(f"layer{stage}"), strict=True))
        last = "conv3" if network.spec.shape.bottleneck else "conv2"
        entering = stream
        stream = places(getattr(blocks[0][0], last).out_channels, getattr(blocks[0][1], last).out_channels)
        for block, wider in blocks:
            inner = entering
            names = ["1", "2", "3"] if network.spec.shape.bottleneck else ["1", "2"]
            for name in names:
                one, two = getattr(block, f"conv{name}"), getattr(wider, f"conv{name}")
                out = stream if name == names[-1] else places(one.out_channels, two.out_channels)
                put(one, getattr(block, f"bn{name}"), two, getattr(wider, f"bn{name}"), out, inner)
                inner = out
            if block.downsample is not None:
                put(*block.downsample, *wider.downsample, stream, entering)
            entering = stream
    for branch, wider in zip(network.head.branches, wide.head.branches, strict=True):
        wider.weight[:, stream] = branch.weight
        wider.bias.copy_(branch.bias)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@pytest.mark.parametrize("stem", ["torchvision", "caffe"])
def test_what_carries_nothing_goes_first(backbone: str, stem: str) -> None:
    spec = dataclasses.replace(WIDE, backbone=backbone, stem=stem)
    network = random_network(spec, 0)
    wide = random_network(dataclasses.replace(spec, width=0.2), 1)
    embed(network, wide, 2)
    image = torch.randn(1, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        expected = network(image)
        torch.testing.assert_close(wide(image).logits, expected.logits)
        found = random_network(spec, 3)
        assert not torch.allclose(found(image).logits, expected.logits)
        narrow(wide, found)
        torch.testing.assert_close(found(image).logits, expected.logits)
        torch.testing.assert_close(found(image).features, expected.features)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet34", "resnet50"])
def test_of_equal_width_it_is_a_copy_at_any_stride(backbone: str) -> None:
    wide = random_network(dataclasses.replace(WIDE, backbone=backbone), 0)
    network = random_network(dataclasses.replace(wide.spec, output_stride=8), 1)
    narrow(wide, network)
    for name, value in wide.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name


def test_a_shortcut_without_projection_picks_its_channels() -> None:
    """A ResNet-18 of width 1 hands the stem's channels on through its first stage; a narrower one must pick."""
    wide = random_network(dataclasses.replace(WIDE, backbone="resnet18", width=1.0), 0)
    alive = torch.arange(0, 64, 2)
    with torch.no_grad():  # only these have anything in the stem; the blocks add little to all
        wide.backbone.bn1.weight[1::2] = 0
        for block in wide.backbone.get_submodule("layer1"):
            block.bn2.weight.fill_(1e-3)
    network = random_network(dataclasses.replace(wide.spec, width=0.5), 1)
    narrow(wide, network)
    first = network.backbone.get_submodule("layer1")[0]
    stem = torch.rand(1, 64, 5, 6, dtype=torch.float64)
    picked = first.downsample(stem)
    places = first.downsample[0].weight[:, :, 0, 0].argmax(dim=1)
    assert places.tolist() == alive.tolist()
    torch.testing.assert_close(picked, stem[:, places], rtol=1e-4, atol=1e-5)  # batch-norm's epsilon


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"backbone": "resnet101"}, "backbone"), ({"stem": "caffe"}, "stem"), ({"num_classes": 5}, "num_classes"),
        ({"normalization": "caffe-bgr"}, "normalization"), ({"width": 0.3}, "width of 0.3"),
    ],
)  # fmt: skip
def test_refuses_what_is_not_narrower(change: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        narrow(DeepLabV2(WIDE), DeepLabV2(dataclasses.replace(WIDE, **change)))


def test_refuses_a_stage_without_the_projection_that_the_wider_one_has() -> None:
    wide = DeepLabV2(dataclasses.replace(WIDE, width=0.5))
    with pytest.raises(ValueError, match=r"such as 0\.26"):
        narrow(wide, DeepLabV2(dataclasses.replace(WIDE, width=0.25)))
    narrow(wide, DeepLabV2(dataclasses.replace(WIDE, width=0.26)))
