"""Self-training: an averaged teacher's labels on mixed images (DACS, Tranheden et al. 2021)."""

from lsr_train.methods.self_training_terms import SelfTrainingMethod

__all__ = ["SelfTraining"]


class SelfTraining(SelfTrainingMethod):
    """L = L_CE(source) + lambda_ST L_CE(mixed), with the switches of `config.self_training`."""
