"""Holds the commands of `python -m lsr_train`, one module each; imported only when they run."""
