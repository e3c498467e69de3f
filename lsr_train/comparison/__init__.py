"""Trains and scores the methods of a table: its runs, how they share devices, and their results.

It knows configurations and run folders. What a method computes it learns from the files that the commands write.
"""

__all__: list[str] = []
