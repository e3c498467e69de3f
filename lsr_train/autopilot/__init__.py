"""Runs `adapt` as one command: chooses what nobody stated, trains the source stage, adapts, and writes a summary."""
