"""Evaluates networks: scores against labels, and signals that need none."""
