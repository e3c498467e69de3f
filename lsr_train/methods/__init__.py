"""The training methods by name. A new one is a file beside these and a line here."""

from lsr_train.methods.distill import Distill
from lsr_train.methods.lsr import LSR
from lsr_train.methods.lsr_em import LSREM
from lsr_train.methods.lsr_self_training import LSRSelfTraining
from lsr_train.methods.method import Method, Network
from lsr_train.methods.self_training import SelfTraining
from lsr_train.methods.source_only import SourceOnly

__all__ = ["METHODS", "Method", "Network"]

METHODS: dict[str, type[Method]] = {
    "source-only": SourceOnly,
    "target-only": SourceOnly,  # its source is the labelled split of the target: the upper bound of mASR (Eq. 9)
    "lsr": LSR,
    "lsr-em": LSREM,
    "self-training": SelfTraining,
    "lsr-st": LSRSelfTraining,
    "distill": Distill,
}
