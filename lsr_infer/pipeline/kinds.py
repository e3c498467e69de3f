"""The words a command line may say about results: what is saved, and which numbers masks hold. Light to import."""

__all__ = ["KINDS", "MASK_IDS"]

KINDS = ("overlay", "mask", "confidence", "json")
"""What can be saved."""

MASK_IDS = ("train", "cityscapes")
"""Which numbers a mask can hold: class indices with 255 for void, or Cityscapes' label ids with 0 for void."""
