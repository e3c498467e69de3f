"""From a checkpoint to a verified ONNX file: graphs of three precisions, calibration, the parity gate.

`exporter` is the whole, `graph` the float32 graph, `fp16` and `int8` what is made of it, `calibration` and `choice` how
INT8's ranges are found, `gate` and `drift` the proof. Importing this loads neither torch nor onnx.
"""

from lsr_train.exporting.exporter import ExportOptions, FramesOptions, export

__all__ = ["ExportOptions", "FramesOptions", "export"]
