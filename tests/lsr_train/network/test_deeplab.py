import copy
import itertools
import os
import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.nn.modules.batchnorm import _BatchNorm

from lsr_train.network import DeepLabV2, NetworkSpec, SegOutput
from lsr_train.network.resnet import normalised
from lsr_train.network.spec import RESNETS
from tests.lsr_train.network.small import small_network, small_spec

PUBLISHED = {  # torchvision's own counts: keys of the state dict, parameters; both with the two of `fc`
    "resnet18": ((2, 2, 2, 2), 2, 122, 11_689_512, 512),
    "resnet34": ((3, 4, 6, 3), 2, 218, 21_797_672, 512),
    "resnet50": ((3, 4, 6, 3), 3, 320, 25_557_032, 2048),
    "resnet101": ((3, 4, 23, 3), 3, 626, 44_549_160, 2048),
}
BATCH_NORM_KEYS = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def torchvision_keys(blocks: tuple[int, ...], convolutions: int) -> list[str]:
    """The encoder's names as torchvision's files have them, without `fc`."""
    keys = ["conv1.weight", *(f"bn1.{key}" for key in BATCH_NORM_KEYS)]
    for stage, count in enumerate(blocks, start=1):
        for block in range(count):
            for number in range(1, convolutions + 1):
                keys.append(f"layer{stage}.{block}.conv{number}.weight")
                keys += [f"layer{stage}.{block}.bn{number}.{key}" for key in BATCH_NORM_KEYS]
            if block == 0 and (stage > 1 or convolutions == 3):
                keys.append(f"layer{stage}.0.downsample.0.weight")
                keys += [f"layer{stage}.0.downsample.1.{key}" for key in BATCH_NORM_KEYS]
    return keys


@pytest.mark.parametrize("stem", ["torchvision", "caffe"])
@pytest.mark.parametrize("backbone", sorted(RESNETS))
def test_encoder_names_and_sizes_are_torchvisions(backbone: str, stem: str) -> None:
    blocks, convolutions, keys, parameters, channels = PUBLISHED[backbone]
    with torch.device("meta"):
        network = DeepLabV2(NetworkSpec(backbone=backbone, stem=stem))
    expected = torchvision_keys(blocks, convolutions)
    assert len(expected) == keys - 2
    assert sorted(network.backbone.state_dict()) == sorted(expected)
    fc = channels * 1000 + 1000
    assert sum(parameter.numel() for parameter in network.backbone.parameters()) == parameters - fc
    assert network.feature_channels == channels


def test_head_names() -> None:
    network = small_network(dilations=(6, 12, 18))
    names = [name for name in network.state_dict() if not name.startswith("backbone.")]
    assert names == [f"head.branches.{branch}.{kind}" for branch in range(3) for kind in ("weight", "bias")]


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@pytest.mark.parametrize(
    ("stem", "stride", "size", "cells"),
    [
        ("caffe", 8, (512, 1024), (65, 129)),  # H // 8 + 1, as the published checkpoints
        ("torchvision", 8, (512, 1024), (64, 128)),
        ("caffe", 16, (240, 320), (16, 21)),
        ("torchvision", 16, (240, 320), (15, 20)),
        ("caffe", 8, (65, 97), (9, 13)),
        ("torchvision", 8, (65, 97), (9, 13)),
        ("caffe", 32, (64, 64), (3, 3)),
        ("torchvision", 32, (64, 64), (2, 2)),
        ("caffe", 8, (1, 1), (1, 1)),
    ],
)
def test_feature_sizes(backbone: str, stem: str, stride: int, size: tuple[int, int], cells: tuple[int, int]) -> None:
    with torch.device("meta"):
        network = DeepLabV2(small_spec(backbone=backbone, stem=stem, output_stride=stride)).eval()
        output = network(torch.empty(1, 3, *size))
    assert isinstance(output, SegOutput)
    assert output.features.shape == (1, network.feature_channels, *cells)
    assert output.logits.shape == (1, 5, *cells)


