"""What each precision loses in mean IoU on trained weights of the real pair, and how far it agrees with the checkpoint.

    python tests/benchmarks/int8_accuracy.py RUN --shared ../shared [--num-frames 101]

RUN is a run of the real pair (`tests/benchmarks/real_pair.py` makes them). INT8 is calibrated on CamVid's train images
without their labels; the labels of val are for the figures alone and choose nothing. Prints JSON.
"""

import argparse
import json
import logging
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lsr_infer.errors import QualityGateError, exit_status
from lsr_train.exporting import ExportOptions, FramesOptions, export

FILES = (("fp32", "onnxruntime"), ("fp16", "onnxruntime"), ("int8", "onnxruntime"), ("int8", "tensorrt"))


def measure(run: Path, folder: Path, options: ExportOptions, frames: FramesOptions) -> dict[str, Any]:
    """Export one file and return its figures, whether the gate lets it pass or not."""
    path = folder / "model.onnx"
    started = time.perf_counter()
    try:
        export(run, path, options, frames)
    except QualityGateError as error:
        logging.warning("the gate is closed: %s", error)
    assert options.report is not None
    report = json.loads(options.report.read_text(encoding="utf-8"))
    parity = report["parity"]
    if parity is None:  # the gate closed before a frame was compared
        return {"passed": False, "failure": report["failure"]}
    entry = {
        "passed": report["passed"],
        "miou_checkpoint": parity["miou_reference"],
        "miou": parity["miou"],
        "miou_loss_points": 100 * (parity["miou_reference"] - parity["miou"]),
        "agreement": parity["agreement"],
        "clear_agreement": parity["clear_agreement"],
        "class_iou_difference_points": {k: 100 * v for k, v in parity["class_iou_difference"].items()},
        "file_mb": path.stat().st_size / 1e6 if path.is_file() else None,
        "export_seconds": time.perf_counter() - started,
    }
    if report["quantization"] is not None:
        entry |= {"calibration": report["quantization"]["calibration"], "candidates": report["candidates"]}
    return entry


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--shared", type=Path, required=True, help="the folder that holds data/camvid")
    parser.add_argument("--num-frames", type=int, default=101)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    camvid = options.shared / "data" / "camvid"
    report: dict[str, Any] = {"frames": options.num_frames}
    for precision, runtime in FILES:
        with tempfile.TemporaryDirectory() as folder:
            wanted = ExportOptions(precision=precision, runtime=runtime, report=Path(folder) / "report.json")
            frames = FramesOptions(
                compare=camvid / "images" / "val",
                labels=camvid / "labels" / "val",
                label_ids="cityscapes-trainid",
                count=options.num_frames,
                calibrate=camvid / "images" / "train" if precision == "int8" else None,
            )
            name = f"{precision} for {runtime}" if precision == "int8" else precision
            report[name] = measure(options.run, Path(folder), wanted, frames)
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    sys.exit(exit_status(main))
