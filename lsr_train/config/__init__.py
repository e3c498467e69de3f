"""Holds the configuration, a typed tree of frozen dataclasses read from recipes and the command line."""
