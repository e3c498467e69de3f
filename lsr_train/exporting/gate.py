"""The parity gate: a file is compared with its checkpoint on frames, in ONNX Runtime, before it appears.

Below the bar the message names the class and the layer that drift most.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lsr_infer.errors import InputError, QualityGateError
from lsr_infer.io.images import resize_labels
from lsr_infer.manifest import Manifest
from lsr_infer.parity.frames import FrameSet, working_image
from lsr_infer.parity.metrics import Parity, ParityMeter
from lsr_infer.parity.verdict import Comparison, Verdict
from lsr_infer.render.masks import upsample_argmax
from lsr_infer.segmenter import Segmenter
from lsr_train.exporting.drift import layer_drift, worst_layer

__all__ = ["Written", "compare", "judge"]

_DRIFT_FRAMES = 2
"""Frames that a search for the drifting layer looks at: the answer is the same on each, and one costs two forwards."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """An exported file that waits for its verdict.

    Args:
        path: where it lies.
        model: what is in it, an `onnx.ModelProto`.
        manifest: what it says about itself.
    """

    path: Path
    model: Any
    manifest: Manifest


def compare(network: Any, model: Path, frames: FrameSet, *, margin: float = 1.0) -> Parity:
    """Compare a checkpoint's network with an exported file on frames.

    Args:
        network: a `DeepLabV2` in evaluation mode, on the CPU.
        model: the exported file.
        frames: what to compare on.
        margin: least distance of the top two logits at a clear pixel.

    Returns:
        The figures; a frame's classes are compared at its own size, or at the graph's where it gives classes.

    Raises:
        QualityGateError: the file fails on a frame, or logits are not finite.
    """
    import torch

    try:
        opened = Segmenter(model, device="cpu", backend="onnxruntime")
    except InputError as error:
        raise QualityGateError(f"{model.name}: the exported graph cannot be opened ({error})") from error
    with opened as segmenter, torch.inference_mode():
        meter = ParityMeter(segmenter.label_space, margin=margin)
        for frame, labels in frames.pairs():
            size = frame.shape[0], frame.shape[1]
            image = working_image(frame, segmenter.manifest)
            expected = network(network.normalize(torch.from_numpy(image))).logits[0].numpy()
            try:
                found = segmenter.run(image)[0]
            except InputError as error:  # the runtime refuses what is not finite
                raise QualityGateError(f"{model.name}: the exported graph fails on a frame ({error})") from error
            if not np.isfinite(expected).all():
                raise QualityGateError(
                    "the checkpoint's own logits are not finite on a frame: there is nothing to compare with. Export "
                    "another checkpoint."
                )
            if segmenter.manifest.output == "classes":
                size = found.shape[0], found.shape[1]
                logits, classes = None, np.asarray(found, dtype=np.uint8)
            else:
                logits = np.asarray(found, dtype=np.float32)
                classes = upsample_argmax(logits, *size)
            truth = None if labels is None else resize_labels(labels, *size)
            meter.update(expected, logits, upsample_argmax(expected, *size), classes, truth)
    return meter.result(reference="checkpoint", frames_from=frames.origin)


def judge(network: Any, written: Written, comparison: Comparison, *, always_drift: bool = False) -> Verdict:
    """Compare a file with its checkpoint and hold it against a bar.

    Args:
        network: the checkpoint's, in evaluation mode, on the CPU.
        written: the file.
        comparison: what it has to pass.
        always_drift: look at every layer even where the bar is reached.

    Returns:
        The verdict; it does not raise where the bar is missed, so that the figures can be reported.
    """
    parity, failure = None, None
    try:
        parity = compare(network, written.path, comparison.frames, margin=comparison.bar.margin)
        parity.check(comparison.bar)
    except QualityGateError as error:
        failure = error
    if failure is None and not always_drift:
        return Verdict(parity=parity)
    images = [working_image(frame, written.manifest) for frame in comparison.frames.frames[:_DRIFT_FRAMES]]
    drift = tuple(layer_drift(network, written.model, images))
    worst = worst_layer(drift)
    if failure is not None and worst is not None:
        text = f"{str(failure).rstrip('.')}; the layer that drifts most is {worst.describe()}."
        failure = QualityGateError(text)
    return Verdict(parity=parity, drift=drift, failure=failure)
