import dataclasses
import errno
import json
import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import lsr_train.runs.checkpoint as checkpoint
from lsr_infer.errors import InputError, UsageError
from lsr_infer.io.digests import BLANK, seal, stated_digest
from lsr_infer.labelspace import LabelSpace
from lsr_train.network import DeepLabV2
from lsr_train.runs.checkpoint import ModelInfo, load_model, model_hash, save_model, save_tensors
from tests.lsr_train.network.small import small_network
from tests.lsr_train.network.test_weights import adaptsegnet_weights

SPACE = LabelSpace(
    name="five",
    names=("road", "sky", "tree", "car", "façade"),
    colors=((1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12), (13, 14, 15)),
    subsets={"two": (0, 1)},
)


@pytest.fixture
def info() -> ModelInfo:
    return ModelInfo(
        label_space=SPACE, method="lsr", step=300, height=240, width=320, scores={"flip": 0.5, "miou": 0.25}
    )


@pytest.fixture
def model(tmp_path: Path, info: ModelInfo) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(path, small_network(), info)
    return path


def same_weights(first: DeepLabV2, second: DeepLabV2) -> bool:
    ours, theirs = first.state_dict(), second.state_dict()
    return list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("mode", ["train", "frozen"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"backbone": "resnet50", "stem": "caffe", "output_stride": 16}, {"normalization": "caffe-bgr", "width": 0.3}],
)
def test_what_is_saved_is_read_back(changes: dict[str, Any], mode: str, tmp_path: Path, info: ModelInfo) -> None:
    network = small_network(4, **changes).train()
    network.set_batch_norm(mode)  # type: ignore[arg-type]  # both values
    save_model(tmp_path / "model.safetensors", network, info)
    loaded, facts = load_model(tmp_path / "model.safetensors")
    assert facts == info
    assert loaded.spec == network.spec
    assert loaded.batch_norm == mode
    assert not loaded.training
    assert same_weights(loaded, network)
    image = torch.randn(1, 3, 64, 64)
    assert torch.equal(loaded(image).logits, network.eval()(image).logits)


def test_memory_layout_does_not_matter(tmp_path: Path, info: ModelInfo) -> None:
    network = small_network()
    save_model(tmp_path / "first.safetensors", network, info)
    save_model(tmp_path / "second.safetensors", network.to(memory_format=torch.channels_last), info)  # type: ignore[call-overload]  # torch's stubs miss it
    assert (tmp_path / "first.safetensors").read_bytes() == (tmp_path / "second.safetensors").read_bytes()


def test_equal_models_are_equal_files_and_others_are_not(tmp_path: Path, info: ModelInfo) -> None:
    paths = [tmp_path / f"{index}.safetensors" for index in range(3)]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        save_model(path, small_network(seed), info)
    hashes = [model_hash(path) for path in paths]
    assert hashes[0] == hashes[1] != hashes[2]
    assert len(hashes[0]) == 64


def test_reading_and_writing_draw_no_random_numbers(model: Path, tmp_path: Path, info: ModelInfo) -> None:
    before = torch.get_rng_state()
    network, _ = load_model(model)
    save_model(tmp_path / "again.safetensors", network, info)
    assert torch.equal(torch.get_rng_state(), before)
    assert model_hash(tmp_path / "again.safetensors") == model_hash(model)


def test_the_header_says_what_a_reader_needs_and_no_path(model: Path) -> None:
    data = model.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    document = json.loads(header["__metadata__"]["lsr_road"])
    assert document["format"] == 2
    assert document["normalization"] == {
        "channel_order": "rgb", "scale": 1 / 255, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]
    }  # fmt: skip
    assert document["network"]["backbone"] == "resnet18"
    assert document["info"]["label_space"]["names"] == list(SPACE.names)
    assert document["info"]["licence"]
    assert document["info"]["intended_use"]
    assert str(model.parent) not in json.dumps(header)


