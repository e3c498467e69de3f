"""Runs `lsr-infer serve-config MODEL -o REPOSITORY`: writes a model repository for Triton Inference Server."""

import logging
import re
from collections.abc import Sequence

from lsr_infer.commands.parser import ArgumentParser, disk_path, named

__all__ = ["main"]

logger = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> None:
    """Run the command; raises `LsrError`."""
    parser = ArgumentParser(
        "lsr-infer serve-config",
        "MODEL -o REPOSITORY [options]",
        "Write a model repository for NVIDIA's Triton Inference Server: config.pbtxt, the model in\n"
        "version folder 1, its Manifest and the names of its classes.",
        examples=(
            "lsr-infer serve-config model.onnx -o repository",
            "lsr-infer serve-config model.engine -o repository --name roads --max-batch 4 --kind gpu",
        ),
        notes="Exit codes: 0 done, 2 usage, 4 model or place unusable. Start with: tritonserver --model-repository "
        "REPOSITORY",
    )
    add = parser.section("options")
    add("model", type=named, metavar="MODEL", common=True, help=".onnx file or .engine of TensorRT")
    add(
        "-o",
        "--output",
        type=disk_path,
        required=True,
        metavar="REPOSITORY",
        common=True,
        help="folder of the models",
    )
    add("--name", metavar="NAME", common=True, help="of the model at the server (the file's)")
    add("--max-batch", type=int, default=8, metavar="N", common=True, help="frames put together at most (8)")
    add("--delay", type=int, default=2000, metavar="US", common=True, help="microseconds to wait for them (2000)")
    add("--instances", type=int, default=1, metavar="N", common=True, help="copies that run at once (1)")
    add("--kind", choices=("auto", "cpu", "gpu"), default="auto", common=True, help="where they run (auto)")
    add("--overwrite", action="store_true", common=True, help="replace a model of that name")
    add("--allow-unverified", action="store_true", common=True, help="serve an engine whose parity is pending")
    values = parser.parse_args(argv)
    from lsr_infer.backends.model_file import read_model_file
    from lsr_infer.backends.triton import Serving, write_repository
    from lsr_infer.shipped import model_path

    path = model_path(values.model)
    serving = Serving(
        name=values.name if values.name is not None else re.sub(r"[^A-Za-z0-9_-]+", "_", path.stem) or "model",
        max_batch=values.max_batch,
        delay_microseconds=values.delay,
        instances=values.instances,
        kind=values.kind,
    )
    model = read_model_file(path)
    folder = write_repository(
        model, values.output, serving, overwrite=values.overwrite, allow_unverified=values.allow_unverified
    )
    if model.manifest.output == "logits":
        logger.info(
            "this model gives logits, so every client has to make the mask; --outputs classes at the export gives masks"
        )
    if (facts := model.manifest.engine) is not None:
        logger.info("the server needs TensorRT %s and %s", facts.version, facts.gpu or "its GPU")
    logger.info("written: %s; start with: tritonserver --model-repository %s", folder, values.output)
