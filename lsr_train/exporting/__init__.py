"""Exports a checkpoint as a verified ONNX file in one of three precisions.

`exporter` is the whole, `graph` the float32 graph, `precisions` what is made of it, `calibration` how INT8's ranges are
found, `checkpoint_parity` the proof. Importing this loads neither torch nor onnx.
"""

from lsr_train.exporting.exporter import ExportOptions, FramesOptions, export

__all__ = ["ExportOptions", "FramesOptions", "export"]
