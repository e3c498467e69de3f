"""The training methods by name. A new one is a file beside these and a line here."""

from lsr_train.methods.adaptsegnet_feat import AdaptSegNetFeat
from lsr_train.methods.distill import Distill
from lsr_train.methods.lsr import LSR
from lsr_train.methods.lsr_em import LSREM
from lsr_train.methods.lsr_self_training import LSRSelfTraining
from lsr_train.methods.maxsquare_iw import MaxSquareIW
from lsr_train.methods.method import Method, Network
from lsr_train.methods.minent import MinEnt
from lsr_train.methods.oce import OCE
from lsr_train.methods.sapnet import SAPNet
from lsr_train.methods.self_training import SelfTraining
from lsr_train.methods.source_only import SourceOnly

__all__ = ["METHODS", "Method", "Network"]

METHODS: dict[str, type[Method]] = {
    "source-only": SourceOnly,
    "target-only": SourceOnly,  # its source is the labelled split of the target: the upper bound of mASR (Eq. 9)
    "adaptsegnet-feat": AdaptSegNetFeat,
    "minent": MinEnt,
    "sapnet": SAPNet,
    "maxsquare-iw": MaxSquareIW,
    "oce": OCE,
    "lsr": LSR,
    "lsr-em": LSREM,
    "self-training": SelfTraining,
    "lsr-st": LSRSelfTraining,
    "distill": Distill,
}
