"""What a step of self-training computes, against its equations written out with plain torch, switch by switch.

The oracle follows the documentation: teacher, corrections, labels, mixing, terms. Two steps are compared, so that what
a step leaves for the next (teacher, prototypes) is compared too. It takes random numbers and strong augmentation as
they are; those have tests of their own.
"""

import copy
import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lsr_train.config.run import Config
from lsr_train.config.training import LatentConfig, SelfTrainingConfig, StrongConfig, WeightsConfig
from lsr_train.data.samples import LabelledBatch, UnlabelledBatch
from lsr_train.methods.self_training import LSRSelfTraining, SelfTraining
from lsr_train.randomness import Stream
from lsr_train.selftraining import DistributionAlignment, LabelAlignment, Strength, strong_augmentation
from tests.lsr_train.fake_network import ConvNetwork
from tests.lsr_train.latent.oracles import (
    VOID,
    batch_mean_oracle,
    clustering_oracle,
    cosine_clustering_oracle,
    cosine_perpendicularity_oracle,
    direction,
    histogram_oracle,
    mean_direction_oracle,
    mean_norm,
    norm_oracle,
    perpendicularity_oracle,
    prototype_cross_entropy_oracle,
    pseudo_label_oracle,
    smoothing_oracle,
    windows,
)

C, K, B, H, W = 4, 8, 2, 13, 17
SEED, FIRST = 3, 6  # the run's, and the number of the batch's first image


def network(seed: int) -> ConvNetwork:
    """A network in float64 whose batch-norm is fixed."""
    made = ConvNetwork(C, seed=seed)
    with torch.no_grad():
        made.head.weight *= 0.4  # neither sure everywhere nor nowhere
    return made.double().eval()