@pytest.mark.parametrize(
    ("backbone", "stem", "stride", "dilations"),
    list(itertools.product(["resnet18", "resnet50"], ["torchvision", "caffe"], [8, 16], [(6, 12, 18, 24), (6, 12)])),
)
@pytest.mark.parametrize("mode", ["train", "frozen"])
def test_every_parameter_gets_a_gradient(
    backbone: str, stem: str, stride: int, dilations: tuple[int, ...], mode: str
) -> None:
    network = small_network(backbone=backbone, stem=stem, output_stride=stride, dilations=dilations).train()
    network.set_batch_norm(mode)  # type: ignore[arg-type]  # both values
    side = 26 * stride  # wide enough for a tap of dilation 24
    torch.manual_seed(1)
    output = network(torch.randn(2, 3, side, side))
    (output.logits.square().mean() + output.features.mean()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@pytest.mark.parametrize("stem", ["torchvision", "caffe"])
@pytest.mark.parametrize("stride", [8, 16])
def test_giving_up_stride_for_dilation_keeps_what_is_computed(backbone: str, stem: str, stride: int) -> None:
    """The a trous rule: every (32 / stride)th cell of the dilated network is the strided network's."""
    strided = small_network(backbone=backbone, stem=stem, output_stride=32).double().eval()
    dilated = small_network(backbone=backbone, stem=stem, output_stride=stride).double().eval()
    dilated.load_state_dict(strided.state_dict())
    image = torch.randn(1, 3, 129, 161, dtype=torch.float64)
    with torch.no_grad():
        coarse, fine = strided(image).features, dilated(image).features
    step = 32 // stride
    torch.testing.assert_close(fine[:, :, ::step, ::step], coarse)


def test_the_stems_differ_where_they_should() -> None:
    image = torch.randn(1, 3, 65, 65)
    features = {}
    for stem in ("torchvision", "caffe"):
        network = small_network(backbone="resnet50", stem=stem).eval()
        assert network.backbone.maxpool.ceil_mode == (stem == "caffe")
        block = network.backbone.get_submodule("layer2.0")
        strides = [block.get_submodule(f"conv{number}").stride for number in (1, 2)]
        assert strides == ([(2, 2), (1, 1)] if stem == "caffe" else [(1, 1), (2, 2)])
        features[stem] = network(image).features
    assert not torch.allclose(features["torchvision"], features["caffe"])


def plain_reference(network: DeepLabV2, image: torch.Tensor) -> SegOutput:
    """The network as its modules would compute it one by one."""
    encoder = network.backbone
    out = encoder.maxpool(encoder.bn1(encoder.conv1(image)).relu())
    for stage in range(1, 5):
        for block in encoder.get_submodule(f"layer{stage}").children():
            shortcut = block.get_submodule("downsample")(out) if isinstance(block.downsample, nn.Module) else out
            inner = out
            count = 3 if hasattr(block, "conv3") else 2
            for number in range(1, count + 1):
                inner = block.get_submodule(f"bn{number}")(block.get_submodule(f"conv{number}")(inner))
                inner = inner.relu() if number < count else inner
            out = (inner + shortcut).relu()
    return SegOutput(torch.stack([branch(out) for branch in network.head.branches]).sum(dim=0), out)


@pytest.mark.parametrize("size", [(64, 88), (33, 40), (192, 16), (1, 1)])  # 192: 25 cells, the last tap of 24 acts
@pytest.mark.parametrize("mode", ["train", "frozen"])
@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_the_fast_paths_equal_the_plain_modules(backbone: str, mode: str, size: tuple[int, int]) -> None:
    network = small_network(backbone=backbone, stem="caffe", dilations=(1, 2, 6, 24)).double().train()
    network.set_batch_norm(mode)  # type: ignore[arg-type]  # both values
    twin = copy.deepcopy(network)
    torch.manual_seed(2)
    image = torch.randn(2, 3, *size, dtype=torch.float64)
    ours, plain = network(image), plain_reference(twin, image)
    torch.testing.assert_close(ours.features, plain.features)
    torch.testing.assert_close(ours.logits, plain.logits)
    for output in (ours, plain):
        (output.logits.square().sum() + output.features.sum()).backward()
    for (name, parameter), other in zip(network.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad, rtol=1e-7, atol=1e-9, msg=name)
    for (name, buffer), other_buffer in zip(network.named_buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(buffer, other_buffer, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(image).logits, plain_reference(twin.eval(), image).logits)


def test_the_classifier_shifts_the_right_way() -> None:
    """One tap alone copies the cell that lies a dilation away."""
    network = small_network(num_classes=1, dilations=(2,))
    features = torch.randn(1, network.feature_channels, 7, 9)
    branch = network.head.branches[0]
    for row, column in itertools.product(range(3), range(3)):
        nn.init.zeros_(branch.get_parameter("weight"))
        branch.get_parameter("weight").data[0, 0, row, column] = 1
        expected = functional.pad(features[:, :1], (2, 2, 2, 2))[
            :, :, 2 * row : 2 * row + 7, 2 * column : 2 * column + 9
        ]
        torch.testing.assert_close(network.head(features), expected, msg=f"tap {row}, {column}")


def test_an_exporter_sees_the_plain_modules() -> None:
    network = small_network(dilations=(1, 2, 3)).eval()
    image = torch.randn(1, 3, 64, 64)
    program = torch.export.export(network, (image,))
    called = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    convolutions = [name for name in called if "conv2d" in name]
    norms = [name for name in called if "batch_norm" in name]
    encoder = sum(isinstance(module, nn.Conv2d) for module in network.backbone.modules())
    assert len(convolutions) == encoder + 3
    assert len(norms) == encoder
    with torch.no_grad():
        torch.testing.assert_close(program.module()(image).logits, network(image).logits, rtol=1e-4, atol=1e-5)


def test_channels_last_gives_the_same() -> None:
    network = small_network(backbone="resnet50", stem="caffe").eval()
    image = torch.randn(2, 3, 64, 72)
    expected = network(image)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs miss it
    output = network(image.contiguous(memory_format=torch.channels_last))
    assert output.features.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output.logits, expected.logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["train", "frozen"])
def test_bfloat16_autocast_is_as_near_to_float32_as_the_plain_modules_are(mode: str) -> None:
    network = small_network(backbone="resnet50", stem="caffe", width=0.25).train()
    network.set_batch_norm(mode)  # type: ignore[arg-type]  # both values
    torch.manual_seed(3)
    image = torch.randn(2, 3, 64, 64)
    expected = network(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output, plain = network(image), plain_reference(network, image)
    assert output.logits.dtype == torch.float32
    assert output.features.dtype == torch.bfloat16
    for ours, theirs, reference in zip(output, plain, expected, strict=True):
        error, usual = (ours.float() - reference).norm(), (theirs.float() - reference).norm()
        assert error < 1.5 * usual  # random weights amplify: .2-.4 here; the real network is .03 off both ways


def test_a_whole_network_in_half_precision_answers_in_it() -> None:
    network = small_network().bfloat16()
    assert network(torch.randn(1, 3, 32, 32).bfloat16()).logits.dtype == torch.bfloat16


def test_features_are_not_negative() -> None:
    assert small_network()(torch.randn(1, 3, 64, 64)).features.min() >= 0


def test_batch_norm_modes_survive_train_and_eval() -> None:
    network = small_network().train()
    image = torch.randn(2, 3, 64, 64)
    assert network.batch_norm == "train"
    state = {name: value.clone() for name, value in network.state_dict().items()}
    network.set_batch_norm("frozen")
    for _ in range(2):
        network.eval()
        network.train()
        assert network.training
        assert network.head.training
        network(image)
    assert all(not module.training for module in network.modules() if isinstance(module, _BatchNorm))
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    network.set_batch_norm("train")
    network(image)
    assert not torch.equal(network.state_dict()["backbone.bn1.running_mean"], state["backbone.bn1.running_mean"])
    assert all(module.training for module in network.modules())
    network.eval()
    network.set_batch_norm("train")
    assert not any(module.training for module in network.modules())


def test_synchronised_batch_norm_freezes_too() -> None:
    network = nn.SyncBatchNorm.convert_sync_batchnorm(small_network())  # type: ignore[no-untyped-call]  # torch has no types there
    network.set_batch_norm("frozen")
    network.train()
    norms = [module for module in network.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert norms
    assert not any(norm.training for norm in norms)
    network(torch.randn(2, 3, 32, 32)).logits.sum().backward()


def test_an_unknown_batch_norm_mode_is_an_error() -> None:
    with pytest.raises(ValueError, match="allowed: train, frozen"):
        small_network().set_batch_norm("target")  # type: ignore[arg-type]  # that is the test


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_parameter_groups_hold_each_parameter_once(backbone: str) -> None:
    network = small_network(backbone=backbone)
    groups = network.parameter_groups()
    assert list(groups) == ["stem", "backbone", "head"]
    identities = [id(parameter) for group in groups.values() for parameter in group]
    assert len(identities) == len(set(identities))
    assert set(identities) == {id(parameter) for parameter in network.parameters()}
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    assert {names[id(item)] for item in groups["stem"]} == {
        "backbone.conv1.weight", "backbone.bn1.weight", "backbone.bn1.bias"
    }  # fmt: skip
    assert all(names[id(item)].startswith("head.") for item in groups["head"])
    assert all(names[id(item)].startswith("backbone.layer") for item in groups["backbone"])


def test_the_classifier_starts_as_deeplabs() -> None:
    torch.manual_seed(0)
    network = DeepLabV2(NetworkSpec(backbone="resnet18"))
    for branch in network.head.branches:
        assert branch.get_parameter("weight").std().item() == pytest.approx(0.01, rel=0.02)
        assert not branch.get_parameter("bias").any()


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 32, 32), (1, 32, 32, 3)])
def test_an_image_of_another_shape_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[B,3,H,W\]"):
        small_network()(torch.zeros(shape))


