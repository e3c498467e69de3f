"""Builds, verifies and runs engines of TensorRT and TensorRT for RTX.

Importing this package loads neither library, and no device is asked.
"""
