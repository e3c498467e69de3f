"""`lsr-infer serve-config MODEL -o REPOSITORY`: a model repository for Triton Inference Server."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from lsr_infer.commands.parser import ArgumentParser

__all__ = ["main"]

logger = logging.getLogger(__name__)


def main(words: Sequence[str]) -> None:
    """Run the command; raises `LsrError`."""
    parser = ArgumentParser(
        "lsr-infer serve-config",
        "Write a model repository for NVIDIA's Triton Inference Server: config.pbtxt, the model in version folder 1, "
        "its Manifest and the names of its classes.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help=".onnx file or .engine of TensorRT")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="REPOSITORY", help="folder of the models")
    parser.add_argument("--name", metavar="NAME", help="of the model at the server (the file's)")
    parser.add_argument("--max-batch", type=int, default=8, metavar="N", help="frames put together at most (8)")
    parser.add_argument("--delay", type=int, default=2000, metavar="US", help="microseconds to wait for them (2000)")
    parser.add_argument("--instances", type=int, default=1, metavar="N", help="copies that run at once (1)")
    parser.add_argument("--kind", choices=("auto", "cpu", "gpu"), default="auto", help="where they run (auto)")
    parser.add_argument("--overwrite", action="store_true", help="replace a model of that name")
    parser.add_argument("--allow-unverified", action="store_true", help="serve an engine whose parity is pending")
    values = parser.parse_args(words)
    from lsr_infer.backends.model_file import read_model_file
    from lsr_infer.backends.triton import Serving, write_repository

    serving = Serving(
        name=values.name if values.name is not None else re.sub(r"[^A-Za-z0-9_-]+", "_", values.model.stem) or "model",
        max_batch=values.max_batch,
        delay_microseconds=values.delay,
        instances=values.instances,
        kind=values.kind,
    )
    model = read_model_file(values.model)
    folder = write_repository(
        model, values.output, serving, overwrite=values.overwrite, allow_unverified=values.allow_unverified
    )
    if model.manifest.output == "logits":
        logger.info(
            "this model gives logits, so every client has to make the mask; --outputs classes at the export gives masks"
        )
    if model.manifest.engine is not None:
        logger.info(
            "the server needs TensorRT %s and %s", model.manifest.engine.version, model.manifest.engine.gpu or "its GPU"
        )
    logger.info("written: %s; start with: tritonserver --model-repository %s", folder, values.output)
