"""Computes losses on logits and features with plain functions that know no method, data set or configuration."""

from lsr_train.losses.pixel import cross_entropy, distillation_loss, entropy_loss, max_square_loss, upsample

__all__ = ["cross_entropy", "distillation_loss", "entropy_loss", "max_square_loss", "upsample"]
