"""Trains critics that tell the domain of encoder features, and features against them."""
