"""Keeps runs on disk: their folder, checkpoints, training state, and what they were computed with."""
