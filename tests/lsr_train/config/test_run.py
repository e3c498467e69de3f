"""The configuration checks itself, reads back equal, and its surface is the documented one."""

import ast
import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from lsr_infer.errors import InputError, UsageError
from lsr_train.commands.dispatch import adapt, distill, expand_distill
from lsr_train.config.command_line import resolve, training_request
from lsr_train.config.data import AugmentConfig, DataConfig, SourceConfig, TargetConfig
from lsr_train.config.fields import with_fields
from lsr_train.config.recipes import config_from_text, recipe_names, recipe_path, to_yaml
from lsr_train.config.renamed import current_argv
from lsr_train.config.run import METHOD_SPECS, WEIGHT_NAMES, Config, SelectionConfig, command_of
from lsr_train.config.training import (
    DistillConfig,
    LatentConfig,
    NetworkConfig,
    OptimConfig,
    SelfTrainingConfig,
    TrainConfig,
    WeightsConfig,
)
from lsr_train.methods import method_class
from tests.lsr_train.training_runs import REPOSITORY


def leaves(node: object, prefix: str = "") -> set[str]:
    """Return the dotted names of all fields that are no section."""
    names = set()
    for field in dataclasses.fields(node):  # type: ignore[arg-type]
        value = getattr(node, field.name)
        below = f"{prefix}{field.name}"
        names |= leaves(value, f"{below}.") if dataclasses.is_dataclass(value) else {below}
    return names


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_resolves_and_reads_back_equal(name: str) -> None:
    method = yaml.safe_load(recipe_path(name).read_text(encoding="utf-8"))["method"]
    request = resolve(command_of(method), ["--recipe", name, "--target", "somewhere", "--source", "there"], None)
    assert config_from_text(to_yaml(request.config), "config.yaml") == request.config
    assert request.out == Path("runs") / name


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_has_no_unknown_key_and_says_what_it_is(name: str) -> None:
    text = recipe_path(name).read_text(encoding="utf-8")
    assert text.startswith("# ")
    known = leaves(Config())
    document = yaml.safe_load(text)

    def flat(node: dict, prefix: str = "") -> set[str]:
        names: set[str] = set()
        for key, value in node.items():
            names |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}"}
        return names

    assert flat(document) <= known


TWO_SIZES = DataConfig(
    source=SourceConfig(height=720, width=1280), target=TargetConfig(root="t", height=512, width=1024)
)


