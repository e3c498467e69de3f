"""Remakes docs/student_curve.png from what `tests/benchmarks/student_curve.py` printed (`make student-plot`).

python docs/student_curve.py CURVE.json
"""

import argparse
import io
import json
from pathlib import Path

from lsr_infer.io.files import write_bytes


def main() -> None:
    """Write the picture beside this file, or where told."""
    parser = argparse.ArgumentParser(description="Remake the plot of speed against accuracy in docs/results.md.")
    parser.add_argument("curve", type=Path)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "student_curve.png")
    options = parser.parse_args()
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    document = json.loads(options.curve.read_text(encoding="utf-8"))
    models = [entry for entry in document["models"] if "miou" in entry]
    figure, axes = pyplot.subplots(figsize=(6.4, 3.6), layout="constrained")
    for precision, marker in (("fp32", "o"), ("int8", "s")):
        points = [entry for entry in models if entry["precision"] == precision]
        x = [entry["times_faster_by_processor"] for entry in points]
        y = [100 * entry["miou"] for entry in points]
        axes.plot(x, y, marker, label=precision.upper())
        for entry, right, up in zip(points, x, y, strict=True):
            axes.annotate(entry["model"], (right, up), textcoords="offset points", xytext=(6, 4), fontsize=8)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    threads = "one CPU thread" if document["threads"] == 1 else f"{document['threads']} CPU threads"
    axes.set_xlabel(f"times faster than the teacher in FP32 (ONNX Runtime, {threads})")
    axes.set_ylabel("mIoU on CamVid val, %")
    axes.margins(x=0.25, y=0.15)
    axes.grid(alpha=0.3)
    axes.legend()
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=110)
    write_bytes(options.output, data.getvalue())


if __name__ == "__main__":
    main()
