"""Draws what the paper shows of a network, and what it leaves out: first the numbers, then the drawings."""
