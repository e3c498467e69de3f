"""Asks the machine for processors, memory and CUDA devices."""
