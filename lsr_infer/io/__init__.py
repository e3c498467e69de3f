"""Reads and writes images, paths and atomic files."""
