"""Turn a checkpoint into one ONNX file that carries its Manifest, and prove that both compute the same.

    python export/to_onnx.py RUN -o model.onnx [--size 1024x512] [--frames FOLDER|VIDEO]
    python export/to_onnx.py RUN -o model_int8.onnx --precision int8 [--for tensorrt] [--calibrate FOLDER|VIDEO]

The file appears only after it has been compared with the checkpoint, frame by frame, in ONNX Runtime.
"""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from lsr_infer.arguments import ArgumentParser, parse_size
from lsr_infer.errors import exit_status
from lsr_infer.manifest import OUTPUTS, PRECISIONS
from lsr_infer.parity import bar_for
from lsr_train.exporting import ExportOptions, FramesOptions, export
from lsr_train.exporting.frames import LABEL_IDS
from lsr_train.exporting.graph import OPSET, OPSETS
from lsr_train.exporting.int8 import SCHEMES

logger = logging.getLogger("to_onnx")


def build_parser() -> ArgumentParser:
    """Return the command line's parser."""
    parser = ArgumentParser("to_onnx.py", (__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("checkpoint", type=Path, metavar="CHECKPOINT", help="run folder, .safetensors or .pth")
    add("-o", "--output", type=Path, required=True, metavar="MODEL.onnx", help="the file to write")
    add("--precision", choices=PRECISIONS, default="fp32", help="of weights and arithmetic (fp32)")
    add("--for", dest="runtime", choices=tuple(SCHEMES),
        help="runtime of an INT8 file, whose wishes differ (onnxruntime); other precisions serve both")  # fmt: skip
    add("--outputs", choices=OUTPUTS, default="logits", help="logits at feature size, for lsr-infer's exact masks "
        "(default), or the class of every pixel, for other consumers")  # fmt: skip
    add("--size", metavar="WxH", help="the graph takes this size alone (default: every size)")
    add("--working-size", metavar="WxH", help="size a free graph works at (default: as trained)")
    add("--opset", type=int, choices=OPSETS, default=OPSET, help=f"of the graph ({OPSET})")
    add("--calibrate", type=Path, metavar="FOLDER|VIDEO",
        help="INT8: frames to take ranges from (default: the checkpoint's training frames)")  # fmt: skip
    add("--calibration-frames", type=int, default=32, metavar="N", help="INT8: look at N of them (32)")
    add("--weight-bits", type=int, choices=(7, 8), default=8,
        help="INT8: 7 for x86 processors without VNNI, whose sums saturate (8)")  # fmt: skip
    add("--frames", type=Path, metavar="FOLDER|VIDEO|IMAGE", help="compare on these (default: frames kept back from "
        "--calibrate, else Toytown)")  # fmt: skip
    add("--num-frames", type=int, default=8, metavar="N", help="compare on at most N frames (8)")
    add("--labels", type=Path, metavar="FOLDER", help="label images of --frames, to compare mean IoU as well")
    add("--label-ids", choices=LABEL_IDS, default="classes", help="what they hold (classes: the model's own numbers)")
    add(
        "--agreement",
        type=float,
        metavar="SHARE",
        help="least share of equal pixels (fp32 0.9999, fp16 0.995, int8 0.9)",
    )
    add("--clear-agreement", type=float, metavar="SHARE", help="the same of clear places (int8 0.99)")
    add("--margin", type=float, metavar="LOGITS", help="a pixel is clear if its top two logits differ by so much (1)")
    add("--miou-loss", type=float, metavar="POINTS", help="most that mean IoU may fall, with labels (int8 1)")
    add("--report", type=Path, metavar="FILE.json", help="write all figures there, layer by layer, also on failure")
    add("--label-space", metavar="NAME|YAML", help="classes of a checkpoint that does not name its own")
    add("--overwrite", action="store_true", help="replace an existing file")
    return parser


def main(arguments: Sequence[str] | None = None) -> int | None:
    """Run the command."""
    options = build_parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    if options.runtime is not None and options.precision != "int8":
        logger.info("--for %s changes nothing: one %s file serves ONNX Runtime and TensorRT alike",
                    options.runtime, options.precision)  # fmt: skip
    space = None
    if options.label_space:
        from lsr_train.labels import load_label_space

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