def batches(step: int, *, mask: str) -> tuple[LabelledBatch, UnlabelledBatch]:
    """Return both domains' images, in patches, with void source pixels and a masked part of the target."""
    generator = torch.Generator().manual_seed(step)
    source, target = (
        torch.rand(B, 3, 4, 5, generator=generator, dtype=torch.float64).repeat_interleave(4, 2).repeat_interleave(4, 3)
        [:, :, :H, :W] - 0.5
        for _ in range(2)
    )  # fmt: skip
    labels = torch.randint(0, C, (B, 4, 5), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    labels = labels[:, :H, :W].clone()
    labels[0, :3, 5:] = VOID
    counts = torch.ones(B, H, W, dtype=torch.bool)
    if mask == "part":
        counts[1, :, :6] = False
    elif mask == "all":
        counts[:] = False
    return LabelledBatch(image=source, labels=labels), UnlabelledBatch(
        image=target, mask=None if mask == "none" else counts
    )


def drawn(stream: Stream, shape: tuple[int, ...]) -> Tensor:
    return torch.stack(
        [torch.from_numpy(np.random.default_rng([SEED, int(stream), FIRST + b]).random(shape)) for b in range(B)]
    )


def bilinear(logits: Tensor) -> Tensor:
    return functional.interpolate(logits, size=(H, W), mode="bilinear", align_corners=True)


def mean_over_labelled(logits: Tensor, labels: Tensor, weight: Tensor) -> Tensor:
    """Cross-entropy of each pixel times its weight, over the number of pixels with a class."""
    values = functional.cross_entropy(bilinear(logits), labels, ignore_index=VOID, reduction="none")
    return (weight * values).sum() / max(int((labels != VOID).sum()), 1)


def sure_cells(labels: Tensor, peak: Tensor, size: tuple[int, int], config: Config) -> Tensor:
    """The class that dominates a cell, where the mean probability of its pixels with a class exceeds T_p."""
    cells = histogram_oracle(labels, size, C, config.histogram.threshold)
    for b in range(B):
        for (i, j), pixels in windows((H, W), size).items():
            found = [peak[b, y, x].item() for y, x in pixels if labels[b, y, x] != VOID]
            if not found or not sum(found) / len(found) > config.pseudo_labels.confidence:
                cells[b, i, j] = VOID
    return cells


class Oracle:
    """One step after another of self-training, with or without LSR's constraints."""

    def __init__(self, config: Config, start: ConvNetwork) -> None:
        self.config = config
        self.teacher, self.start = copy.deepcopy(start), copy.deepcopy(start)
        form = LabelAlignment if config.self_training.alignment_of == "labels" else DistributionAlignment
        self.alignment = form(
            C, strength=config.self_training.alignment, decay=config.self_training.alignment_decay
        ).double()
        self.rectified = (torch.zeros(C, K, dtype=torch.float64), [False] * C)
        self.prototypes = (torch.zeros(C, K, dtype=torch.float64), [False] * C)
        self.reference: float | None = None

    def terms(
        self, student: ConvNetwork, source: LabelledBatch, target: UnlabelledBatch, step: int
    ) -> dict[str, Tensor]:
        weights = self.config.weights
        counts = self.counts(target)
        labels, weight, peak = self.labels(source, target, counts, step)
        pasted = self.pasted(source.labels)
        mixed = self.strong(torch.where(pasted[:, None], source.image, target.image))
        mixed_labels = torch.where(pasted, source.labels, labels)
        of_source, of_mixed = student(source.image), student(mixed)
        values = {
            "cross_entropy": mean_over_labelled(of_source.logits, source.labels, torch.ones(B, H, W)),
            "self_training": mean_over_labelled(of_mixed.logits, mixed_labels, torch.where(pasted, 1.0, weight)),
        }
        if weights.masked:
            hidden = student(self.strong(target.image, Stream.STRONG_MASKED) * self.visible()[:, None])
            values["masked"] = mean_over_labelled(hidden.logits, labels, weight)
        if weights.distance:
            fixed = self.start(source.image).features.detach()
            values["distance"] = ((of_source.features - fixed) ** 2).mean()
        if self.config.method != "lsr-st":
            return values
        seen = (mixed_labels, torch.where(pasted, 1.0, peak), of_mixed)
        if self.config.latent.image == "target":
            seen = (labels, peak, student(target.image))
        return values | self.constraints(of_source, source.labels, *seen)

    def counts(self, target: UnlabelledBatch) -> Tensor:
        """Not masked."""
        return torch.ones(B, H, W, dtype=torch.bool) if target.mask is None else target.mask

    def labels(
        self, source: LabelledBatch, target: UnlabelledBatch, counts: Tensor, step: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The teacher's: argmax, weight by the confident ones, probability."""
        settings = self.config.self_training
        with torch.no_grad():
            logits, features = self.teacher(target.image)
        size = (logits.shape[2], logits.shape[3])
        if settings.rectify and step >= settings.rectify_from:
            logits = logits + self.correction(features)
        alike = torch.where(counts, source.labels, VOID)
        if settings.alignment and settings.alignment_of == "labels":
            logits = bilinear(logits)
            logits = logits + self.alignment(alike, logits, counts)
        elif settings.alignment:
            cells = torch.zeros(B, *size, dtype=torch.bool)
            for (i, j), pixels in windows((H, W), size).items():
                cells[:, i, j] = torch.stack([counts[:, y, x] for y, x in pixels]).any(dim=0)
            logits = logits + self.alignment(alike, logits, cells)
        peak, labels = bilinear(logits).softmax(dim=1).max(dim=1)
        labels, peak = torch.where(counts, labels, VOID), torch.where(counts, peak, 0)
        sure = peak > settings.threshold
        share = int(sure.sum()) / max(int(counts.sum()), 1)
        weight = {"all": counts.double(), "confident": sure.double(), "fraction": counts * share}[settings.weighting]
        if settings.rectify:
            cells = sure_cells(labels, peak, size, self.config)
            moved = mean_direction_oracle(features, cells, C)
            self.rectified = smoothing_oracle(*self.rectified, *moved, settings.rectify_decay, "first")
        return labels, weight, peak

    def correction(self, features: Tensor) -> Tensor:
        """log softmax of cosine / temperature over the seen classes; an unseen one gets the mean weight."""
        mean, seen = self.rectified
        result = torch.zeros(B, C, *features.shape[2:], dtype=torch.float64)
        known = [c for c in range(C) if seen[c]]
        for b, i, j in np.ndindex(B, *features.shape[2:]):
            own = direction(features[b, :, i, j])
            scores = {c: (own @ direction(mean[c])).item() / self.config.self_training.rectify for c in known}
            total = math.log(sum(math.exp(score) for score in scores.values())) if known else 0.0
            for c in range(C):
                unseen = -math.log(max(len(known), 1))
                result[b, c, i, j] = scores[c] - total if c in scores else unseen
        return result

    def pasted(self, labels: Tensor) -> Tensor:
        """Half of the classes of each source image, rounded up: those with the lowest draws."""
        pasted = torch.zeros(B, H, W, dtype=torch.bool)
        if self.config.self_training.mix == "class":
            draws = drawn(Stream.MIX, (C,))
            for b in range(B):
                there = sorted(set(labels[b].flatten().tolist()) - {VOID}, key=lambda c: draws[b, c].item())
                for c in there[: (len(there) + 1) // 2]:
                    pasted[b] |= labels[b] == c
        return pasted

    def strong(self, image: Tensor, stream: Stream = Stream.STRONG) -> Tensor:
        levels = ((image + 0.5) * 255).permute(0, 2, 3, 1)
        strength = Strength(**dataclasses.asdict(self.config.strong))
        return (strong_augmentation(levels, strength, drawn(stream, (7,))) / 255 - 0.5).permute(0, 3, 1, 2)

    def visible(self) -> Tensor:
        side = self.config.self_training.mask_block
        draws = drawn(Stream.MASK, (math.ceil(H / side), math.ceil(W / side)))
        visible = torch.zeros(B, H, W, dtype=torch.bool)
        for b, y, x in np.ndindex(B, H, W):
            visible[b, y, x] = draws[b, y // side, x // side] >= self.config.self_training.mask_ratio
        return visible

    def constraints(
        self, of_source: Any, source_labels: Tensor, labels: Tensor, peak: Tensor, output: Any
    ) -> dict[str, Tensor]:
        """The latent terms, with the source's labels on one side and these on the other."""
        config = self.config
        source, target = of_source.features, output.features
        size = (target.shape[2], target.shape[3])
        threshold, confidence = config.histogram.threshold, config.pseudo_labels.confidence
        source_cells = histogram_oracle(source_labels, size, C, threshold)
        if config.latent.labels == "teacher":
            cells = sure_cells(labels, peak, size, config)
        else:
            cells = pseudo_label_oracle(bilinear(output.logits.detach()), size, threshold, confidence, labels != VOID)
        paper = config.latent.form == "paper"
        means, present = (batch_mean_oracle if paper else mean_direction_oracle)(source, source_cells, C)
        self.prototypes = smoothing_oracle(*self.prototypes, means, present, config.prototypes.decay, "first")
        mean, seen = self.prototypes
        if not paper:
            sharpness = config.latent.temperature
            return {
                "cluster_source": cosine_clustering_oracle(source, source_cells, mean, seen),
                "cluster_target": cosine_clustering_oracle(target, cells, mean, seen),
                "perpendicularity": cosine_perpendicularity_oracle(means, present),
                "prototype_source": prototype_cross_entropy_oracle(source, source_cells, mean, seen, sharpness),
                "prototype_target": prototype_cross_entropy_oracle(target, cells, mean, seen, sharpness),
            }
        counted = torch.zeros(B, *size, dtype=torch.bool)
        for (i, j), pixels in windows((H, W), size).items():
            counted[:, i, j] = torch.stack([labels[:, y, x] != VOID for y, x in pixels]).any(dim=0)
        current = mean_norm(source.detach())
        reference, self.reference = current if self.reference is None else self.reference, current
        return {
            "cluster_source": clustering_oracle(source, source_cells, mean, seen),
            "cluster_target": clustering_oracle(target, cells, mean, seen),
            "perpendicularity": perpendicularity_oracle(means, present),
            "norm_source": norm_oracle(source, reference, config.norm.delta, "source"),
            "norm_target": norm_oracle(target, reference, config.norm.delta, "target", counted),
        }

    def after_step(self, student: ConvNetwork, step: int) -> None:
        alpha = min(1 - 1 / (step + 1), self.config.self_training.decay)
        with torch.no_grad():
            for own, new in zip(self.teacher.parameters(), student.parameters(), strict=True):
                own.copy_(alpha * own + (1 - alpha) * new)


def configured(method: str, weights: dict[str, float], latent: dict[str, Any], **settings: Any) -> Config:
    weights = {"self_training": 1.0, **weights}
    if method == "lsr-st":
        last = "norm" if latent.get("form") == "paper" else "prototype"
        weights |= {"cluster": 0.1, "perpendicularity": 0.2, last: 0.3}
    settings = {"alignment": 0.0, "threshold": 0.7, "rectify_from": 1, "mask_block": 5, "mask_ratio": 0.4} | settings
    return Config(
        method=method, seed=SEED, strong=StrongConfig(probability=1.0, blur=1.0), weights=WeightsConfig(**weights),
        self_training=SelfTrainingConfig(**settings), latent=LatentConfig(**latent),
    )  # fmt: skip


def compare(config: Config, mask: str = "part") -> list[dict[str, Tensor]]:
    """Run two steps of the method and of the oracle, compare every term, and return the method's."""
    kind = LSRSelfTraining if config.method == "lsr-st" else SelfTraining
    method: SelfTraining = kind(config, C, K).double()
    start = network(0)
    method.start(start)
    oracle = Oracle(config, start)
    found = []
    for step in range(2):
        student = network(step + 1)
        source, target = batches(step, mask=mask)
        method.begin(step, FIRST)
        terms = method.terms(student, source, target)
        expected = oracle.terms(student, source, target, step)
        assert set(terms) == set(expected)
        for name, value in expected.items():
            assert terms[name].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-6), f"{name} of step {step}"
        found.append(terms)
        method.after_step(student, step + 1)
        oracle.after_step(student, step + 1)
    return found


SWITCHES: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no mixing": {"mix": "none"},
    "all alike": {"weighting": "all"},
    "confident alone": {"weighting": "confident"},
    "rectified": {"rectify": 0.1},
    "aligned": {"alignment": 1.0},
    "labels aligned": {"alignment": 0.7, "alignment_of": "labels"},
    "all together": {"rectify": 0.2, "alignment": 0.5, "weighting": "confident"},
}


@pytest.mark.parametrize("mask", ["none", "part"])
@pytest.mark.parametrize("settings", SWITCHES.values(), ids=SWITCHES.keys())
def test_self_training_equals_its_equations(settings: dict[str, Any], mask: str) -> None:
    terms = compare(configured("self-training", {}, {}, **settings), mask)
    assert all(step["self_training"] > 0 for step in terms)


@pytest.mark.parametrize("weights", [{"masked": 0.5}, {"distance": 0.5}, {"masked": 0.5, "distance": 0.5}])
def test_further_terms_equal_their_equations(weights: dict[str, float]) -> None:
    terms = compare(configured("self-training", weights, {}))
    assert all(step[name] > 0 for step in terms for name in weights)


@pytest.mark.parametrize("image", ["mixed", "target"])
@pytest.mark.parametrize("labels", ["teacher", "student"])
@pytest.mark.parametrize("form", ["paper", "cosine"])
@pytest.mark.parametrize("settings", [{}, {"mix": "none", "rectify": 0.1}])
def test_constraints_equal_their_equations(form: str, labels: str, image: str, settings: dict[str, Any]) -> None:
    terms = compare(configured("lsr-st", {}, {"form": form, "labels": labels, "image": image}, **settings))
    assert all(step["cluster_target"] > 0 for step in terms)


@pytest.mark.parametrize("labels", ["teacher", "student"])
@pytest.mark.parametrize("form", ["paper", "cosine"])
def test_a_target_that_is_masked_altogether_has_no_say(form: str, labels: str) -> None:
    config = configured("lsr-st", {}, {"form": form, "labels": labels, "image": "target"})
    for step in compare(config, mask="all"):
        assert {name: value.item() for name, value in step.items() if name.endswith("target")} == {
            "cluster_target": 0, "norm_target" if form == "paper" else "prototype_target": 0,
        }  # fmt: skip


def test_classes_that_the_alignment_moves_far_are_named() -> None:
    method = SelfTraining(configured("self-training", {}, {}, alignment=1.0, alignment_of="labels"), C, K)
    names = ["road", "building", "fence", "sky"]
    assert method.remark(names) == ""
    assert isinstance(method.alignment, LabelAlignment)
    method.alignment.offset.copy_(torch.tensor([0.9, -1.25, 2.5, -0.5]))
    assert method.remark(names) == "alignment moves the teacher's scores of fence by +2.5, building by -1.2"
    assert SelfTraining(configured("self-training", {}, {}), C, K).remark(names) == ""


@pytest.mark.gpu
@pytest.mark.parametrize("alignment", ["probabilities", "labels"])
@pytest.mark.parametrize("form", ["paper", "cosine"])
def test_a_step_on_cuda_never_makes_the_host_wait(form: str, alignment: str) -> None:
    weights = {"masked": 0.5, "distance": 0.5}
    config = configured("lsr-st", weights, {"form": form}, rectify=0.1, alignment=1.0, alignment_of=alignment)
    student = network(0).float().cuda()
    method = LSRSelfTraining(config, C, K).cuda()
    method.start(student)
    source, target = batches(0, mask="part")
    assert target.mask is not None
    of_source = LabelledBatch(image=source.image.float().cuda(), labels=source.labels.cuda())
    of_target = UnlabelledBatch(image=target.image.float().cuda(), mask=target.mask.cuda())
    for step, mode in enumerate(("default", "error")):  # the first step loads what is loaded once
        torch.cuda.set_sync_debug_mode(mode)
        try:
            method.begin(step, FIRST)
            terms = method.terms(student, of_source, of_target)
            torch.stack(list(terms.values())).sum().backward()
            method.after_step(student, step + 1)
            method.diagnostics()
        finally:
            torch.cuda.set_sync_debug_mode("default")
