import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from lsr_infer.errors import InputError
from lsr_train.network import DeepLabV2, NetworkSpec
from lsr_train.network.weight_files import read_weights
from lsr_train.network.weights import backbone_of, load_backbone, load_backbone_weights, recognise
from tests.lsr_train.network.small import small_network


def encoder_weights(**changes: object) -> dict[str, torch.Tensor]:
    """What a torchvision file of this small encoder would hold."""
    network = small_network(7, **changes)
    weights = dict(network.backbone.state_dict())
    return weights | {"fc.weight": torch.zeros(10, network.feature_channels), "fc.bias": torch.zeros(10)}


def adaptsegnet_weights(
    head: str = "clas", *, branches: int = 4, prefix: str = "module."
) -> tuple[dict[str, torch.Tensor], DeepLabV2]:
    """A file of AdaptSegNet's line, and the network it means."""
    network = small_network(
        3, backbone="resnet50", stem="caffe", dilations=(6, 12), normalization="caffe-bgr", output_stride=8
    )
    weights = dict(network.backbone.state_dict())
    generator = torch.Generator().manual_seed(5)
    for index in range(branches):
        shape = (network.spec.num_classes, network.feature_channels, 3, 3)
        weight, bias = torch.randn(shape, generator=generator), torch.randn(shape[0], generator=generator)
        weights |= {f"{head}.conv2d_list.{index}.weight": weight, f"{head}.conv2d_list.{index}.bias": bias}
        if index < 2:
            branch = network.head.branches[index]
            branch.load_state_dict({"weight": weight, "bias": bias})
    return {prefix + name: value for name, value in weights.items()}, network.eval()


def same_output(first: DeepLabV2, second: DeepLabV2) -> bool:
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 50
    with torch.no_grad():
        return torch.equal(first.eval()(image).logits, second.eval()(image).logits)


# -- the encoder ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"state_dict": w}, lambda w: {"model": w, "epoch": 3}])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_torchvision_file_fills_the_encoder(
    backbone: str, wrap: Callable[[Any], Any], prefix: str, tmp_path: Path
) -> None:
    weights = encoder_weights(backbone=backbone)
    path = tmp_path / "weights.pth"
    torch.save(wrap({prefix + name: value for name, value in weights.items()}), path)
    network = small_network(backbone=backbone)
    head = {name: value.clone() for name, value in network.head.state_dict().items()}
    assert load_backbone(network, path) == "from weights.pth without its fc"
    for name, value in network.backbone.state_dict().items():
        assert torch.equal(value, weights[name]), name
    assert all(torch.equal(value, head[name]) for name, value in network.head.state_dict().items())


def test_safetensors_and_our_own_checkpoint_fill_it_too(tmp_path: Path) -> None:
    other = small_network(9)
    save_file(dict(other.state_dict()), tmp_path / "own.safetensors")
    save_file(dict(other.backbone.state_dict()), tmp_path / "encoder.safetensors")
    for name in ("own.safetensors", "encoder.safetensors"):
        network = small_network()
        assert load_backbone_weights(network, str(tmp_path / name)) == f"from {name}"
        assert all(
            torch.equal(a, b)
            for a, b in zip(network.backbone.state_dict().values(), other.backbone.state_dict().values(), strict=True)
        )


