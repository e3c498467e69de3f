"""Scores networks on labelled images, and by signals that need no label."""
