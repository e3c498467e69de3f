"""LSR: cross-entropy on the source and the paper's three constraints on the latent space (paper, Eq. 4)."""

from lsr_train.methods.latent_terms import LatentMethod

__all__ = ["LSR"]


class LSR(LatentMethod):
    """L = L_CE + lambda_C L_C + lambda_P L_P + lambda_N L_N (paper, Eq. 4)."""