def test_files_older_than_the_step_counters_load(tmp_path: Path) -> None:
    weights = {name: value for name, value in encoder_weights().items() if "num_batches" not in name}
    torch.save(weights, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    network = small_network()
    load_backbone(network, tmp_path / "old.pth")
    assert torch.equal(network.backbone.bn1.bias, weights["bn1.bias"])


def test_missing_unexpected_and_misshapen_keys_are_listed_and_nothing_changes(tmp_path: Path) -> None:
    weights = encoder_weights()
    del weights["layer2.0.bn1.weight"]
    weights["layer5.surprise"] = torch.zeros(1)
    weights["conv1.weight"] = torch.zeros(64, 4, 7, 7)
    weights["layer1.0.conv1.weight"] = torch.zeros(weights["layer1.0.conv1.weight"].shape, dtype=torch.int64)
    torch.save(weights, tmp_path / "bad.pth")
    network = small_network()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_backbone(network, tmp_path / "bad.pth")
    message = str(caught.value)
    for part in ("1 missing: layer2.0.bn1.weight", "1 unexpected: layer5.surprise", "conv1.weight 64x4x7x7 instead of",
                 "1 of another type: layer1.0.conv1.weight"):  # fmt: skip
        assert part in message
    assert "\n" not in message
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_another_depth_or_width_is_named(tmp_path: Path) -> None:
    torch.save(encoder_weights(backbone="resnet34", width=0.25), tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"holds a resnet34 of width 0\.25; the network is a resnet18 of width 0\.125"):
        load_backbone(small_network(), tmp_path / "other.pth")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    weights = encoder_weights()
    weights["layer3.0.conv1.weight"] = weights["layer3.0.conv1.weight"].clone()
    weights["layer3.0.conv1.weight"][0, 0, 0, 0] = value
    torch.save(weights, tmp_path / "nan.pth")
    with pytest.raises(InputError, match=r"not finite: layer3\.0\.conv1\.weight"):
        load_backbone(small_network(), tmp_path / "nan.pth")


def test_the_half_width_weights_load_completely(shared: Callable[[str], Path]) -> None:
    path = shared("data/weights/resnet50_thin.pth")
    network = DeepLabV2(NetworkSpec(backbone="resnet50", width=0.5, stem="caffe", normalization="caffe-bgr"))
    assert load_backbone_weights(network, str(path)) == "from resnet50_thin.pth without its fc"
    weights = torch.load(path, weights_only=True)
    state = network.backbone.state_dict()
    assert set(weights) - set(state) == {"fc.weight", "fc.bias"}
    assert all(torch.equal(value, weights[name]) for name, value in state.items())


def test_imagenet_has_no_file_of_another_width() -> None:
    with pytest.raises(InputError, match=r"no published ImageNet weights for a resnet18 of width 0\.125"):
        load_backbone_weights(small_network(), "imagenet")


# -- other programs' checkpoints --------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["clas", "layer6", "layer5"])
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_adaptsegnets_line_is_recognised(head: str, prefix: str, tmp_path: Path) -> None:
    weights, network = adaptsegnet_weights(head, prefix=prefix)
    torch.save(weights, tmp_path / "best.pth")
    found, text, doubt = recognise(tmp_path / "best.pth")
    assert "6, 12" in doubt
    assert found.spec == network.spec
    assert found.batch_norm == "frozen"
    assert not found.training
    assert same_output(found, network)
    for part in ("resnet50", "5 classes", head, "6, 12", "4 stored", "BGR"):
        assert part in text


@pytest.mark.parametrize(("main", "auxiliary", "channels"), [
    ("layer6", "layer5", 4),  # AdaptSegNet's: on the third stage
    ("layer6", "layer5", 256), ("clas", "layer6", 256), ("layer5", "layer6", 4),
])  # fmt: skip
def test_the_auxiliary_head_is_dropped_and_named(main: str, auxiliary: str, channels: int, tmp_path: Path) -> None:
    weights, network = adaptsegnet_weights(main)
    assert network.feature_channels == 256
    extra = {f"module.{auxiliary}.conv2d_list.{branch}.weight": torch.zeros(5, channels, 3, 3) for branch in range(4)}
    torch.save(extra | weights, tmp_path / "multi.pth")
    found, text, _ = recognise(tmp_path / "multi.pth")
    assert same_output(found, network)
    assert text.endswith(f"left out: {auxiliary}")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("score", [np.float64(0.4601), np.float32(0.4601), np.int64(3)])
def test_a_numpy_score_beside_the_weights_does_no_harm(score: Any, legacy: bool, tmp_path: Path) -> None:
    weights, network = adaptsegnet_weights()
    document = {"state_dict": OrderedDict(weights), "best_MIou": score, "iteration": 5, "crop_size": (1280, 720)}
    torch.save(document, tmp_path / "best.pth", _use_new_zipfile_serialization=not legacy)
    assert same_output(recognise(tmp_path / "best.pth")[0], network)


def test_numpy_1_spelled_its_modules_otherwise(tmp_path: Path) -> None:
    """Published files name numpy.core; pickle one by hand as NumPy 1 did."""
    weights, network = adaptsegnet_weights()
    path = tmp_path / "old.pth"
    torch.save({"state_dict": weights, "best_MIou": np.float64(0.46)}, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert b"cnumpy._core.multiarray\nscalar\n" in data
    path.write_bytes(data.replace(b"cnumpy._core.multiarray\nscalar\n", b"cnumpy.core.multiarray\nscalar\n"))
    assert same_output(recognise(path)[0], network)


@pytest.mark.parametrize("head", ["clas", "layer6"])
def test_advents_line_has_the_same_names_and_sums_every_branch(head: str, tmp_path: Path) -> None:
    weights, two = adaptsegnet_weights(head)
    torch.save(weights, tmp_path / "best.pth")
    found, text, doubt = recognise(tmp_path / "best.pth", dilations=(6, 12, 18, 24))
    assert "6, 12, 18, 24 (4 stored)" in text
    assert not same_output(found, two)
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = two.backbone(image)
        every = sum(
            torch.nn.functional.conv2d(
                features, weights[f"module.{head}.conv2d_list.{index}.weight"],
                weights[f"module.{head}.conv2d_list.{index}.bias"], padding=dilation, dilation=dilation,
            )
            for index, dilation in enumerate((6, 12, 18, 24))
        )  # fmt: skip
        assert torch.allclose(found(image).logits, every, rtol=1e-4, atol=1e-3)
    for part in ("all, as in ADVENT's code", "the first two, as in AdaptSegNet's", "read with 6, 12, 18, 24."):
        assert part in doubt
    with pytest.raises(InputError, match=f"{head} has 4 branches, 5 are asked for"):
        recognise(tmp_path / "best.pth", dilations=(6, 12, 18, 24, 30))


def test_two_branches_leave_no_doubt(tmp_path: Path) -> None:
    weights, network = adaptsegnet_weights(branches=2)
    torch.save(weights, tmp_path / "best.pth")
    found, _, doubt = recognise(tmp_path / "best.pth")
    assert same_output(found, network)
    assert doubt == ""


PUBLISHED = {
    "daformer": (
        ["backbone.patch_embed1.proj.weight", "decode_head.conv_seg.weight"],
        "a SegFormer, as DAFormer, HRDA",
    ),
    "daformer, as trained": (
        ["model.backbone.block1.0.norm1.weight", "ema_model.backbone.norm1.weight"],
        "a SegFormer",
    ),
    "segformer": (
        ["segformer.encoder.patch_embeddings.0.proj.weight", "decode_head.linear_c.0.proj.weight"],
        "a SegFormer",
    ),
    "mmseg v1c": (
        ["backbone.stem.0.weight", "backbone.layer1.0.conv1.weight", "decode_head.conv_seg.bias"],
        "deep stem",
    ),
    "mmseg": (["backbone.conv1.weight", "decode_head.aspp_modules.0.conv.weight"], "a network of mmsegmentation"),
    "torchvision": (
        ["backbone.conv1.weight", "classifier.0.convs.0.0.weight", "aux_classifier.0.weight"],
        "torchvision's",
    ),
    "vgg": (["features.0.weight", "classifier.conv2d_list.0.weight"], "a network on a VGG"),
    "deeplabv3+": (["backbone.conv1.weight", "aspp.aspp1.atrous_conv.weight", "decoder.conv1.weight"], "a DeepLabV3"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_others_publish_is_refused_in_a_sentence_before_the_tensors(name: str, tmp_path: Path) -> None:
    keys, what = PUBLISHED[name]
    path = tmp_path / "other.pth"
    torch.save({"state_dict": {key: torch.zeros(3) for key in keys}, "meta": {"epoch": 1}}, path)
    for read in (recognise, lambda path: load_backbone(small_network(), path)):
        with pytest.raises(InputError) as caught:
            read(path)
        message = str(caught.value)
        assert what in message
        assert message.index(what) < message.index(keys[0].removeprefix("backbone."))


def test_the_encoder_of_a_network_of_others_is_a_start_where_its_names_are_torchvisions(tmp_path: Path) -> None:
    encoder = {name: value for name, value in encoder_weights().items() if not name.startswith("fc.")}
    for heads in (["decode_head.conv_seg.weight", "auxiliary_head.convs.0.conv.weight"], ["classifier.4.weight"]):
        path = tmp_path / "whole.pth"
        torch.save(
            {f"backbone.{name}": value for name, value in encoder.items()} | {key: torch.zeros(3) for key in heads},
            path,
        )
        network = small_network()
        names = " and ".join(sorted(key.split(".")[0] for key in heads))
        assert load_backbone(network, path) == f"from whole.pth without its {names}"
        assert torch.equal(network.backbone.conv1.weight, encoder["conv1.weight"])


@pytest.mark.parametrize(
    "named",
    [
        lambda w: {f"Scale.{name}": value for name, value in w.items()},
        lambda w: {f"module.Scale.{name}": value for name, value in w.items()},
        lambda w: (
            {f"Scale.{name}": value for name, value in w.items()} | {"Scale.layer5.conv2d_list.0.bias": torch.zeros(3)}
        ),
        lambda w: w | {"layer6.conv2d_list.0.bias": torch.zeros(3)},
        lambda w: (
            {f"module.{name}": value for name, value in w.items()} | {"module.clas.conv2d_list.0.bias": torch.zeros(3)}
        ),
    ],
)
def test_a_file_of_caffes_line_asks_for_its_stem_and_normalisation(named: Callable[[Any], Any], tmp_path: Path) -> None:
    weights = encoder_weights(backbone="resnet50", stem="caffe", normalization="caffe-bgr")
    path = tmp_path / "caffe.pth"
    torch.save(named(weights), path)
    for changes in ({}, {"stem": "caffe"}, {"normalization": "caffe-bgr"}):
        network = small_network(backbone="resnet50", **changes)
        before = network.backbone.conv1.weight.clone()
        with pytest.raises(
            InputError, match=r"from Caffe.*Set --network\.stem caffe --network\.normalization caffe-bgr\."
        ):
            load_backbone(network, path)
        assert torch.equal(network.backbone.conv1.weight, before)
    network = small_network(backbone="resnet50", stem="caffe", normalization="caffe-bgr")
    load_backbone(network, path)
    assert torch.equal(network.backbone.conv1.weight, weights["conv1.weight"])
    assert backbone_of(path) == ("resnet50", 0.125, ("caffe", "caffe-bgr"))
    torch.save(weights, path)
    assert backbone_of(path) == ("resnet50", 0.125, None)


def test_missing_and_unexpected_keys_of_a_checkpoint_are_listed(tmp_path: Path) -> None:
    weights, _ = adaptsegnet_weights()
    del weights["module.layer4.2.bn3.bias"]
    weights["module.classifier.weight"] = torch.zeros(3)
    torch.save(weights, tmp_path / "best.pth")
    with pytest.raises(
        InputError, match=r"missing: backbone\.layer4\.2\.bn3\.bias; .*unexpected: backbone\.classifier"
    ):
        recognise(tmp_path / "best.pth")


def test_an_encoder_alone_is_no_checkpoint(tmp_path: Path) -> None:
    torch.save(encoder_weights(backbone="resnet50"), tmp_path / "encoder.pth")
    with pytest.raises(InputError, match=r"only an encoder \(resnet50 of width 0\.125\).*--network\.weights"):
        recognise(tmp_path / "encoder.pth")


@pytest.mark.parametrize("weights", [
    {"model.stem.weight": torch.zeros(3)},
    {"clas.conv2d_list.0.weight": torch.zeros(3)},
    {"layer1.0.conv1.weight": torch.zeros(3), "clas.conv2d_list.0.weight": torch.zeros(3)},
])  # fmt: skip
def test_an_unknown_layout_says_what_is_known(weights: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"no known layout.*AdaptSegNet"):
        recognise(tmp_path / "other.pth")


# -- hostile and broken files -----------------------------------------------------------------------------------------


class Executes:
    """Runs a command when it is unpickled."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.witness}",)


def hostile_files(folder: Path) -> dict[str, Path]:
    """Files that would run code, in every place of a checkpoint."""
    witness = folder / "witness"
    weights, _ = adaptsegnet_weights()
    documents = {
        "alone": Executes(witness),
        "beside": {"state_dict": weights, "best_MIou": Executes(witness)},
        "as_weight": {**weights, "module.conv1.weight": Executes(witness)},
        "array": {"state_dict": weights, "best_MIou": np.array([Executes(witness)], dtype=object)},
    }
    for name, document in documents.items():
        torch.save(document, folder / f"{name}.pth")
        torch.save(document, folder / f"{name}_legacy.pth", _use_new_zipfile_serialization=False)
    (folder / "plain.pth").write_bytes(pickle.dumps(documents["beside"]))
    return {path.stem: path for path in folder.glob("*.pth")}


def test_hostile_files_would_run_if_they_were_trusted(tmp_path: Path) -> None:
    path = hostile_files(tmp_path)["beside"]
    torch.load(path, weights_only=False)
    assert (tmp_path / "witness").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # of the bare pickle, by torch
@pytest.mark.parametrize("name", [
    "alone", "alone_legacy", "beside", "beside_legacy", "as_weight", "as_weight_legacy", "array",
    "array_legacy", "plain",
])  # fmt: skip
def test_a_hostile_file_runs_nothing_and_gives_one_line(name: str, tmp_path: Path) -> None:
    path = hostile_files(tmp_path)[name]
    for read in (recognise, lambda path: load_backbone(small_network(), path)):
        with pytest.raises(InputError) as caught:
            read(path)
        message = str(caught.value)
        assert "\n" not in message
        assert str(path) in message
        assert len(message) < 400
        if name != "plain":  # a bare pickle already fails as a file
            assert "could run code" in message
    assert not (tmp_path / "witness").exists()


def damaged_files(folder: Path) -> list[Path]:
    weights = encoder_weights()
    torch.save(weights, folder / "whole.pth")
    torch.save(weights, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(weights, folder / "whole.safetensors")
    paths = []
    for source in ("whole.pth", "legacy.pth", "whole.safetensors"):
        data = (folder / source).read_bytes()
        for share in (0.0, 0.001, 0.3, 0.999):
            path = folder / f"cut{share}_{source}"
            path.write_bytes(data[: int(len(data) * share)])
            paths.append(path)
    for suffix in (".pth", ".safetensors"):
        for name, content in {"text": b"hello\n" * 50, "html": b"<!DOCTYPE html>", "zeros": bytes(4096)}.items():
            path = folder / f"{name}{suffix}"
            path.write_bytes(content)
            paths.append(path)
    documents = {
        "list": [1, 2],
        "numbers": {"a": 1},
        "nothing": {},
        "tensor": torch.zeros(3),
        "nested": {"state_dict": 4},
    }
    for name, document in documents.items():
        torch.save(document, folder / f"{name}.pth")
        paths.append(folder / f"{name}.pth")
    return [*paths, folder / "absent.pth", folder]


def test_damaged_and_foreign_files_give_one_line_each(tmp_path: Path) -> None:
    paths = damaged_files(tmp_path)
    assert len(paths) == 25
    for path in paths:
        with pytest.raises(InputError) as caught:
            read_weights(path)
        message = str(caught.value)
        assert message.startswith(f"{path}: "), message
        assert "\n" not in message, message
        assert re.search(r"\. [A-Z][^.]*\.$", message), message  # ends in what to do


@pytest.mark.parametrize("seed", range(30))
def test_random_damage_is_refused_or_harmless(seed: int, tmp_path: Path) -> None:
    weights = {name: value for name, value in encoder_weights(width=0.02).items() if "layer4" not in name}
    path = tmp_path / "noise.pth"
    torch.save(weights, path, _use_new_zipfile_serialization=bool(seed % 2))
    data = bytearray(path.read_bytes())
    generator = np.random.default_rng(seed)
    for at in generator.integers(0, min(len(data), 4000), 5):  # where the pickle is
        data[at] = int(generator.integers(0, 256))
    path.write_bytes(bytes(data))
    with suppress(InputError):
        read_weights(path)
