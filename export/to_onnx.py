"""Turn a checkpoint into one ONNX file that carries its Manifest, and prove that both compute the same.

    python export/to_onnx.py RUN -o model.onnx [--size 1024x512] [--frames FOLDER|VIDEO]
    python export/to_onnx.py RUN -o model_int8.onnx --precision int8 [--for tensorrt] [--calibrate FOLDER|VIDEO]

The file appears only after it has been compared with the checkpoint, frame by frame, in ONNX Runtime.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lsr_infer.commands.parser import ArgumentParser, parse_size
from lsr_infer.errors import exit_status, stderr_handler
from lsr_infer.manifest import OUTPUTS, PRECISIONS
from lsr_infer.parity.meter import bar_for
from lsr_train.exporting import ExportOptions, FramesOptions, export
from lsr_train.exporting.frames import LABEL_IDS
from lsr_train.exporting.graph import OPSET, OPSETS
from lsr_train.exporting.precisions import SCHEMES

logger = logging.getLogger("to_onnx")

_EPILOG = (
    "The file appears only after it has been compared with the checkpoint. Exit codes: 0 done, 2 usage, a file that is "
    "there already included, 3 a package of the extra export is missing, 4 checkpoint, frames, labels or the place of "
    "the file unusable, 5 the comparison missed its bar, 130 interrupted."
)


_HELP = {
    "checkpoint": "run folder (its best checkpoint, else its last), .safetensors or .pth",
    "--output": "the file to write",
    "--precision": "of weights and arithmetic (fp32); int8 needs frames to calibrate on",
    "--for": "the runtime an INT8 file is for: each computes fast from a form of its own (onnxruntime); fp32 and fp16 "
    "files serve both",
    "--outputs": "logits at feature size, for lsr-infer's exact masks (default), or the class of every pixel, for "
    "other consumers and for TensorRT",
    "--size": "the graph takes this size alone (default: every size)",
    "--working-size": "the size to bring frames to where the graph takes every size (default: that of the training)",
    "--opset": f"ONNX operator set of the graph ({OPSET})",
    "--calibrate": "INT8: unlabelled frames like those of the camera, to take ranges from (default: the training "
    "frames of the run that CHECKPOINT is)",
    "--calibration-frames": "INT8: take ranges from N of them (32); up to 16 more are kept back to choose and to prove",
    "--weight-bits": "INT8: 7 for x86 processors without VNNI, whose sums saturate (8)",
    "--frames": "compare on these (default: frames kept back from calibration, else the shipped Toytown ones)",
    "--num-frames": "compare on at most N frames, none of which calibrates (8)",
    "--labels": "label images of --frames, named as they are, to compare mean IoU as well (default: where "
    "--frames is a folder that holds images and labels, those labels)",
    "--label-ids": "what they hold: the model's own class numbers, 255 for void (classes), or Cityscapes' ids or "
    "training ids, which are brought to its classes",
    "--agreement": "least share of equal pixels (fp32 0.9999, fp16 0.995, int8 0.9)",
    "--clear-agreement": "the same of clear places (int8 0.99)",
    "--margin": "a place is clear if the checkpoint's top two logits differ by so much (1)",
    "--miou-loss": "most that mean IoU may fall, with labels (int8 1)",
    "--report": "write all figures there, layer by layer, also where the bar is missed",
    "--label-space": "classes of a checkpoint that does not name its own, such as cityscapes19, or a classes.yaml",
    "--overwrite": "replace existing files",
}


def build_parser() -> ArgumentParser:
    """Return the command line's parser."""
    parser = ArgumentParser("to_onnx.py", (__doc__ or "").partition("\n")[0], epilog=_EPILOG)

    def add(name: str, *short: str, **options: Any) -> None:
        parser.add_argument(*short, name, help=_HELP[name], **options)

    add("checkpoint", type=Path, metavar="CHECKPOINT")
    add("--output", "-o", type=Path, required=True, metavar="MODEL.onnx")
    add("--precision", choices=PRECISIONS, default="fp32")
    add("--for", dest="runtime", choices=tuple(SCHEMES))
    add("--outputs", choices=OUTPUTS, default="logits")
    add("--size", metavar="WxH")
    add("--working-size", metavar="WxH")
    add("--opset", type=int, choices=OPSETS, default=OPSET)
    add("--calibrate", type=Path, metavar="FOLDER|VIDEO")
    add("--calibration-frames", type=int, default=32, metavar="N")
    add("--weight-bits", type=int, choices=(7, 8), default=8)
    add("--frames", type=Path, metavar="FOLDER|VIDEO|IMAGE")
    add("--num-frames", type=int, default=8, metavar="N")
    add("--labels", type=Path, metavar="FOLDER")
    add("--label-ids", choices=LABEL_IDS, default="classes")
    add("--agreement", type=float, metavar="SHARE")
    add("--clear-agreement", type=float, metavar="SHARE")
    add("--margin", type=float, metavar="LOGITS")
    add("--miou-loss", type=float, metavar="POINTS")
    add("--report", type=Path, metavar="FILE.json")
    add("--label-space", metavar="NAME|YAML")
    add("--overwrite", action="store_true")
    return parser


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Run the command."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, handlers=[stderr_handler()])
    if options.runtime is not None and options.precision != "int8":
        logger.info("--for %s changes nothing: one %s file serves ONNX Runtime and TensorRT alike",
                    options.runtime, options.precision)  # fmt: skip
    space = None
    if options.label_space:
        from lsr_train.data.labels import load_label_space

        space = load_label_space(options.label_space)
    manifest = export(
        options.checkpoint,
        options.output,
        ExportOptions(
            precision=options.precision,
            runtime=options.runtime or "onnxruntime",
            outputs=options.outputs,
            size=parse_size(options.size) if options.size else None,
            working_size=parse_size(options.working_size) if options.working_size else None,
            opset=options.opset,
            weight_bits=options.weight_bits,
            bar=bar_for(
                options.precision,
                agreement=options.agreement,
                clear_agreement=options.clear_agreement,
                margin=options.margin,
                miou_loss=options.miou_loss,
            ),
            label_space=space,
            overwrite=options.overwrite,
            report=options.report,
        ),
        FramesOptions(
            compare=options.frames,
            labels=options.labels,
            label_ids=options.label_ids,
            count=options.num_frames,
            calibrate=options.calibrate,
            calibration_count=options.calibration_frames,
        ),
    )
    parity = manifest.parity
    assert parity is not None
    logger.info("parity with the checkpoint on %s: %s", parity.frames_from, parity.describe())
    logger.info("written: %s (%.1f MB)", options.output, options.output.stat().st_size / 1e6)
    return None


if __name__ == "__main__":
    sys.exit(exit_status(main))
