"""Exports a checkpoint as a verified ONNX file in one of three precisions; importing it loads no torch and no onnx."""

from lsr_train.exporting.exporter import ExportOptions, FramesOptions, export

__all__ = ["ExportOptions", "FramesOptions", "export"]