def test_an_existing_file_is_replaced_whole(model: Path, info: ModelInfo) -> None:
    save_model(model, small_network(8), info)
    assert same_weights(load_model(model)[0], small_network(8))
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_a_failing_write_leaves_the_old_file(model: Path, info: ModelInfo, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(checkpoint, "save_tensors", full)
    with pytest.raises(InputError, match="the disk is full"):
        save_model(model, small_network(8), info)
    assert model.read_bytes() == before
    assert [path.name for path in model.parent.iterdir()] == [model.name]


def test_a_missing_folder_is_one_line(tmp_path: Path, info: ModelInfo) -> None:
    with pytest.raises(InputError, match="the folder does not exist"):
        save_model(tmp_path / "none" / "model.safetensors", small_network(), info)


def test_contradictions_are_refused_on_writing(tmp_path: Path, info: ModelInfo) -> None:
    with pytest.raises(ValueError, match="7 classes, five 5"):
        save_model(tmp_path / "model.safetensors", small_network(num_classes=7), info)
    with pytest.raises(ValueError, match="JSON"):
        save_model(tmp_path / "m.safetensors", small_network(), dataclasses.replace(info, scores={"a": float("nan")}))
    assert list(tmp_path.iterdir()) == []


def rewrite(path: Path, change: dict[str, Any] | str | None, **tensors: torch.Tensor | None) -> Path:
    """Write the model again with another description or other tensors, without a digest."""
    weights: dict[str, torch.Tensor | None] = {**load_file(path), **tensors}
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    text = json.loads(data[8 : 8 + length])["__metadata__"]["lsr_road"]
    if not isinstance(change, str):
        document = json.loads(text)
        del document["digest"]
        document["format"] = 1  # as in 0.1.0
        for key, value in (change or {}).items():
            place = document
            *parents, last = key.split(".")
            for parent in parents:
                place = place[parent]
            place[last] = value
        text = json.dumps(document)
    else:
        text = change
    kept = {name: value for name, value in weights.items() if value is not None}
    save_file(kept, path, metadata={"lsr_road": text})
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 3}, "format 3; this version reads up to 2"),
        ({"format": "1"}, "format 1; this version reads up to 2"),
        ({"network": None}, "a network is described by"),
        ({"network.backbone": "vgg16"}, "backbone is 'vgg16'"),
        ({"network.num_classes": 19}, "19 classes in the network and 5 in its label space"),
        ({"network.num_classes": 10**9}, "num_classes is 1000000000"),
        ({"network.width": 1.0}, "of another shape"),
        ({"network.backbone": "resnet34"}, "missing: backbone.layer1.2"),
        ({"normalization": {}}, "contradicts itself"),
        ({"normalization.mean": [0, 0, 0]}, "contradicts itself"),
        ({"batch_norm": "later"}, "contradicts itself"),
        ({"info": {}}, "description is damaged"),
        ({"info.step": "many"}, "description is damaged"),
        ({"info.scores": [1]}, "description is damaged"),
        ({"info.label_space": {}}, "no label space"),
        ({"info.label_space.names": ["a"]}, "1 names and 5 colours"),
        ("not json", "description is damaged"),
        ("[]", "description is damaged"),
        ("null", "description is damaged"),
        ("[" * 100_000, "description is damaged"),
        ("{}", "description is damaged"),
    ],
)
def test_a_damaged_description_is_one_line(model: Path, change: dict[str, Any] | str, message: str) -> None:
    rewrite(model, change)
    with pytest.raises(InputError) as caught:
        load_model(model)
    text = str(caught.value)
    assert text.startswith(f"{model}: ")
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"head.branches.1.bias": None}, "1 missing: head.branches.1.bias"),
        ({"extra": torch.zeros(2)}, "1 unexpected: extra"),
        ({"head.branches.0.bias": torch.zeros(6)}, "head.branches.0.bias 6 instead of 5"),
        ({"head.branches.0.bias": torch.full((5,), float("nan"))}, "not finite: head.branches.0.bias"),
    ],
)
def test_weights_that_do_not_fit_are_named(model: Path, tensors: dict[str, Any], message: str) -> None:
    rewrite(model, None, **tensors)
    with pytest.raises(InputError) as caught:
        load_model(model)
    assert message in str(caught.value)