def test_a_crop_is_not_held_against_a_target_that_is_not_there() -> None:
    crop = AugmentConfig(crop_height=600, crop_width=600)
    config = Config(augment=crop, data=DataConfig(source=SourceConfig(height=720, width=1280)))
    assert (config.augment.crop_height, config.data.target.given) == (600, False)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimConfig(lr=-1), "optim.lr"),
        (lambda: OptimConfig(lr=float("nan")), "optim.lr"),
        (lambda: OptimConfig(name="adam"), "allowed: sgd, adamw"),  # type: ignore[arg-type]
        (lambda: NetworkConfig(output_stride=4), "8, 16"),
        (lambda: NetworkConfig(dilations=()), "dilations"),
        (lambda: DistillConfig(temperature=0), r"distill.temperature is 0; allowed: \(0, 100\]"),
        (lambda: OptimConfig(momentum=-1), r"optim.momentum is -1; allowed: \[0, 0.9999\]"),
        (lambda: DistillConfig(teacher_size="half"), "distill.teacher_size"),  # type: ignore[arg-type]
        (lambda: DistillConfig(sha256="abc"), "64 hexadecimal"),
        (lambda: WeightsConfig(cluster=-1), "weights.cluster"),
        (lambda: AugmentConfig(crop_height=10), "go together"),
        (lambda: AugmentConfig(scale_max=2.0), "crop_height"),
        (lambda: SelectionConfig(signal="source"), "source_split"),
        (lambda: TrainConfig(device="gpu"), "cuda"),
        (lambda: Config(method="lsr", weights=WeightsConfig(entropy=0.1)), "lsr-em have"),
        (lambda: Config(weights=WeightsConfig(cluster=0.1)), "no such term"),
        (lambda: Config(method="nonsense"), "source-only"),
        (lambda: Config(optim=OptimConfig(poly_steps=10), train=TrainConfig(steps=20)), "poly_steps"),
        (lambda: Config(augment=AugmentConfig(crop_height=2048, crop_width=64)), "leaves the source image"),
        (lambda: Config(network=NetworkConfig(forward="joint"), data=TWO_SIZES), "network.forward joint"),
        (lambda: Config(augment=AugmentConfig(crop_height=600, crop_width=600), data=TWO_SIZES), "the target image"),
    ],
)
def test_a_wrong_value_is_a_usage_error_that_names_the_field(make: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()  # type: ignore[operator]


@settings(max_examples=15)
@given(
    lr=st.floats(1e-8, 1.0), steps=st.integers(1, 10**6), seed=st.integers(0, 2**31), root=st.text(max_size=20),
    dilations=st.lists(st.integers(1, 40), min_size=1, max_size=5),
)  # fmt: skip
def test_any_configuration_reads_back_equal(lr: float, steps: int, seed: int, root: str, dilations: list[int]) -> None:
    config = Config(
        seed=seed,
        network=NetworkConfig(dilations=tuple(dilations)),
        data=DataConfig(target=TargetConfig(root=root.replace("\x00", ""))),
        optim=OptimConfig(lr=lr),
        train=TrainConfig(steps=steps),
    )
    assert config_from_text(to_yaml(config), "config.yaml") == config


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--optim.lrr", "1"], "optim.lr"),
        (["--optim.l", "1"], "optim.lr"),
        (["--recipe", "toytown_sorce"], "toytown_source"),
        (["--optim.lr", "fast"], "optim.lr"),
        (["--recipe"], "--recipe"),
        (["--train.steps", "1.5"], "train.steps"),
    ],
)
def test_a_wrong_word_is_a_usage_error_with_the_nearest_name(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve("pretrain", words, None)
    assert message in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_an_unknown_key_in_a_file_is_a_usage_error_with_the_nearest_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("optim:\n  learning_rat: 1.0e-3\n", encoding="utf-8")
    with pytest.raises(UsageError, match="learning_rat"):
        resolve("pretrain", ["--recipe", str(file)], None)


def test_a_damaged_run_configuration_is_an_input_error() -> None:
    for text in ("a: [", "optim: 3", "nonsense: 1", "", "optim: {lr: -1.0}"):
        with pytest.raises(InputError, match=r"config\.yaml"):
            config_from_text(text, "config.yaml")


def test_the_command_line_beats_the_recipe_wherever_it_stands() -> None:
    request = resolve("pretrain", ["--optim.lr", "0.5", "--recipe", "toytown_source", "--source=x"], None)
    assert request.config.optim.lr == 0.5
    assert request.config.data.source.root == "x"
    assert request.config.train.steps == 400


def test_the_default_has_the_numbers_of_my_footage_and_those_of_the_real_pair() -> None:
    default, mine, pair = (
        yaml.safe_load(recipe_path(name).read_text(encoding="utf-8"))
        for name in ("selftraining", "my_footage", "streets_camvid_lsr_st")
    )
    assert default == mine
    assert default["self_training"].pop("alignment_guard")  # on the pair, whose shares are alike, it was not tried yet
    for section in (
        "method",
        "self_training",
        "prototypes",
        "latent",
        "strong",
        "weights",
        "histogram",
        "pseudo_labels",
    ):
        assert default[section] == pair[section], section
    assert (default["optim"]["lr"], default["data"]["batch_size"]) == (pair["optim"]["lr"], pair["data"]["batch_size"])
    warm_up = [recipe["optim"]["warmup_steps"] / recipe["train"]["steps"] for recipe in (default, pair)]
    assert warm_up[0] == pytest.approx(warm_up[1], rel=0.02)
    assert resolve("adapt", ["--source", "s", "--target", "t"], "selftraining").config.method == "lsr-st"


def test_resume_takes_no_other_option(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no other option"):
        resolve("pretrain", ["--resume", str(tmp_path), "--optim.lr", "1"], None)
    with pytest.raises(InputError, match="no run"):
        resolve("pretrain", ["--resume", str(tmp_path)], None)


FIELDS = {
    "": "init label_space method seed",
    "network": "backbone batch_norm batch_norm_frames dilations forward normalization output_stride stem weights width",
    "data": "batch_size ignore_mask more_sources on_bad workers",
    "data.labelled": "height ids ignore_mask image_suffix label_suffix layout limit root split weight width",
    "data.source": "height ids ignore_mask image_suffix label_suffix layout limit root split weight width",
    "data.target": "height ignore_bottom ignore_top layout limit root seconds split static width",
    "augment": "blur blur_sigma brightness contrast crop_height crop_width flip hue "
    "jitter lab_transfer noise rare_class_temperature saturation scale_max scale_min target_colors white_point",
    "optim": "clip_norm lr momentum name poly_power poly_steps warmup_steps weight_decay",
    "optim.lr_multipliers": "backbone head stem",
    "train": "accumulate channels_last checkpoint_every compile device keep precision steps threads",
    "histogram": "mode threshold",
    "pseudo_labels": "confidence",
    "prototypes": "decay init",
    "norm": "delta",
    "self_training": "alignment alignment_decay alignment_guard alignment_of decay keep mask_block mask_ratio "
    "mix rectify rectify_decay rectify_from threshold weighting",
    "strong": "blur blur_sigma brightness contrast hue probability saturation",
    "latent": "form image labels temperature",
    "distill": "sha256 teacher teacher_dilations teacher_size temperature",
    "critic": "lr",
    "weights": "adversarial cluster distance distill entropy entropy_ratio masked norm orthogonality perpendicularity "
    "prototype self_training sparsity",
    "selection": "every frames patience signal source_split",
    "log": "every gradients tensorboard",
}


def test_the_fields_are_the_documented_ones() -> None:
    """A new field needs its word here: the surface grows on purpose only."""
    expected = {f"{section}.{name}".lstrip(".") for section, names in FIELDS.items() for name in names.split()}
    assert leaves(Config()) == expected


def test_every_field_is_read_somewhere() -> None:
    trees = (
        ast.parse(path.read_text(encoding="utf-8"))
        for path in (REPOSITORY / "lsr_train").rglob("*.py")
        if REPOSITORY / "lsr_train/config" not in path.parents  # it checks fields; others compute with them
    )
    read = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert {name for name in leaves(Config()) if name.rpartition(".")[2] not in read} == set()


def test_exactly_the_adapting_methods_use_the_target() -> None:
    for name, spec in METHOD_SPECS.items():
        assert method_class(name).uses_target == (spec.command != "pretrain")
        assert spec.command in ("pretrain", "adapt", "distill")


@pytest.mark.parametrize("name", METHOD_SPECS)
def test_a_method_weights_what_the_configuration_says(name: str) -> None:
    forms = (("paper", "prototype"), ("cosine", "norm"))
    for form, other in forms[1:] if name == "distill" else forms:
        read = set(METHOD_SPECS[name].weights) - ({other} if name == "lsr-st" else set())
        latent = LatentConfig(form=form) if name in ("lsr-st", "distill") else LatentConfig()
        base = Config(method=name, weights=WeightsConfig(**dict.fromkeys(read, 0.5)), latent=latent)
        weights = method_class(name)(base, 3, 4).term_weights()
        for field in WEIGHT_NAMES:
            terms = {term: value for term, value in weights.items() if term.startswith(field)}
            assert all(value == (0.5 if field in read else 0) for value in terms.values())
            assert bool(terms) or field not in read


def test_the_two_forms_of_the_constraints_have_their_own_terms() -> None:
    for form, other in (("paper", "prototype"), ("cosine", "norm")):
        with pytest.raises(UsageError, match=f"latent.form {form} has no such"):
            Config(
                method="lsr-st",
                weights=WeightsConfig(self_training=1.0, **{other: 1.0}),
                latent=LatentConfig(form=form),
            )


@pytest.mark.parametrize(
    ("recipe", "field", "value"),
    [
        (recipe, field, value)
        for recipe in ("toytown_lsr_st", "toytown_self_training", "toytown_distill")
        for field, value in (
            ("histogram.mode", "nearest"), ("prototypes.init", "zero"), ("norm.delta", 0.1),
        )
    ]
    + [
        ("toytown_distill", f"self_training.{name}", value)
        for name, value in (
            ("rectify", 0.1), ("rectify_from", 2), ("alignment", 0.5), ("keep", "teacher"), ("decay", 0.5),
            ("mask_ratio", 0.5),
        )
    ]
    + [
        ("toytown_lsr_em", "self_training.alignment_of", "labels"), ("toytown_lsr_em", "latent.form", "paper"),
        ("toytown_self_training", "latent.image", "target"), ("toytown_self_training", "distill.temperature", 4.0),
        ("toytown_self_training", "prototypes.decay", 0.5), ("toytown_source", "strong.hue", 1.0),
        ("toytown_source", "pseudo_labels.confidence", 0.1), ("toytown_lsr_st", "distill.teacher_size", "own"),
    ],
)  # fmt: skip
def test_an_option_that_the_method_does_not_read_is_refused(recipe: str, field: str, value: str | float) -> None:
    config = resolve("adapt", ["--recipe", recipe], None).config
    with pytest.raises(UsageError, match=f"{field} is {value}, and .* does not read it"):
        with_fields(config, {field: value})


@pytest.mark.parametrize(
    ("recipe", "none"),
    [
        ("toytown_self_training", ("self_training",)), ("toytown_lsr_st", ("self_training",)),
        ("toytown_distill", ("distill", "self_training")),
    ],
)  # fmt: skip
def test_a_teacher_whose_word_has_no_weight_is_refused(recipe: str, none: tuple[str, ...]) -> None:
    config = resolve("distill" if "distill" in recipe else "adapt", ["--recipe", recipe], None).config
    with pytest.raises(UsageError, match="learn nothing from its teacher"):
        with_fields(config, {f"weights.{name}": 0.0 for name in none})


def test_a_short_name_beside_its_long_one_is_refused() -> None:
    with pytest.raises(UsageError, match=r"--student and --network\.backbone are the same"):
        resolve("distill", ["--student", "resnet18", "--network.backbone=resnet34"], "my_footage_distill")


def test_one_recipe_alone(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--recipe is given twice"):
        resolve("adapt", ["--recipe", "toytown_lsr", "--recipe=toytown_lsr_em"], None)


def test_the_papers_form_reads_the_papers_options() -> None:
    config = resolve("adapt", ["--recipe", "toytown_lsr_st", "--weights.prototype", "0"], None).config
    options = {"histogram.mode": "nearest", "prototypes.init": "zero", "norm.delta": 0.1}
    assert with_fields(config, {"latent.form": "paper", **options}).norm.delta == 0.1


def test_images_of_two_sizes_cannot_be_mixed() -> None:
    data = DataConfig(source=SourceConfig(height=64, width=64), target=TargetConfig(root="x", height=64, width=96))
    with pytest.raises(UsageError, match="mixes source and target"):
        Config(method="self-training", data=data, weights=WeightsConfig(self_training=1.0))


def test_a_missing_source_or_target_is_said_before_torch_is_loaded() -> None:
    with pytest.raises(UsageError, match="--source"):
        training_request("pretrain", ["--method", "source-only"])
    words = ["--source", "x", "--init", "y"]
    with pytest.raises(UsageError, match="--target"):
        training_request("adapt", words, "my_footage")


def test_a_distillation_without_its_teacher_or_data_is_said_before_torch_is_loaded() -> None:
    with pytest.raises(UsageError, match="distill TEACHER"):
        distill(["--source", "x", "--target", "y"])
    with pytest.raises(UsageError, match="--source"):
        distill(["teacher", "--target", "y"])
    with pytest.raises(UsageError, match="--target"):
        distill(["teacher", "--source", "x"])
    with pytest.raises(UsageError, match="run by distill"):
        adapt(["--recipe", "toytown_distill"])
    with pytest.raises(UsageError, match="run by adapt"):
        distill(["--recipe", "toytown_lsr"])


def test_the_short_names_of_a_student() -> None:
    words = ["runs/a=b", "--student", "resnet34", "--width=0.5", "--size", "320x240", "--source", "s", "--target", "t"]
    config = resolve("distill", expand_distill(words), "my_footage_distill").config
    assert (config.method, config.distill.teacher) == ("distill", "runs/a=b")
    assert (config.network.backbone, config.network.width) == ("resnet34", 0.5)
    for domain in (config.data.source, config.data.target):
        assert (domain.height, domain.width) == (240, 320)
    assert expand_distill(["--size=64x32"])[:2] == ["--data.source.width=64", "--data.source.height=32"]
    for words in (["--size", "320"], ["--size"], ["--size=240:320"], ["--size", "ax3"]):
        with pytest.raises(UsageError, match="width x height"):
            expand_distill(words)


def test_distillation_has_its_own_form_of_the_constraints_and_its_own_teacher() -> None:
    taught = WeightsConfig(distill=1.0)
    for latent in (LatentConfig(form="paper"), LatentConfig(labels="student"), LatentConfig(image="target")):
        Config(method="distill", latent=latent, weights=taught)  # no term of theirs is asked for
        with pytest.raises(UsageError, match=r"latent\.form cosine"):
            Config(method="distill", weights=replace(taught, cluster=0.1), latent=latent)
    with pytest.raises(UsageError, match=r"distill\.teacher"):
        Config(method="lsr", distill=DistillConfig(teacher="x"))
    data = DataConfig(source=SourceConfig(height=64, width=64), target=TargetConfig(root="x", height=64, width=96))
    with pytest.raises(UsageError, match="mixes source and target"):
        Config(method="distill", data=data, weights=taught)
    Config(method="distill", data=data, weights=taught, self_training=SelfTrainingConfig(mix="none"))


def test_old_names_of_the_latent_form_and_fields_that_are_gone_are_read() -> None:
    """A run folder of version 0.1.0 names the released code's variants at their defaults."""
    old = to_yaml(Config()).replace("form: cosine", "form: scale-free")
    old = old.replace("\nnorm:\n", "\nclustering:\n  distance: l2\nnorm:\n  variant: absolute\n")
    assert config_from_text(old, "config.yaml") == Config()
    with pytest.raises(InputError, match=r"clustering\.distance is l1"):
        config_from_text(old.replace("distance: l2", "distance: l1"), "config.yaml")
    paper = ["--recipe", "toytown_lsr_st", "--weights.prototype", "0", "--latent.form", "printed"]
    assert resolve("adapt", current_argv("adapt", paper), None).config.latent.form == "paper"