def test_a_seed_decides_the_weights() -> None:
    first, second, other = small_network(1), small_network(1), small_network(2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.backbone.conv1.weight, other.backbone.conv1.weight)


_NARROW = """
import torch
from lsr_train.network import DeepLabV2, NetworkSpec
for seed, size in enumerate((512, 384)):
    torch.manual_seed(seed)
    network = DeepLabV2(NetworkSpec(backbone="resnet18", width=0.125)).to(memory_format=torch.channels_last).train()
    for bf16 in (False, True):
        image = torch.randn(4, 3, size, size).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = network(image).logits
        logits.float().square().mean().backward()
"""


def test_a_narrow_network_in_channels_last_stays_within_its_memory() -> None:
    """In a process of its own, with glibc's checks of each freed block."""
    environment = os.environ | {"MALLOC_CHECK_": "3", "MALLOC_PERTURB_": "165"}
    done = subprocess.run([sys.executable, "-c", _NARROW], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr


def test_dropping_pixels_first_is_the_strided_projection() -> None:
    convolution, norm = nn.Conv2d(8, 16, 1, stride=2, bias=False).double(), nn.BatchNorm2d(16).double()
    image = torch.randn(2, 8, 9, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for mode in (True, False):
        norm.train(mode)
        torch.testing.assert_close(normalised(convolution, norm, image), norm(convolution(image)))
