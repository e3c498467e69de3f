"""A student and its teacher: who sees what, what a checkpoint says of both, and a teacher that is not the one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from torch.nn import functional

from lsr_infer import Segmenter
from lsr_infer.errors import InputError, UsageError
from lsr_infer.labelspace import LabelSpace
from lsr_train.commands.dispatch import evaluate
from lsr_train.config.data import DataConfig, SourceConfig, TargetConfig
from lsr_train.config.run import Config
from lsr_train.config.training import DistillConfig, NetworkConfig, SelfTrainingConfig, StrongConfig, WeightsConfig
from lsr_train.data.labels import CAMVID_11, CITYSCAPES_19
from lsr_train.data.samples import LabelledBatch, UnlabelledBatch
from lsr_train.engine.setup import load_teacher, with_teacher_hash
from lsr_train.exporting import export
from lsr_train.losses.pixel import upsample
from lsr_train.methods.distill import Distill
from lsr_train.network import DeepLabV2
from lsr_train.runs.checkpoint import ModelInfo, TeacherFacts, load_model, model_hash, save_model
from lsr_train.selftraining import FrozenTeacher
from tests.lsr_train.latent.oracles import (
    histogram_oracle,
    mean_direction_oracle,
    prototype_cross_entropy_oracle,
    pseudo_label_oracle,
)
from tests.lsr_train.network.small import small_network
from tests.lsr_train.network.test_weights import adaptsegnet_weights
from tests.lsr_train.training_runs import run_here, words

CPU = torch.device("cpu")
STILL = StrongConfig(probability=0.0, blur=0.0)
CLASSES = 5


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher's run folder."""
    run = tmp_path_factory.mktemp("teacher") / "run"
    assert run_here("pretrain", words("toytown_source", run, "--selection.signal", "flip")) == 0
    return run


