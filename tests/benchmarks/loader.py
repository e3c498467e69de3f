"""How many images a second one loader worker makes with the real pair's recipe, printed as JSON.

    python tests/benchmarks/loader.py --source streets --target camvid [--workers 1] [--seconds 8]

Frames of 480x360 become 320x240 with flip, LAB transfer, linear colour changes, blur and rare-class sampling. The parts
are timed apart, in this process and on one thread.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from lsr_infer.io.images import read_image, read_label, resize_frame, resize_labels
from lsr_train.config.data import AugmentConfig, DataConfig, SourceConfig, TargetConfig
from lsr_train.config.run import Config
from lsr_train.data.augmentation import Augmentation, lab_statistics, lab_transfer
from lsr_train.data.labelled import choose_label_space
from lsr_train.data.labels import encoding_map
from lsr_train.data.layouts import find_pairs
from lsr_train.data.loading import batches_of, build_source, build_target
from lsr_train.randomness import Stream, generator


def recipe(source: str, target: str, workers: int) -> Config:
    """The data part of the recipe `streets_camvid_source`."""
    return Config(
        label_space="camvid11",
        data=DataConfig(
            source=SourceConfig(
                layout="folder", root=source, split="train", ids="cityscapes-trainid", height=240, width=320
            ),
            target=TargetConfig(layout="camvid", root=target, split="train", height=240, width=320),
            batch_size=4,
            workers=workers,
        ),
        augment=AugmentConfig(
            flip=0.5, brightness=0.4, contrast=0.4, saturation=0.4, hue=18.0, blur=0.5, blur_sigma=1.5,
            lab_transfer=0.5, rare_class_temperature=0.05,
        ),
    )  # fmt: skip


def rate(batches: object, size: int, seconds: float) -> float:
    """Images a second of a running loader."""
    for _ in range(10):
        next(batches)  # type: ignore[call-overload]
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        next(batches)  # type: ignore[call-overload]
        count += size
    result = count / (time.perf_counter() - begin)
    batches.close()  # type: ignore[attr-defined]
    return round(result, 1)


def milliseconds(call: Callable[[int], object], times: int = 200) -> float:
    """Median milliseconds of a call, which gets the number of the repetition."""
    taken = []
    for n in range(times):
        begin = time.perf_counter()
        call(n)
        taken.append(time.perf_counter() - begin)
    return round(1e3 * float(np.median(taken)), 3)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--source", required=True)
    parser.add_argument("--target", required=True)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=8.0)
    arguments = parser.parse_args()
    config = recipe(arguments.source, arguments.target, arguments.workers)
    space = choose_label_space(config)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        scans = {}
        for name in ("scan_seconds", "scan_seconds_cached"):
            begin = time.perf_counter()
            target = build_target(config, cache=cache)
            source = build_source(config, space, target, cache=cache)
            scans[name] = round(time.perf_counter() - begin, 3)
    result = {
        "source_images": len(source),
        "target_frames": len(target),
        **scans,
        "workers": arguments.workers,
        "source_images_per_second": rate(batches_of(source, config), 4, arguments.seconds),
        "target_images_per_second": rate(batches_of(target, config), 4, arguments.seconds),
    }
    cv2.setNumThreads(0)
    pairs = find_pairs("folder", arguments.source, "train", "cityscapes-trainid").pairs
    id_map = encoding_map("cityscapes-trainid", space)
    frame, raw = read_image(pairs[0].image), read_label(pairs[0].labels)
    labels, small = id_map.apply(raw), resize_frame(frame, 240, 320)
    own, augmentation = lab_statistics(small), source.augmentation
    assert isinstance(augmentation, Augmentation)
    result["milliseconds"] = {
        "sample": milliseconds(lambda n: source[n]),
        "read_image": milliseconds(lambda n: read_image(pairs[n % len(pairs)].image)),
        "read_label": milliseconds(lambda n: read_label(pairs[n % len(pairs)].labels)),
        "id_map": milliseconds(lambda n: id_map.apply(raw)),
        "resize": milliseconds(lambda n: (resize_frame(frame, 240, 320), resize_labels(labels, 240, 320))),
        "lab_statistics": milliseconds(lambda n: lab_statistics(small)),
        "lab_transfer": milliseconds(lambda n: lab_transfer(small, own, own + 3)),
        "augmentation": milliseconds(
            lambda n: augmentation(frame, labels, generator(0, Stream.SOURCE_AUGMENTATION, n))
        ),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
