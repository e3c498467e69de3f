"""Run an exported road-scene segmentation network; needs no torch."""

__all__: list[str] = []