@pytest.fixture(scope="module")
def student(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student's run folder; its teacher's file is a copy of its own, which the tests may spoil."""
    folder = tmp_path_factory.mktemp("student")
    shutil.copytree(teacher / "checkpoints/step-6", folder / "teacher")
    more = ["--network.width", "0.0625", "--size", "96x48"]
    assert run_here("distill", [str(folder / "teacher"), *words("toytown_distill", folder / "run"), *more]) == 0
    return folder / "run"


def model(run: Path) -> Path:
    return run / "checkpoints/step-6/model.safetensors"


# -- what a step computes ---------------------------------------------------------------------------------------------


class Recording:
    """A network that keeps the images it was given."""

    def __init__(self, network: DeepLabV2) -> None:
        self.network, self.images = network.eval(), []  # type: list[Tensor]

    def __call__(self, image: Tensor) -> Any:
        self.images.append(image)
        return self.network(image)


def a_step(
    config: Config, student: DeepLabV2, teacher: DeepLabV2, *, mask: Tensor | None = None
) -> tuple[dict[str, Tensor], list[Tensor], tuple[Tensor, Tensor], Tensor]:
    """Return the terms of one step, the student's images, the frames of both domains, and the source's labels."""
    generator = torch.Generator().manual_seed(2)
    source, target = (torch.randint(0, 256, (2, 32, 48, 3), generator=generator).float() for _ in range(2))
    labels = torch.randint(0, CLASSES, (2, 4, 6), generator=generator).repeat_interleave(8, 1).repeat_interleave(8, 2)
    labels[:, :3] = 255
    method = Distill(config, CLASSES, student.feature_channels)
    method.start(student)
    method.take_teacher(FrozenTeacher(teacher))
    method.begin(0, 0)
    network = Recording(student)
    terms = method.terms(
        network,
        LabelledBatch(image=student.normalize(source), labels=labels, files=("a", "b")),
        UnlabelledBatch(image=student.normalize(target), mask=mask, files=("c", "d")),
    )
    return terms, network.images, (source, target), labels


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it() -> None:
    config = Config(
        method="distill", strong=STILL, weights=WeightsConfig(distill=1.0), self_training=SelfTrainingConfig(mix="none")
    )
    network = small_network(num_classes=CLASSES)
    terms, _, _, _ = a_step(config, network, network)
    assert set(terms) == {"cross_entropy", "distill_source", "distill_target"}
    for name in ("distill_source", "distill_target"):
        assert terms[name].item() == pytest.approx(0, abs=1e-5)
    other, _, _, _ = a_step(config, network, small_network(1, num_classes=CLASSES))
    assert other["distill_source"] > 0.01
    assert other["distill_target"] > 0.01


def test_the_teacher_sees_the_frames_in_its_own_normalisation_and_the_student_sees_them_augmented() -> None:
    strong = StrongConfig(probability=1.0, brightness=0.5, blur=0.0)
    config = Config(method="distill", strong=strong, weights=WeightsConfig(distill=1.0))
    teacher = small_network(1, num_classes=CLASSES, normalization="caffe-bgr")
    seen: list[Tensor] = []
    teacher.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    student = small_network(num_classes=CLASSES)
    _, images, (source, target), _ = a_step(config, student, teacher)
    assert len(seen) == 2
    for frames in (source, target):
        nearest = min((image - teacher.normalize(frames)).abs().max().item() for image in seen)
        assert nearest == pytest.approx(0, abs=1e-3)  # levels
    assert all((image - student.normalize(source)).abs().mean() > 0.05 for image in images)
    assert all(not parameter.requires_grad for parameter in teacher.parameters())


def test_the_teachers_opinion_is_pasted_as_the_images_are() -> None:
    config = Config(method="distill", strong=STILL, weights=WeightsConfig(distill=1.0))
    student, teacher = (small_network(seed, num_classes=CLASSES).eval() for seed in (0, 1))
    terms, images, (source, target), labels = a_step(config, student, teacher)
    mixed = images[1]
    pasted = (mixed - student.normalize(source)).abs().amax(dim=1) < 1e-3  # [B,H,W]
    assert (pasted | ((mixed - student.normalize(target)).abs().amax(dim=1) < 1e-3)).all()
    assert 0.1 < pasted.float().mean() < 0.9
    assert not (pasted & (labels == 255)).any()
    with torch.no_grad():
        of_source, of_target = (upsample(teacher(teacher.normalize(f)).logits, (32, 48)) for f in (source, target))
        expected = torch.where(pasted[:, None], of_source, of_target).log_softmax(1)
        found = upsample(student(mixed).logits, (32, 48)).log_softmax(1)
    divergence = functional.kl_div(found, expected, reduction="none", log_target=True).sum(1)
    assert terms["distill_target"].item() == pytest.approx(divergence.mean().item(), rel=1e-4)


def test_masked_and_void_pixels_teach_nothing() -> None:
    config = Config(
        method="distill", strong=STILL, self_training=SelfTrainingConfig(mix="none"),
        weights=WeightsConfig(distill=1.0, self_training=1.0),
    )  # fmt: skip
    student, teacher = (small_network(seed, num_classes=CLASSES).eval() for seed in (0, 1))
    mask = torch.ones(2, 32, 48, dtype=torch.bool)
    mask[:, :, :20] = False
    mask[:, 24:] = False
    terms, _, frames, labels = a_step(config, student, teacher, mask=mask)
    for name, levels, counted in (("source", frames[0], labels != 255), ("target", frames[1], mask)):
        with torch.no_grad():
            own, other = (
                upsample(network(network.normalize(levels)).logits, (32, 48)).log_softmax(1)
                for network in (student, teacher)
            )
        divergence = functional.kl_div(own, other, reduction="none", log_target=True).sum(1)[counted]
        assert terms[f"distill_{name}"].item() == pytest.approx(divergence.mean().item(), rel=1e-4)


def test_the_constraints_take_cells_whose_mean_probability_is_high() -> None:
    config = Config(
        method="distill", strong=STILL, self_training=SelfTrainingConfig(mix="none"),
        weights=WeightsConfig(distill=1.0, prototype=1.0),
    )  # fmt: skip
    student, teacher = (small_network(seed, num_classes=CLASSES).eval() for seed in (0, 1))
    counts = torch.ones(2, 32, 48, dtype=torch.bool)
    counts[:, 24:] = False
    terms, (source, target), frames, labels = a_step(config, student, teacher, mask=counts)
    with torch.no_grad():
        of_source, of_target = student(source).features.double(), student(target).features.double()
        logits = upsample(teacher(teacher.normalize(frames[1])).logits, (32, 48))
    source_cells = histogram_oracle(labels, (4, 6), CLASSES, 0.5)
    cells = pseudo_label_oracle(logits, (4, 6), 0.5, 0.5, counts)
    assert 0 < (cells != 255).sum() < 2 * 3 * 6
    prototypes, seen = mean_direction_oracle(of_source, source_cells, CLASSES)
    expected = prototype_cross_entropy_oracle(of_target, cells, prototypes, seen, 0.1)
    assert terms["prototype_target"].item() == pytest.approx(expected.item(), rel=1e-3)


def test_the_teacher_may_look_at_its_own_size(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    network = small_network(num_classes=11)
    save_model(path, network, ModelInfo(label_space=CAMVID_11, height=64, width=96))
    data = DataConfig(source=SourceConfig(height=32, width=64), target=TargetConfig(root="x", height=32, width=64))
    config = Config(
        method="distill", data=data, distill=DistillConfig(teacher=str(path), teacher_size="own"),
        weights=WeightsConfig(distill=1.0),
    )  # fmt: skip
    found = load_teacher(with_teacher_hash(config), CAMVID_11, CPU)
    assert found is not None
    frames = torch.randint(0, 256, (2, 16, 32, 3)).float()  # a crop: half of the data's size, so half of the teacher's
    larger = functional.interpolate(frames.permute(0, 3, 1, 2), size=(32, 48), mode="bilinear").permute(0, 2, 3, 1)
    network.eval()
    torch.testing.assert_close(found[0].logits(frames), network(network.normalize(larger)).logits)
    save_model(path, network, ModelInfo(label_space=CAMVID_11))
    with pytest.raises(UsageError, match="teacher_size student"):
        load_teacher(with_teacher_hash(config), CAMVID_11, CPU)


@pytest.mark.parametrize(("stated", "read"), [((), (6, 12)), ((6, 12, 18, 24), (6, 12, 18, 24))])
def test_a_published_teacher_has_the_dilations_that_are_stated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, stated: tuple[int, ...], read: tuple[int, ...]
) -> None:
    path = tmp_path / "published.pth"
    torch.save(adaptsegnet_weights()[0], path)
    space = LabelSpace(name="five", names=tuple("abcde"), colors=tuple((0, 0, index) for index in range(5)))
    settings = DistillConfig(teacher=str(path), teacher_dilations=stated)
    config = Config(method="distill", distill=settings, weights=WeightsConfig(distill=1.0))
    found = load_teacher(with_teacher_hash(config), space, CPU)
    assert found is not None
    assert found[0].network.spec.dilations == read
    assert ("Set --distill.teacher_dilations '[6, 12, 18, 24]'" in caplog.text) == (not stated)


# -- what a run writes ------------------------------------------------------------------------------------------------


def test_a_student_names_its_teacher_and_both_scores(student: Path) -> None:
    _, of_teacher = load_model(student.parent / "teacher/model.safetensors")
    network, info = load_model(model(student))
    assert of_teacher.scores["label_free_flip"] > 0
    assert info.teacher == TeacherFacts(
        sha256=model_hash(student.parent / "teacher/model.safetensors"),
        method="source-only", step=6, scores=of_teacher.scores,
    )  # fmt: skip
    assert (info.method, info.step, info.height, info.width) == ("distill", 6, 48, 96)
    assert info.scores["label_free_flip"] > 0
    assert network.spec.width == 0.0625
    assert of_teacher.teacher is None


def test_no_checkpoint_holds_the_teacher(student: Path) -> None:
    with safe_open(student / "checkpoints/step-6/state.safetensors", framework="pt") as file:
        names = list(file.keys())
    assert not [name for name in names if "teacher" in name]
    assert not [name for name in names if name.startswith("method.") and "prototypes" not in name]


def test_a_student_is_scored_exported_and_adapted_like_any_other(student: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    data = ["--layout", "toytown-camera", "--split", "val", "--limit", "2", "--height", "48", "--width", "96"]
    evaluate([str(student), *data, "--out", str(out)])
    assert json.loads(out.read_text(encoding="utf-8"))["model"]["sha256"] == model_hash(model(student))
    export(model(student), tmp_path / "student.onnx")
    with Segmenter(tmp_path / "student.onnx") as segmenter:
        assert segmenter.manifest.checkpoint == model_hash(model(student))
        assert segmenter.manifest.method == "distill"
        assert segmenter.manifest.teacher == load_model(model(student))[1].teacher
        assert segmenter.manifest.label_space == CITYSCAPES_19
    more = ["--init", str(student), "--network.width", "0.0625"]
    assert run_here("adapt", words("toytown_self_training", tmp_path / "adapted", *more)) == 0


def test_a_changed_or_missing_teacher_stops_a_resumed_run(
    student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = student.parent / "teacher/model.safetensors"
    kept = shutil.copy(file, tmp_path / "kept")
    try:
        assert run_here("distill", ["--resume", str(student)]) == 0
        network, info = load_model(file)
        with torch.no_grad():
            next(network.parameters())[0] += 1
        save_model(file, network, info)
        assert run_here("distill", ["--resume", str(student)]) == 4
        assert f"SHA-256 begins {model_hash(file)[:12]}" in capsys.readouterr().err
        file.unlink()
        assert run_here("distill", ["--resume", str(student)]) == 4
        assert f"{file}: there is no such file" in capsys.readouterr().err
    finally:
        shutil.copy(kept, file)


@pytest.mark.parametrize("named", [True, False])
def test_a_teacher_of_other_classes_is_an_input_error(
    named: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "teacher.safetensors"
    space = CAMVID_11 if named else None
    save_model(path, small_network(num_classes=11), ModelInfo(label_space=space, height=48, width=96))
    more = ["--network.weights", "missing.pth"]  # the classes are compared before weights are fetched or read
    assert run_here("distill", [str(path), *words("toytown_distill", tmp_path / "run", *more)]) == 4
    message = capsys.readouterr().err
    assert "cityscapes19" in message
    assert "--label_space" in message
    assert not (tmp_path / "run").exists()


def test_a_student_of_no_published_width_starts_from_scratch_only_if_told(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--network.weights", "imagenet"]
    assert run_here("distill", [str(teacher), *words("toytown_distill", tmp_path / "run", *more)]) == 4
    assert "--network.weights to a file or to none" in capsys.readouterr().err
    assert Config(network=NetworkConfig()).network.weights == "imagenet"


def test_a_student_as_deep_as_its_teacher_may_start_from_its_channels(teacher: Path, tmp_path: Path) -> None:
    more = ["--network.width", "0.0625", "--network.weights", "teacher", "--train.steps", "1", "--optim.lr", "1e-9"]
    assert run_here("distill", [str(teacher), *words("toytown_distill", tmp_path / "run"), *more]) == 0
    student, _ = load_model(tmp_path / "run/checkpoints/step-1/model.safetensors")
    wide, _ = load_model(model(teacher))
    torch.testing.assert_close(student.backbone.conv1.weight, wide.backbone.conv1.weight, rtol=0, atol=1e-6)
    own = student.state_dict()["backbone.layer2.0.conv2.weight"].flatten(1)  # [8,72] of [16,144]
    of_teacher = wide.state_dict()["backbone.layer2.0.conv2.weight"].flatten(1)
    assert len(own) == 8
    for row in own:  # every weight is one of the teacher's, all of an output channel from one of its channels
        shares = torch.stack(
            [torch.isclose(row[:, None], other, atol=1e-6).any(dim=1).float().mean() for other in of_teacher]
        )
        assert shares.max() == 1


@pytest.mark.parametrize(
    ("more", "said"), [(["--network.backbone", "resnet34"], "backbone"), (["--network.width", "0.5"], "width of 0.5")]
)
def test_another_kind_of_student_cannot_start_from_its_teacher(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    asked = [str(teacher), *words("toytown_distill", tmp_path / "run"), "--network.weights", "teacher", *more]
    assert run_here("distill", asked) == 4
    error = capsys.readouterr().err
    assert said in error
    assert "--network.stem torchvision" in error


@pytest.mark.parametrize(
    ("more", "said"), [(["--network.batch_norm", "frozen"], "batch_norm is frozen"), (["--init", "x"], "init x")]
)
def test_what_a_start_from_the_teacher_rules_out(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], said: str
) -> None:
    asked = [str(teacher), *words("toytown_distill", tmp_path / "run"), "--network.weights", "teacher", *more]
    assert run_here("distill", asked) == 2
    assert said in capsys.readouterr().err


def test_only_a_student_has_a_teacher_to_start_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = words("toytown_source", tmp_path / "run", "--network.weights", "teacher")
    assert run_here("pretrain", asked) == 2
    assert "network.weights is teacher" in capsys.readouterr().err


def test_the_configuration_is_the_one_of_a_very_file(teacher: Path) -> None:
    config = Config(method="distill", distill=DistillConfig(teacher=str(teacher)), weights=WeightsConfig(distill=1.0))
    found = with_teacher_hash(config).distill
    assert found.sha256 == model_hash(Path(found.teacher))
    assert Path(found.teacher).name == "model.safetensors"
    with pytest.raises(InputError, match="begins"):
        with_teacher_hash(replace(config, distill=DistillConfig(teacher=str(teacher), sha256="0" * 64)))
    assert with_teacher_hash(Config()) == Config()
