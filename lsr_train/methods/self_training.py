"""Trains on mixed images with an averaged teacher's labels (DACS), alone or with LSR's constraints.

A teacher, the moving average of the network, labels target images as they are; the network learns those labels on
images into which half of a source image's classes are pasted, under strong augmentation. The equations are those of
DACS (Tranheden et al. 2021); alignment, rectification and masking can be added, each by its own switch.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor, nn

from lsr_infer.labelspace import IGNORE_INDEX
from lsr_train.config.run import Config
from lsr_train.data.samples import LabelledBatch, UnlabelledBatch
from lsr_train.distributed import all_reduce_sum, world_size
from lsr_train.latent import LatentRegularizer, confident_cells, histogram_downsample, pseudo_labels
from lsr_train.latent.cells import cell_sums, compute_dtype
from lsr_train.losses.pixel import cross_entropy, upsample
from lsr_train.methods.latent_terms import build_regularizer, latent_weights
from lsr_train.methods.method import Method, Network
from lsr_train.network import DeepLabV2, SegOutput
from lsr_train.randomness import ImageDraws, Stream, to_device
from lsr_train.selftraining import (
    DistributionAlignment,
    EmaTeacher,
    LabelAlignment,
    PixelLabels,
    Rectifier,
    Strength,
    class_mix_mask,
    paste,
    pixel_means,
    strong_images,
    teacher_labels,
    visible_blocks,
)
from lsr_train.selftraining.strong import DRAWS, in_layout_of


class Views(NamedTuple):
    """The images of a step, their labels, and the network's output on them, for further terms.

    The mixed labels are the source's, with weight and probability 1, where it was pasted, else the teacher's.
    """

    source: LabelledBatch
    source_output: SegOutput
    mixed_labels: PixelLabels
    mixed_output: SegOutput
    target: UnlabelledBatch
    target_labels: PixelLabels


class SelfTraining(Method):
    """L = L_CE(source) + lambda_ST L_CE(mixed, teacher's labels, weighted), with the switches of `self_training`."""

    uses_target: ClassVar[bool] = True

    def __init__(self, config: Config, num_classes: int, channels: int) -> None:
        super().__init__(config, num_classes, channels)
        settings = config.self_training
        self.alignment: LabelAlignment | DistributionAlignment | None = None
        if settings.alignment:
            kept = {"strength": settings.alignment, "decay": settings.alignment_decay}
            if settings.alignment_of == "labels":
                self.alignment = LabelAlignment(num_classes, **kept, guarded=settings.alignment_guard)
            else:
                self.alignment = DistributionAlignment(num_classes, **kept)
        self.rectifier = None
        if settings.rectify:
            decay = settings.rectify_decay
            self.rectifier = Rectifier(num_classes, channels, temperature=settings.rectify, decay=decay)
        self.teacher: EmaTeacher | None = None
        self.starting: EmaTeacher | None = None
        self._strength = Strength(**asdict(config.strong))
        self._step = self._sample = 0
        self._draws = ImageDraws(config.seed)
        self._diagnostics: dict[str, Tensor] = {}

    def start(self, network: nn.Module) -> None:
        """Make the teacher, and keep the starting network where the feature distance needs it."""
        self.teacher = EmaTeacher(network, self.config.self_training.decay)
        if self.config.weights.distance:
            self.starting = EmaTeacher(network)

    def begin(self, step: int, sample: int) -> None:
        """Learn which micro-batch comes next."""
        self._step, self._sample = step, sample
        self._draws.begin(sample)

    def after_step(self, network: nn.Module, step: int) -> None:
        """Move the teacher."""
        self._teacher.update(network, step)

    def result(self, network: nn.Module) -> nn.Module:
        """Return the teacher's network where the configuration keeps it, else the student."""
        return self._teacher.network if self.config.self_training.keep == "teacher" else network

    def terms(self, network: Network, source: LabelledBatch, target: UnlabelledBatch | None) -> dict[str, Tensor]:
        """Return `cross_entropy`, `self_training`, and the further terms whose weight is not 0."""
        assert target is not None
        size = (target.image.shape[2], target.image.shape[3])
        labels = self._label(source, target)
        image, mixed_labels = self._mix(source, target, labels)
        source_output, mixed_output = self.both_images(network, source.image, image)
        source_logits = upsample(source_output.logits, source.labels.shape[-2:])
        mixed_logits = upsample(mixed_output.logits, size)
        values = {
            "cross_entropy": cross_entropy(source_logits, source.labels),
            "self_training": cross_entropy(mixed_logits, mixed_labels.labels, weight=mixed_labels.weight),
        }
        if self.config.weights.masked:
            logits = upsample(network(self._hide(target.image)).logits, size)
            values["masked"] = cross_entropy(logits, labels.labels, weight=labels.weight)
        if self.config.weights.distance:
            values["distance"] = self._distance(source.image, source_output.features)
        views = Views(source, source_output, mixed_labels, mixed_output, target, labels)
        return values | self.further_terms(network, views)

    def further_terms(self, network: Network, views: Views) -> dict[str, Tensor]:
        """Compute unweighted terms besides those of self-training."""
        return {}

    def term_weights(self) -> dict[str, float]:
        """Return the weights of the terms beside cross-entropy."""
        weights = self.config.weights
        return {"self_training": weights.self_training, "masked": weights.masked, "distance": weights.distance}

    def diagnostics(self) -> dict[str, Tensor]:
        """Return `teacher_confidence` (mean peak), `teacher_confident` (share of pixels) and `target_dose`.

        All are of all ranks, the first two of the pixels that count. The last is the weight of the mixed images' target
        pixels over all pixels of a target image: how much of the target trains. Runs are compared at equal dose. Where
        labels are aligned, `alignment_spread` is how far the classes' offsets are from one another, and
        `alignment_strength` what the guard leaves of the strength.
        """
        return dict(self._diagnostics)

    def remark(self, names: Sequence[str]) -> str:
        """Name the classes that the alignment calls up or holds back by more than a factor e of their probability."""
        if not isinstance(self.alignment, LabelAlignment):
            return ""
        offsets = sorted(zip(self.alignment.offset.tolist(), names, strict=True), key=lambda pair: -abs(pair[0]))
        large = [f"{name} by {offset:+.1f}" for offset, name in offsets if abs(offset) > 1]
        return f"alignment moves the teacher's scores of {', '.join(large)}" if large else ""

    @property
    def _teacher(self) -> EmaTeacher:
        if self.teacher is None:
            raise RuntimeError("the method has not been started with a network")
        return self.teacher

    def _forward(self, model: EmaTeacher, image: Tensor) -> SegOutput:
        """Run a network that does not train, in the precision of the one that does."""
        with self.in_precision(image):
            output = cast(SegOutput, model(image))
        return SegOutput(output.logits.float(), output.features)

    @torch.no_grad()
    def _label(self, source: LabelledBatch, target: UnlabelledBatch) -> PixelLabels:
        """Let the teacher label the target, aligned and rectified."""
        settings, size = self.config.self_training, (target.image.shape[2], target.image.shape[3])
        counts, output = target.counts, self._forward(self._teacher, target.image)
        logits, cells = output.logits, (output.logits.shape[2], output.logits.shape[3])
        if self.rectifier is not None and self._step >= settings.rectify_from:
            logits = logits + self.rectifier.correction(output.features)
        if self.alignment is not None:
            alike = source.labels.where(counts, IGNORE_INDEX)  # shares of the same places in both domains
            aligned = counts
            if settings.alignment_of == "labels":
                logits = upsample(logits, size)  # what is labelled are pixels
            else:
                aligned = cell_sums(counts, cells) > 0
            logits = logits + self.alignment(alike, logits, aligned)
        labels = teacher_labels(logits, size, settings.threshold, weighting=settings.weighting, mask=counts)
        if self.rectifier is not None:
            self.rectifier.update(output.features, self.sure_cells(labels, cells))
        return labels

    def sure_cells(self, labels: PixelLabels, size: tuple[int, int]) -> Tensor:
        """Bring labels to the feature grid [B,h,w], 255 where their mean probability does not exceed T_p."""
        cells = self.to_cells(labels.labels, size)
        return confident_cells(cells, labels.probability, self.config.pseudo_labels.confidence, mask=labels.counts)

    def to_cells(self, labels: Tensor, size: tuple[int, int]) -> Tensor:
        """Bring pixel labels [B,H,W] to the feature grid [B,h,w] by the histogram (paper, Sec. 3)."""
        return histogram_downsample(labels, size, self.num_classes, self.config.histogram.threshold)

    @torch.no_grad()
    def _mix(self, source: LabelledBatch, target: UnlabelledBatch, labels: PixelLabels) -> tuple[Tensor, PixelLabels]:
        """Paste half of each source image's classes onto the target; return the augmented image and its labels.

        Labelled frames of the target take the place of source images as often as they are drawn beside them.
        """
        source = self._donors(source)
        pasted = torch.zeros_like(labels.labels, dtype=torch.bool)
        if self.config.self_training.mix == "class":
            pasted = class_mix_mask(source.labels, self._draws(Stream.MIX, source.image, (self.num_classes,)))
        image = self._augment(paste(pasted, source.image, target.image), Stream.STRONG)
        ones = torch.ones_like(labels.weight)
        of_source = PixelLabels(source.labels, ones, ones)
        both = PixelLabels(*(paste(pasted, *pair) for pair in zip(of_source, labels, strict=True)))
        self._diagnostics = pixel_means(
            teacher_confidence=(labels.probability, labels.counts),
            teacher_confident=(labels.probability > self.config.self_training.threshold, labels.counts),
            target_dose=(torch.where(pasted, 0, labels.weight), torch.ones_like(pasted)),
        )
        if isinstance(self.alignment, LabelAlignment):
            self._diagnostics["alignment_spread"] = self.alignment.offset.max() - self.alignment.offset.min()
            if self.alignment.guarded:
                self._diagnostics["alignment_strength"] = self.alignment.effective_strength
        return image, both

    def _donors(self, source: LabelledBatch) -> LabelledBatch:
        """Put labelled frames of the target in the place of some source images, by the images' numbers."""
        few, share = self.labelled, self.config.data.labelled_share
        if few is None:
            return source
        B, part = len(source.image), share / (1 + share)
        index = [
            B + place * len(few.image) // B if int((n + 1) * part) > int(n * part) else place
            for place, n in enumerate(range(self._sample, self._sample + B))
        ]
        chosen = to_device(torch.tensor(index), source.image.device)
        image, labels = (
            torch.cat(pair).index_select(0, chosen) for pair in ((source.image, few.image), (source.labels, few.labels))
        )
        return LabelledBatch(image=image, labels=labels)

    def _augment(self, image: Tensor, stream: Stream) -> Tensor:
        """Augment normalised images strongly."""
        normalize = cast(DeepLabV2, self._teacher.network).normalize
        return strong_images(image, normalize, self._strength, self._draws(stream, image, (DRAWS,)))

    def _hide(self, image: Tensor) -> Tensor:
        """Hide blocks of strongly augmented target images."""
        settings, (H, W) = self.config.self_training, image.shape[2:]
        block = settings.mask_block
        draws = self._draws(Stream.MASK, image, (-(-H // block), -(-W // block)))
        visible = visible_blocks((H, W), block, settings.mask_ratio, to_device(draws, image.device))
        return in_layout_of(self._augment(image, Stream.STRONG_MASKED) * visible[:, None], image)

    def _distance(self, image: Tensor, features: Tensor) -> Tensor:
        """Return the mean squared distance of the source's features to those of the starting network, per channel."""
        assert self.starting is not None
        fixed = self._forward(self.starting, image).features
        exact = compute_dtype(features.dtype)
        return all_reduce_sum((features.to(exact) - fixed.to(exact)).square().mean()) / world_size()


class LSRSelfTraining(SelfTraining):
    """L = L_CE + lambda_ST L_ST + lambda_C L_C + lambda_P L_P (+ lambda_N L_N or the prototype cross-entropy).

    The constraints act on the source's features with its labels, and on those of the mixed or the target image with the
    teacher's or the student's labels (`config.latent`), as the paper prints them or on directions alone.
    """

    def __init__(self, config: Config, num_classes: int, channels: int) -> None:
        super().__init__(config, num_classes, channels)
        self._latent_weights = latent_weights(config, config.latent.form)
        self.regularizer = build_regularizer(config, num_classes, channels, config.latent.form)

    def further_terms(self, network: Network, views: Views) -> dict[str, Tensor]:
        """Return the latent terms whose weight is not 0."""
        if not self.regularizer.terms:
            return {}
        output, labels = views.mixed_output, views.mixed_labels
        if self.config.latent.image == "target":
            output, labels = network(views.target.image), views.target_labels
        cells = self._cells(labels, output.logits, (output.features.shape[2], output.features.shape[3]))
        source, truth = views.source_output.features, views.source.labels
        if isinstance(self.regularizer, LatentRegularizer):
            return self.regularizer.forward(
                source, truth, output.features, output.logits, labels.counts, target_cells=cells
            )
        source_cells = self.to_cells(truth, (source.shape[2], source.shape[3]))
        return self.regularizer.forward(source, source_cells, output.features, cells)

    def term_weights(self) -> dict[str, float]:
        """Return the weights of all terms."""
        return {**super().term_weights(), **self._latent_weights}

    def diagnostics(self) -> dict[str, Tensor]:
        """Return those of self-training and of the regularizer."""
        return {**super().diagnostics(), **self.regularizer.diagnostics()}

    @torch.no_grad()
    def _cells(self, labels: PixelLabels, logits: Tensor, size: tuple[int, int]) -> Tensor:
        """Return the labels [B,h,w] of the features that the target's terms see, of pixels that count alone."""
        if self.config.latent.labels == "teacher":
            return self.sure_cells(labels, size)
        upsampled = upsample(logits, labels.labels.shape[-2:])
        threshold, confidence = self.config.histogram.threshold, self.config.pseudo_labels.confidence
        return pseudo_labels(upsampled, size, threshold, confidence, mask=labels.counts)
