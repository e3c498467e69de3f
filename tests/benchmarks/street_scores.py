"""Scores of networks of Cityscapes' classes on real streets that they never saw: CamVid val and IDD-Lite val.

    python -m tests.benchmarks.street_scores street street-source --shared ../shared [--size 400x224]

Prints JSON, in per cent: mIoU and each class's IoU in CamVid's 11 groups and in IDD-Lite's 7 classes, of shipped
networks by name or of exported files. The runtime computes the masks, as `lsr-infer` does.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lsr_infer.commands.parser import parse_size
from lsr_infer.io.images import read_image, read_label
from lsr_infer.labelspace import IGNORE_INDEX, LabelSpace
from lsr_infer.segmenter import Segmenter
from lsr_train.data.classes_file import load_classes
from lsr_train.data.labels import CAMVID_11, CITYSCAPES_19, translation
from lsr_train.metrics import ConfusionMatrix, iou, mean_iou


def groups_of_idd(shared: Path) -> tuple[LabelSpace, NDArray[np.uint8]]:
    """Return IDD-Lite's classes, and the one of each Cityscapes train id."""
    classes = load_classes(shared / "data" / "streets_idd7" / "classes.yaml")
    table = np.full(256, IGNORE_INDEX, dtype=np.uint8)
    for train_id, label in classes.id_map.labels.items():
        table[train_id] = label
    return classes.space, table


def score(
    segmenter: Segmenter, folder: Path, space: LabelSpace, table: NDArray[np.uint8], of_labels: NDArray[np.uint8],
    size: tuple[int, int] | None,
) -> dict[str, Any]:  # fmt: skip
    """Return the scores on the images of a folder; tables carry predictions and labels into the space."""
    matrix = ConfusionMatrix(space.num_classes)
    for file in sorted((folder / "images" / "val").iterdir()):
        labels = of_labels[read_label(folder / "labels" / "val" / f"{file.stem}.png")]
        found = table[segmenter(read_image(file), size=size).classes]
        matrix.update(torch.from_numpy(labels), torch.from_numpy(found))
    values = iou(matrix.matrix)
    shown = {name: round(100 * float(value), 1) for name, value in zip(space.names, values, strict=True)}
    return {"miou": round(100 * mean_iou(values), 1), "iou": shown}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--shared", type=Path, required=True)
    parser.add_argument("--size", type=parse_size)
    options = parser.parse_args()
    data, own = options.shared / "data", np.arange(256, dtype=np.uint8)
    to_camvid, (idd, to_idd) = translation(CITYSCAPES_19, CAMVID_11), groups_of_idd(options.shared)
    report = {}
    for name in options.models:
        with Segmenter(name, device="cpu") as segmenter:
            report[name] = {
                "camvid": score(segmenter, data / "camvid", CAMVID_11, to_camvid, to_camvid, options.size),
                "idd": score(segmenter, data / "idd_lite", idd, to_idd, own, options.size),
            }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
