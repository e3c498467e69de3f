"""The sparse mask against the whole float32 interpolation: equal pixels on many cases, and how much faster.

    python tests/benchmarks/exact_masks.py [--cases 1000]

Prints JSON. Times are the best of several, ratios are within this run.
"""

import argparse
import json
import time
from collections.abc import Callable

import cv2
import numpy as np

from lsr_infer.masks import interpolate, upsample_argmax


def blobs(rng: np.random.Generator, classes: int, h: int, w: int, coarse: int) -> np.ndarray:
    """Logits with regions and borders [C,h,w]."""
    small = rng.normal(scale=5, size=(classes, max(2, h // coarse), max(2, w // coarse))).astype(np.float32)
    return np.stack([cv2.resize(one, (w, h), interpolation=cv2.INTER_CUBIC) for one in small])


def best_ms(work: Callable[[], object], times: int) -> float:
    """Return the shortest of several runs in milliseconds."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        work()
        taken.append(1e3 * (time.perf_counter() - begun))
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1000)
    cases = parser.parse_args().cases
    rng = np.random.default_rng(0)
    different = 0
    for _ in range(cases):
        h, w = (int(side) for side in rng.integers(2, 40, size=2))
        logits = blobs(rng, int(rng.integers(2, 20)), h, w, int(rng.integers(1, 6)))
        if rng.random() < 0.3:
            logits = np.round(logits)  # exact ties
        size = int(rng.integers(1, 12 * h)), int(rng.integers(1, 12 * w))
        different += int((upsample_argmax(logits, *size) != interpolate(logits, *size).argmax(0)).sum())
    report: dict[str, object] = {"random_cases": cases, "pixels_that_differ": different}
    for coarse in (12, 5):
        logits = blobs(rng, 19, 65, 129, coarse)
        winner = logits.argmax(0)
        corners = np.stack([winner[:-1, :-1], winner[1:, :-1], winner[:-1, 1:], winner[1:, 1:]])
        sparse = best_ms(lambda logits=logits: upsample_argmax(logits, 1024, 2048), 5)  # type: ignore[misc]
        full = best_ms(lambda logits=logits: interpolate(logits, 1024, 2048).argmax(0), 1)  # type: ignore[misc]
        entry: dict[str, object] = {
            "mixed_cells": round(float((corners.min(0) != corners.max(0)).mean()), 3),
            "sparse_ms": round(sparse, 1),
            "full_numpy_over_sparse": round(full / sparse, 1),
        }
        try:
            import torch
        except ImportError:
            entry["torch_over_sparse"] = "torch is not installed"
        else:
            tensor = torch.from_numpy(logits)[None]

            def graph(tensor: "torch.Tensor" = tensor) -> object:
                return torch.nn.functional.interpolate(
                    tensor, size=(1024, 2048), mode="bilinear", align_corners=True
                ).argmax(1)

            entry["torch_over_sparse"] = round(best_ms(graph, 2) / sparse, 1)
        report[f"65x129_to_1024x2048_blobs_{coarse}"] = entry
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
