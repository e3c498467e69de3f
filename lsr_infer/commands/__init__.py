"""Holds the commands of `lsr-infer`, one module each; heavy imports wait until a command line is understood."""

__all__: list[str] = []
