"""Defines the sections of the configuration about teachers: labels, augmentation, constraints, distillation."""

import re
from dataclasses import dataclass
from typing import Literal

from lsr_infer.errors import UsageError
from lsr_train.config.checks import in_range, one_of

__all__ = ["DistillConfig", "LatentConfig", "SelfTrainingConfig", "StrongConfig"]


@dataclass(frozen=True, kw_only=True)
class SelfTrainingConfig:
    """The teacher and its labels (mean teacher, DACS, ReMixMatch, ProDA, MIC; each part by itself).

    Args:
        decay: alpha of the teacher's moving average; rises to it from 1/2 over the first steps.
        threshold: a pixel is confident where the teacher's peak probability is above it.
        weighting: `fraction` gives every pixel of a target image the share of its confident ones, `confident` 1 to the
            confident ones alone, `all` 1 to all.
        mix: `class` pastes half of a source image's classes onto the target image, `none` trains on the target alone.
        alignment: how far the teacher's class frequencies are held to those of the source batches (which have rare
            classes more often where `augment.rare_class_temperature` says so), over the places that count, 0 to 1.
        alignment_of: which frequencies, those of its `probabilities` (ReMixMatch) or those of its `labels`, which are
            what the student learns.
        alignment_decay: of the running frequencies.
        rectify: temperature of the prototype rectification of the teacher's labels; 0 switches it off.
        rectify_decay: of its prototypes.
        rectify_from: step from which labels are rectified; prototypes are gathered before.
        mask_block: side of the hidden blocks of masked consistency, in pixels.
        mask_ratio: share of the blocks that are hidden.
        keep: which network is evaluated and saved, `student` or `teacher`.
    """

    decay: float = 0.99
    threshold: float = 0.968
    weighting: Literal["fraction", "confident", "all"] = "fraction"
    mix: Literal["class", "none"] = "class"
    alignment: float = 1.0
    alignment_of: Literal["probabilities", "labels"] = "probabilities"
    alignment_decay: float = 0.99
    rectify: float = 0.0
    rectify_decay: float = 0.99
    rectify_from: int = 50
    mask_block: int = 32
    mask_ratio: float = 0.7
    keep: Literal["student", "teacher"] = "student"

    def __post_init__(self) -> None:
        for name in ("decay", "alignment_decay", "rectify_decay"):
            in_range(f"self_training.{name}", getattr(self, name), 0, 0.999999)
        for name in ("threshold", "alignment", "mask_ratio"):
            in_range(f"self_training.{name}", getattr(self, name), 0, 1)
        one_of("self_training.weighting", self.weighting, ("fraction", "confident", "all"))
        one_of("self_training.mix", self.mix, ("class", "none"))
        one_of("self_training.alignment_of", self.alignment_of, ("probabilities", "labels"))
        one_of("self_training.keep", self.keep, ("student", "teacher"))
        in_range("self_training.rectify", self.rectify, 0, 10)
        in_range("self_training.rectify_from", self.rectify_from, 0)
        in_range("self_training.mask_block", self.mask_block, 1, 8192)


@dataclass(frozen=True, kw_only=True)
class StrongConfig:
    """What the student's mixed images go through beside what the loader does. 0 switches a part off.

    Args:
        probability: of the colour changes, for each image.
        brightness: factor 1 + U(-v, v).
        contrast: factor 1 + U(-v, v) about the image's grey mean.
        saturation: factor 1 + U(-v, v) of the distance from grey.
        hue: turn of the hue by U(-v, v) degrees.
        blur: probability of a Gaussian blur.
        blur_sigma: its largest standard deviation, in pixels.
    """

    probability: float = 0.8
    brightness: float = 0.25
    contrast: float = 0.25
    saturation: float = 0.25
    hue: float = 18.0
    blur: float = 0.5
    blur_sigma: float = 1.15

    def __post_init__(self) -> None:
        for name in ("probability", "brightness", "contrast", "saturation", "blur"):
            in_range(f"strong.{name}", getattr(self, name), 0, 1)
        in_range("strong.hue", self.hue, 0, 180)
        in_range("strong.blur_sigma", self.blur_sigma, 0, 20)


@dataclass(frozen=True, kw_only=True)
class DistillConfig:
    """The finished network that teaches a student. Its labels are those of `self_training`.

    Args:
        teacher: run folder, checkpoint folder or model file; a run's config.yaml names the very file.
        sha256: of the teacher's file; empty takes it from the file, and a run's config.yaml holds it.
        temperature: divides the logits of both before they are compared.
        teacher_size: size at which the teacher sees images, the `student`'s or its `own` of training.
    """

    teacher: str = ""
    sha256: str = ""
    temperature: float = 1.0
    teacher_size: Literal["own", "student"] = "student"

    def __post_init__(self) -> None:
        in_range("distill.temperature", self.temperature, 0, 100, open_low=True)
        one_of("distill.teacher_size", self.teacher_size, ("own", "student"))
        if self.sha256 and not re.fullmatch("[0-9a-f]{64}", self.sha256):
            raise UsageError(
                f"distill.sha256 is {self.sha256!r}; allowed: 64 hexadecimal digits in lower case, or nothing. Set "
                "--distill.sha256."
            )


@dataclass(frozen=True, kw_only=True)
class LatentConfig:
    """Form and place of LSR's constraints beside self-training; `distill` knows the defaults of the first three alone.

    Args:
        form: `paper` has the paper's equations, `cosine` the same on directions (`lsr_train.latent.directional`).
        labels: whose labels the target's features get, the `teacher`'s or the `student`'s own.
        image: which features the target's terms see, those of the `mixed` image that is trained on anyway, or of the
            `target` image, which costs one more forward and backward.
        temperature: of the prototype cross-entropy.
    """

    form: Literal["paper", "cosine"] = "cosine"
    labels: Literal["teacher", "student"] = "teacher"
    image: Literal["mixed", "target"] = "mixed"
    temperature: float = 0.1

    def __post_init__(self) -> None:
        one_of("latent.form", self.form, ("paper", "cosine"))
        one_of("latent.labels", self.labels, ("teacher", "student"))
        one_of("latent.image", self.image, ("mixed", "target"))
        in_range("latent.temperature", self.temperature, 0, 10, open_low=True)
