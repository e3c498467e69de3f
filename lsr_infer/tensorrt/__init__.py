"""TensorRT and TensorRT for RTX: building engines, judging them, and deciding whether one may be opened here.

Importing this package loads neither library, and no device is asked.
"""
