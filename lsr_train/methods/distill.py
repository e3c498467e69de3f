"""Trains a small student on a finished teacher's predictions for both domains, and on the source's labels."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from lsr_infer.labelspace import IGNORE_INDEX
from lsr_train.config.run import Config
from lsr_train.data.samples import LabelledBatch, UnlabelledBatch
from lsr_train.latent import confident_cells, histogram_downsample
from lsr_train.losses.pixel import cross_entropy, distillation_loss, upsample
from lsr_train.methods.latent_terms import build_regularizer, latent_weights
from lsr_train.methods.method import Method, Network
from lsr_train.network import DeepLabV2, SegOutput
from lsr_train.randomness import ImageDraws, Stream
from lsr_train.selftraining import (
    FrozenTeacher,
    Strength,
    class_mix_mask,
    paste,
    pixel_means,
    strong_images,
    teacher_labels,
)
from lsr_train.selftraining.strong import DRAWS


class _Lesson(NamedTuple):
    """What the student learns from normalised images, before strong augmentation, with the teacher's full-size logits.

    Labels [B,H,W] are 255 where nothing is to be learnt; the source's have weight and probability 1.
    """

    image: Tensor
    logits: Tensor
    labels: Tensor
    weight: Tensor
    probability: Tensor


class Distill(Method):
    """L = L_CE(source) + lambda_D (L_D(source) + L_D(target)) + lambda_ST L_CE(target, teacher's labels) + constraints.

    L_D is `distillation_loss`. The teacher sees images as the loader gives them, the student strongly augmented ones;
    with `self_training.mix class` half of a source image's classes lie on each target image, and the teacher's
    predictions for both are pasted likewise. LSR's cosine constraints act on the student's features, with the source's
    labels and the teacher's, where their weights are not 0.
    """

    uses_target: ClassVar[bool] = True

    def __init__(self, config: Config, num_classes: int, channels: int) -> None:
        super().__init__(config, num_classes, channels)
        self._latent_weights = latent_weights(config, "cosine")
        self.regularizer = build_regularizer(config, num_classes, channels, "cosine")
        self._strength = Strength(**asdict(config.strong))
        self._teacher: FrozenTeacher | None = None
        self._draws = ImageDraws(config.seed)
        self._diagnostics: dict[str, Tensor] = {}

    def start(self, network: nn.Module) -> None:
        """Learn how the student's images are normalised."""
        self._normalize = cast(DeepLabV2, network).normalize

    def take_teacher(self, teacher: FrozenTeacher) -> None:
        """Keep the teacher."""
        self._teacher = teacher

    def begin(self, step: int, sample: int) -> None:
        """Learn which micro-batch comes next."""
        self._draws.begin(sample)

    def terms(self, network: Network, source: LabelledBatch, target: UnlabelledBatch | None) -> dict[str, Tensor]:
        """Return `cross_entropy`, and of `distill_*`, `self_training` and the latent terms those that have a weight."""
        assert target is not None
        weights, temperature = self.config.weights, self.config.distill.temperature
        lessons = self._lessons(source, target)
        streams = (Stream.STRONG_SOURCE, Stream.STRONG)
        images = [self._augment(lesson.image, stream) for lesson, stream in zip(lessons, streams, strict=True)]
        outputs = self.both_images(network, *images)
        pairs = zip(outputs, lessons, strict=True)
        logits = [upsample(output.logits, lesson.labels.shape[-2:]) for output, lesson in pairs]
        values = {"cross_entropy": cross_entropy(logits[0], source.labels)}
        if weights.distill:
            for domain, of_domain, lesson in zip(("source", "target"), logits, lessons, strict=True):
                mask = lesson.labels != IGNORE_INDEX
                values[f"distill_{domain}"] = distillation_loss(of_domain, lesson.logits, temperature, mask=mask)
        if weights.self_training:
            values["self_training"] = cross_entropy(logits[1], lessons[1].labels, weight=lessons[1].weight)
        return values | self._constraints(outputs, lessons)

    def term_weights(self) -> dict[str, float]:
        """Return the weights of the terms beside cross-entropy."""
        weights = self.config.weights
        distill = {"distill_source": weights.distill, "distill_target": weights.distill}
        return {**distill, "self_training": weights.self_training, **self._latent_weights}

    def diagnostics(self) -> dict[str, Tensor]:
        """Return `teacher_confidence` (mean peak), `teacher_confident` (share of pixels), and the regularizer's."""
        return {**self._diagnostics, **self.regularizer.diagnostics()}

    @torch.no_grad()
    def _lessons(self, source: LabelledBatch, target: UnlabelledBatch) -> tuple[_Lesson, _Lesson]:
        """Let the teacher predict both domains, and paste source classes onto the target where it is configured."""
        settings, size = self.config.self_training, (target.image.shape[2], target.image.shape[3])
        cells = self._ask(target.image)
        found = teacher_labels(cells, size, settings.threshold, weighting=settings.weighting, mask=target.counts)
        self._diagnostics = pixel_means(
            teacher_confidence=(found.probability, found.counts),
            teacher_confident=(found.probability > settings.threshold, found.counts),
        )
        ones = torch.ones_like(source.labels, dtype=torch.float32)
        source_logits = upsample(self._ask(source.image), source.labels.shape[-2:])
        of_source = _Lesson(source.image, source_logits, source.labels, ones, ones)
        of_target = _Lesson(target.image, upsample(cells, size), *found)
        if settings.mix == "none":
            return of_source, of_target
        pasted = class_mix_mask(source.labels, self._draws(Stream.MIX, source.image, (self.num_classes,)))
        return of_source, _Lesson(*(paste(pasted, *pair) for pair in zip(of_source, of_target, strict=True)))

    def _ask(self, image: Tensor) -> Tensor:
        """Return the teacher's logits [B,C,h,w] of images that are normalised for the student."""
        if self._teacher is None:
            raise RuntimeError("the method has been given no teacher")
        with self.in_precision(image):
            return self._teacher.logits(self._normalize.levels(image))

    def _augment(self, image: Tensor, stream: Stream) -> Tensor:
        """Augment normalised images strongly."""
        return strong_images(image, self._normalize, self._strength, self._draws(stream, image, (DRAWS,)))

    def _constraints(self, outputs: Sequence[SegOutput], lessons: Sequence[_Lesson]) -> dict[str, Tensor]:
        """Return the latent terms whose weight is not 0."""
        if not self.regularizer.terms:
            return {}
        cells, threshold = [], self.config.histogram.threshold
        for output, lesson in zip(outputs, lessons, strict=True):
            size = (output.features.shape[2], output.features.shape[3])
            cells.append(histogram_downsample(lesson.labels, size, self.num_classes, threshold))
        confidence, counts = self.config.pseudo_labels.confidence, lessons[1].labels != IGNORE_INDEX
        cells[1] = confident_cells(cells[1], lessons[1].probability, confidence, mask=counts)
        return self.regularizer.forward(outputs[0].features, cells[0], outputs[1].features, cells[1])
