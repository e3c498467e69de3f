"""Trains and scores the methods of a table from configurations and run folders."""
