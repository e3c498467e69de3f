"""Tables of methods: which runs a table needs, how they are run side by side, and what came of them.

It knows configurations and run folders. What a method computes it learns from the files that the commands write.
"""

__all__: list[str] = []
