"""Turns a checkpoint into one ONNX file that carries its Manifest, and proves that both compute the same.

    python export/to_onnx.py RUN -o model.onnx [--size 1024x512] [--frames FOLDER|VIDEO]
    python export/to_onnx.py RUN -o model_int8.onnx --precision int8 [--for tensorrt] [--calibrate FOLDER|VIDEO]

The file appears only after it has been compared with the checkpoint, frame by frame, in ONNX Runtime.
"""

import logging
import sys
from collections.abc import Sequence

from lsr_infer.commands.parser import ArgumentParser, disk_path, named, parse_size
from lsr_infer.errors import exit_status, stderr_handler
from lsr_infer.io.store_cache import local_path
from lsr_infer.manifest import OUTPUTS, PRECISIONS
from lsr_infer.parity.meter import add_parity_options, bar_for
from lsr_train.commands.option_names import with_own_names
from lsr_train.config.fields import whole_numbers
from lsr_train.exporting import ExportOptions, FramesOptions, export
from lsr_train.exporting.calibration import LABEL_IDS
from lsr_train.exporting.graph import OPSET, OPSETS
from lsr_train.exporting.precisions import SCHEMES

logger = logging.getLogger("to_onnx")


def build_parser() -> ArgumentParser:
    """Return the command line's parser."""
    parser = ArgumentParser(
        "to_onnx.py",
        "CHECKPOINT -o MODEL.onnx [options]",
        "Turn a checkpoint into one ONNX file that carries its Manifest, and prove that both compute the\n"
        "same. The file appears only after it has been compared with the checkpoint.",
        examples=(
            "python export/to_onnx.py runs/adapt -o model.onnx --size 1024x512",
            "python export/to_onnx.py runs/adapt -o model_int8.onnx --precision int8 --calibrate drive.mp4",
        ),
        notes="Exit codes: 0 done, 2 usage or an existing file, 3 a package of the extra export is missing,\n"
        "4 checkpoint, frames, labels or place unusable, 5 the comparison missed its bar, 130 interrupted.\n"
        "More: docs/export.md",
    )
    add = parser.section("file")
    add("checkpoint", type=named, metavar="CHECKPOINT", common=True, help="run folder (its best checkpoint, else its "
        "last), .safetensors or .pth")  # fmt: skip
    add("-o", "--output", type=disk_path, required=True, metavar="MODEL.onnx", common=True, help="the file to write")
    add("--overwrite", action="store_true", common=True, help="replace existing files")
    add("--label-space", metavar="NAME|YAML", help="classes of a checkpoint that does not name its own, such as "
        "cityscapes19, or a classes.yaml")  # fmt: skip
    add("--dilations", metavar="A,B", help="of the classifier of a published .pth, whose names do not tell them: "
        "6,12,18,24 as in ADVENT's code, or 6,12 as in AdaptSegNet's (6,12)")  # fmt: skip
    add("--licence", metavar="TEXT", default="", help="of the weights, for the Manifest (the checkpoint's)")
    add("--meant-for", metavar="TEXT", default="", help="what the network is for and what not, for the Manifest (the "
        "checkpoint's)")  # fmt: skip
    add = parser.section("graph")
    add("--precision", choices=PRECISIONS, default="fp32", common=True, help="of weights and arithmetic (fp32); int8 "
        "needs frames to calibrate on")  # fmt: skip
    add("--for", dest="runtime", choices=tuple(SCHEMES), common=True, help="the runtime an INT8 file is for "
        "(onnxruntime); others serve both")  # fmt: skip
    add("--outputs", choices=OUTPUTS, default="logits", common=True, help="logits, for lsr-infer's exact masks "
        "(default), or classes of all pixels, for TensorRT and other consumers")  # fmt: skip
    add("--size", metavar="WxH", common=True, help="the graph takes this size alone (every size)")
    add("--working-size", metavar="WxH", help="the size to bring frames to where the graph takes every size (that of "
        "the training)")  # fmt: skip
    add("--opset", type=int, choices=OPSETS, default=OPSET, help=f"ONNX operator set of the graph ({OPSET})")
    add = parser.section("calibration")
    add("--calibrate", type=named, metavar="PLACE", common=True, help="INT8: folder or video of unlabelled frames to "
        "take ranges from (the run's training frames)")  # fmt: skip
    add("--calibration-frames", type=int, default=32, metavar="N", help="INT8: take ranges from N of them (32); up to "
        "16 more are kept back to choose and to prove")  # fmt: skip
    add("--weight-bits", type=int, choices=(7, 8), default=8, help="INT8: 7 for x86 processors without VNNI, whose "
        "sums saturate (8)")  # fmt: skip
    add = parser.section("comparison")
    add_parity_options(add, reference="checkpoint", frames="those kept back from calibration, else shipped ones")
    add("--label-ids", choices=LABEL_IDS, default="classes", help="what --labels hold: the model's own class numbers "
        "(classes), or Cityscapes' ids or training ids, which are brought to its classes")  # fmt: skip
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
        from lsr_train.data.classes_file import load_label_space

        space = load_label_space(options.label_space)
    how = ExportOptions(
        precision=options.precision, runtime=options.runtime or "onnxruntime", outputs=options.outputs,
        size=parse_size(options.size) if options.size else None,
        working_size=parse_size(options.working_size) if options.working_size else None, opset=options.opset,
        weight_bits=options.weight_bits, bar=bar_for(**vars(options)), label_space=space, overwrite=options.overwrite,
        licence=options.licence, intended_use=options.meant_for, report=options.report,
        dilations=whole_numbers("dilations", options.dilations or ""),
    )  # fmt: skip
    frames = FramesOptions(
        compare=options.frames, labels=options.labels, label_ids=options.label_ids, count=options.num_frames,
        calibrate=options.calibrate and local_path(options.calibrate), calibration_count=options.calibration_frames,
    )  # fmt: skip
    with with_own_names():
        manifest = export(options.checkpoint, options.output, how, frames)
    parity = manifest.parity
    assert parity is not None
    logger.info("parity with the checkpoint on %s: %s", parity.frames_from, parity.describe())
    logger.info("written: %s (%.1f MB)", options.output, options.output.stat().st_size / 1e6)
    return None


if __name__ == "__main__":
    sys.exit(exit_status(main, needs="export"))
