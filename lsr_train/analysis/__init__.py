"""What the paper's figures show of a network, and what they leave out: first the numbers, then the drawings."""
