"""Runs a model over sources: decoding, inference and encoding overlap."""