def test_truncated_and_foreign_files_are_one_line_each(model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    contents = {f"cut{share}": data[: int(len(data) * share)] for share in (0, 0.0001, 0.01, 0.5, 0.9999)}
    contents |= {"longer": data + b"x", "text": b"hello" * 100, "huge_header": struct.pack("<Q", 2**62) + data[8:]}
    contents |= {"zeros": bytes(1000), "archive": b"PK\x03\x04" + data}
    for name, content in contents.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(content)
        with pytest.raises(InputError) as caught:
            load_model(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_random_damage_of_the_header_is_refused_or_harmless(model: Path, tmp_path: Path) -> None:
    data = model.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    generator = np.random.default_rng(0)
    path = tmp_path / "noise.safetensors"
    for _ in range(60):
        noisy = bytearray(data)
        for at in generator.integers(0, 8 + length, 3):
            noisy[at] = int(generator.integers(0, 256))
        path.write_bytes(bytes(noisy))
        with suppress(InputError):
            load_model(path)


def test_weights_without_a_description_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bare.safetensors"
    save_file(dict(small_network().state_dict()), path)
    with pytest.raises(InputError, match="no description of a model of this project"):
        load_model(path)
    save_file(dict(small_network().state_dict()), path, metadata={"format": "pt"})
    with pytest.raises(InputError, match="no description of a model of this project"):
        load_model(path)


def test_what_is_not_there_or_a_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        load_model(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="is a folder"):
        load_model(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        model_hash(tmp_path / "none.safetensors")


def test_a_foreign_checkpoint_says_what_it_is(tmp_path: Path) -> None:
    weights, network = adaptsegnet_weights()
    torch.save({"state_dict": weights, "best_MIou": np.float64(0.4)}, tmp_path / "best.pth")
    found, info = load_model(tmp_path / "best.pth")
    assert found.spec == network.spec
    assert info.label_space is None
    assert "AdaptSegNet" in info.origin


@pytest.mark.parametrize(
    ("dilations", "sure", "read", "warned"),
    [
        (None, True, (6, 12), True), ((6, 12), True, (6, 12), False), ((6, 12, 18, 24), True, (6, 12, 18, 24), False),
        ((6, 12, 18, 24), False, (6, 12, 18, 24), True),
    ],
)  # fmt: skip
def test_what_a_foreign_name_does_not_tell_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, dilations: Any, sure: bool, read: tuple[int, ...], warned: bool
) -> None:
    weights, _ = adaptsegnet_weights("layer6")
    torch.save(weights, tmp_path / "best.pth")
    found, _ = load_model(tmp_path / "best.pth", dilations=dilations, sure=sure, option="--x")
    assert found.spec.dilations == read
    shown = ", ".join(map(str, read))
    assert ("do not tell how many of the 4 dilations of layer6 are summed" in caplog.text) == warned
    assert (f"read with {shown}. Set --x '[6, 12, 18, 24]' or '[6, 12]'." in caplog.text) == warned


def test_a_checkpoint_of_ours_states_its_dilations(tmp_path: Path) -> None:
    path = tmp_path / "ours.safetensors"
    save_model(path, small_network(dilations=(1, 2)), ModelInfo(label_space=None))
    assert load_model(path, dilations=(1, 2))[0].spec.dilations == (1, 2)
    assert load_model(path, dilations=(6, 12), sure=False)[0].spec.dilations == (1, 2)
    with pytest.raises(UsageError, match=r"states its dilations itself, \[1, 2\]"):
        load_model(path, dilations=(6, 12))


def test_a_foreign_checkpoint_survives_as_ours(tmp_path: Path) -> None:
    weights, _ = adaptsegnet_weights()
    torch.save(weights, tmp_path / "best.pth")
    found, info = load_model(tmp_path / "best.pth")
    save_model(tmp_path / "ours.safetensors", found, info)
    again, facts = load_model(tmp_path / "ours.safetensors")
    assert facts == info
    assert same_weights(again, found)
    assert again.batch_norm == "frozen"


def test_any_byte_that_changes_is_noticed(model: Path) -> None:
    data = model.read_bytes()
    digest = stated_digest(model)
    assert digest is not None
    start = data.index(digest.encode())
    spread = range(0, len(data), len(data) // 40)
    for place in (*spread, len(data) - 1, *range(start - 14, start + 6), start + 20):  # and its own name
        changed = bytearray(data)
        changed[place] ^= 1
        model.write_bytes(changed)
        with pytest.raises(InputError, match=r"model\.safetensors"):
            load_model(model)
    model.write_bytes(data[:-1])
    with pytest.raises(InputError, match="damaged"):
        load_model(model)
    model.write_bytes(data)
    load_model(model)


def checkpoints(tmp_path: Path, info: ModelInfo, *steps: int) -> list[Path]:
    """Write checkpoints of a run."""
    folders = [tmp_path / "checkpoints" / f"step-{step}" for step in steps]
    for folder in folders:
        folder.mkdir(parents=True)
        save_model(folder / "model.safetensors", small_network(), info)
        save_tensors(folder / "state.safetensors", {"a": torch.zeros(3)}, {"digest": BLANK})
        (folder / "state.json").write_text(json.dumps({"digest": BLANK}), encoding="utf-8")
        seal(folder / "state.json")
    return folders


def flip(path: Path, place: int = -2) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


def test_the_newest_whole_checkpoint_is_named(tmp_path: Path, info: ModelInfo) -> None:
    old, middle, new, newest = checkpoints(tmp_path, info, 8, 9, 10, 11)
    flip(newest / "model.safetensors")
    with pytest.raises(InputError, match=r"step-11/model\.safetensors: it is damaged.*step-10, the newest that is"):
        load_model(newest / "model.safetensors")
    flip(new / "state.json", 5)
    (middle / "state.safetensors").unlink()
    with pytest.raises(InputError, match="step-8, the newest"):
        load_model(newest / "model.safetensors")
    flip(old / "state.safetensors")
    with pytest.raises(InputError, match=r"Use another copy\.$"):
        load_model(newest / "model.safetensors")
