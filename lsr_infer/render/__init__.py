"""Turns logits into full-size masks, and masks into pictures."""
