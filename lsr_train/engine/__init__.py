"""Trains: the loop, the optimiser, logging and checkpoint selection."""
