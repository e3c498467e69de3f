"""Picks the frames of the target that are most worth a person's labels, and writes them for a label tool."""
