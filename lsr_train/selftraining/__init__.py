"""Parts of self-training that methods share; none of them knows a method, a configuration or a data set."""

from lsr_train.selftraining.alignment import DistributionAlignment, LabelAlignment
from lsr_train.selftraining.frozen import FrozenTeacher
from lsr_train.selftraining.labelling import PixelLabels, figures, teacher_labels
from lsr_train.selftraining.mixing import class_mix_mask, paste, visible_blocks
from lsr_train.selftraining.rectification import Rectifier
from lsr_train.selftraining.strong import Strength, strong_augmentation, strong_images
from lsr_train.selftraining.teacher import EmaTeacher

__all__ = [
    "DistributionAlignment",
    "EmaTeacher",
    "FrozenTeacher",
    "LabelAlignment",
    "PixelLabels",
    "Rectifier",
    "Strength",
    "class_mix_mask",
    "figures",
    "paste",
    "strong_augmentation",
    "strong_images",
    "teacher_labels",
    "visible_blocks",
]
