"""Reads and writes videos and live streams with PyAV."""
