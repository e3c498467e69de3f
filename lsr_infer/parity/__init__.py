"""Compares an exported model with the one it was made from."""
