"""The proof that an engine computes what its ONNX file does: both run the same frames, and the figures meet a bar.

The engine is any function from frames to the graph's output, so that the comparison itself needs no GPU.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lsr_infer.backends.telemetry import import_onnxruntime
from lsr_infer.errors import InputError, QualityGateError
from lsr_infer.io.images import resize_labels
from lsr_infer.manifest import Manifest
from lsr_infer.parity.frames import FrameSet, working_image
from lsr_infer.parity.metrics import Bar, Parity, ParityMeter
from lsr_infer.parity.verdict import LayerDrift, Verdict
from lsr_infer.render.masks import upsample_argmax
from lsr_infer.tensorrt.graphs import logits_tensor, with_outputs

__all__ = ["OnnxReference", "compare_with_onnx", "judge_parity"]

Compute = Callable[[NDArray[np.uint8]], NDArray[Any]]


class OnnxReference:
    """An ONNX file in ONNX Runtime on the CPU, which gives its logits even where the graph itself gives classes alone.

    Args:
        model: the file's bytes.
        manifest: what it says about itself.

    Raises:
        DeviceError: the graph gives classes, and the onnx package, which finds the logits in it, is missing.
        InputError: ONNX Runtime cannot load it, or the logits cannot be found.
    """

    def __init__(self, model: bytes, manifest: Manifest) -> None:
        onnxruntime = import_onnxruntime()

        self._logits = "logits"
        if manifest.output == "classes":
            name = logits_tensor(model)
            if name is None:
                raise InputError(
                    "the logits cannot be found in this graph of classes. Export it with export/to_onnx.py."
                )
            self._logits = name
            model = with_outputs(model, [name])
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(model, settings, providers=["CPUExecutionProvider"])
        except Exception as error:  # its exceptions share no base but Exception
            raise InputError(f"ONNX Runtime cannot load it: {' '.join(str(error).split())[:300]}.") from error
        self._manifest = manifest

    def run(self, image: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
        """Return the logits float32 [C,h,w] of an image [1,H,W,3], and its classes [H,W] where the graph gives them."""
        image = np.repeat(image, self._manifest.fixed_batch or 1, axis=0)
        names = [self._logits] + (["classes"] if self._manifest.output == "classes" else [])
        results = self._session.run(names, {"image": image})
        logits = np.asarray(results[0][0], dtype=np.float32)
        return logits, np.asarray(results[1][0], dtype=np.uint8) if len(results) > 1 else None


def compare_with_onnx(
    reference: OnnxReference,
    candidate: Compute,
    manifest: Manifest,
    frames: FrameSet,
    *,
    margin: float = 1.0,
    where: str = "",
) -> Parity:
    """Compare an engine with its ONNX file on frames.

    Args:
        reference: the ONNX file.
        candidate: maps images [N,H,W,3] to the engine's output.
        manifest: of the engine, which says at which size it works.
        frames: what to compare on; at the size of a frame for logits, else at the graph's.
        margin: least distance of the top two logits of the ONNX file at a clear place.
        where: what the engine ran on, for the record.

    Raises:
        QualityGateError: a logit is not finite.
        InputError: labels are not of these classes.
    """
    meter = ParityMeter(manifest.label_space, margin=margin)
    origin = f"{frames.origin}, on {where}" if where else frames.origin
    batch = manifest.fixed_batch or 1
    for frame, truth in frames.pairs():
        image = working_image(frame, manifest)
        expected, classes = reference.run(image)
        found = candidate(np.repeat(image, batch, axis=0))[0]
        if not np.isfinite(expected).all():
            raise QualityGateError("the ONNX file's own logits are not finite on a frame. Export it again.")
        if classes is None:
            size = (frame.shape[0], frame.shape[1])
            logits = np.asarray(found, dtype=np.float32)
            finite = np.nan_to_num(logits, nan=0, posinf=0, neginf=0)  # the meter sees that they are not
            pair = upsample_argmax(expected, *size), upsample_argmax(finite, *size)
        else:
            logits, pair = None, (classes, np.asarray(found, dtype=np.uint8))
        labels = None if truth is None else _at_size(truth, pair[0].shape)
        try:
            meter.update(expected, logits, *pair, labels)
        except ValueError as error:
            raise InputError(f"the labels of {frames.origin} do not fit the model's classes: {error}.") from error
    return meter.result(reference="onnx", frames_from=origin)


def _at_size(labels: NDArray[np.uint8], size: tuple[int, ...]) -> NDArray[np.uint8]:
    """Bring labels to the size at which classes are compared."""
    return labels if labels.shape == size else resize_labels(labels, size[0], size[1])


def judge_parity(parity: Parity, bar: Bar, find: Callable[[], LayerDrift | None]) -> Verdict:
    """Hold figures against a bar; below it, the layer that drifts most is named too.

    Args:
        parity: the figures.
        bar: what they must reach.
        find: looks for that layer.

    Returns:
        The verdict; it does not raise where the bar is missed, so that the figures can be reported.
    """
    try:
        parity.check(bar)
    except QualityGateError as error:
        drift: tuple[LayerDrift, ...] = ()
        try:
            worst = find()
            where = "no layer drifts on its own"
            if worst is not None:
                drift, where = (worst,), f"the layer that drifts most is {worst.describe()}"
        except Exception as reason:  # noqa: BLE001 - the gate's own verdict matters more than where it comes from
            where = f"which layer drifts most could not be found ({' '.join(str(reason).split())})"
        failure = QualityGateError(f"{str(error).rstrip('.')}; {where}.")
        return Verdict(parity=parity, drift=drift, failure=failure)
    return Verdict(parity=parity)
