"""Runs the commands of `python -m lsr_train`; what they run is imported only then."""
