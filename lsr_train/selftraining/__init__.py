"""Provides the parts of self-training that methods share; none of them knows a method or a data set."""

from lsr_train.selftraining.mixing import class_mix_mask, paste, visible_blocks
from lsr_train.selftraining.strong import Strength, strong_augmentation, strong_images
from lsr_train.selftraining.teacher import EmaTeacher, FrozenTeacher
from lsr_train.selftraining.teacher_labels import (
    DistributionAlignment,
    LabelAlignment,
    PixelLabels,
    Rectifier,
    pixel_means,
    teacher_labels,
)

__all__ = [
    "DistributionAlignment",
    "EmaTeacher",
    "FrozenTeacher",
    "LabelAlignment",
    "PixelLabels",
    "Rectifier",
    "Strength",
    "class_mix_mask",
    "paste",
    "pixel_means",
    "strong_augmentation",
    "strong_images",
    "teacher_labels",
    "visible_blocks",
]
