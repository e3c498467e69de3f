"""Segments frames with an exported model.

    segmenter = Segmenter("model.onnx")
    result = segmenter(frame)  # frame: uint8 [H,W,3] BGR
    picture = result.overlay(frame)

The `Segmenter` checks the file's graph against its Manifest and every frame against both; the backend only computes.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from lsr_infer.backends import Backend, BackendOptions
from lsr_infer.backends.model_file import check_is_file, check_ports
from lsr_infer.backends.onnxruntime import OnnxRuntimeBackend
from lsr_infer.backends.openvino import OpenVinoBackend
from lsr_infer.backends.tensorrt import TensorRtBackend
from lsr_infer.errors import InputError, LsrError, UsageError
from lsr_infer.io.images import resize_frame, resize_labels
from lsr_infer.manifest import Manifest
from lsr_infer.render.segmentation import Segmentation
from lsr_infer.shipped import model_path
from lsr_infer.system.threads import prefetch
from lsr_infer.tensorrt.admission import engine_manifest
from lsr_infer.tensorrt.flavour import BACKEND_NAMES

__all__ = ["BACKENDS", "Segmentation", "Segmenter", "open_backend"]

logger = logging.getLogger(__name__)

BACKENDS: Mapping[str, Callable[[Path, BackendOptions], Backend]] = {
    "onnxruntime": OnnxRuntimeBackend,
    "openvino": OpenVinoBackend,
    "tensorrt": partial(TensorRtBackend, flavour="tensorrt"),
    "tensorrt-rtx": partial(TensorRtBackend, flavour="rtx"),
}
"""How to open a model, by backend; its library is loaded only then."""
_SUFFIXES = {".onnx": "onnxruntime", ".engine": "tensorrt"}
_FAR = 4
"""Times the area a network was trained at, beyond which its classes are not reliable; the figure is ours."""


def open_backend(path: Path, options: BackendOptions | None = None, *, name: str | None = None) -> Backend:
    """Open a model file with the backend of this name, or the one for the file's ending; see `Segmenter`."""
    check_is_file(path)
    chosen = name or _SUFFIXES.get(path.suffix.lower())
    if chosen is None:
        raise InputError(f"{path}: no backend opens {path.suffix or 'such'} files; known: {', '.join(_SUFFIXES)}.")
    if name is None and chosen == "tensorrt":  # the two flavours share the ending
        chosen = BACKEND_NAMES[engine_manifest(path)[-1].flavour]
    if chosen not in BACKENDS:
        raise UsageError(f"there is no backend {chosen}; known: {', '.join(BACKENDS)}.")
    return BACKENDS[chosen](path, options or BackendOptions())


class Segmenter:
    """Segments frames with an open model; several threads may use one at once.

    On a GPU the model runs once when it is opened, so that no frame waits for the first run.

    Args:
        model: an exported file, or a shipped network by name; None takes one of these and logs it.
        device: `auto`, `cpu` or `cuda:N`; `auto` takes a CUDA device that works, else the CPU, and logs which.
        backend: a key of `lsr_infer.segmenter.BACKENDS`; None chooses by the file's ending.
        threads: CPU threads of the network; 0 takes one for each physical core the process may use.
        precision: arithmetic, where the backend lets one choose (`bf16` on OpenVINO, `tf32` on CUDA); None keeps the
            file's own.
        allow_unverified: open an engine whose parity is still pending.

    Attributes:
        manifest: of the file.
        label_space: the classes.
        device: what the model runs on, as the backend reports it.
        backend: which backend runs it.
        precision: of the arithmetic: the file's own, or the one that was chosen.

    Raises:
        UsageError: there is no such device, backend or precision, or no model is named and none is shipped.
        DeviceError: the device, or the library of the backend, is not there.
        InputError: the file is missing, damaged, without a Manifest, or its graph is not what the Manifest says.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        device: str = "auto",
        backend: str | None = None,
        *,
        threads: int = 0,
        precision: str | None = None,
        allow_unverified: bool = False,
    ) -> None:
        self.path = model_path(model)
        options = BackendOptions(device=device, threads=threads, precision=precision, allow_unverified=allow_unverified)
        self._backend = open_backend(self.path, options, name=backend)
        self._warned: set[str] = set()
        try:
            self.manifest = Manifest.from_metadata(self._backend.metadata)
            check_ports(self._backend.inputs, self._backend.outputs, self.manifest)
        except InputError as error:
            self._backend.close()
            raise InputError(f"{self.path}: {error}") from error
        self.label_space = self.manifest.label_space
        self.device = self._backend.device
        self.backend = self._backend.name
        self.precision = self._backend.precision or self.manifest.precision
        if self.device != "cpu":
            try:
                self.warm_up()
            except LsrError:
                self._backend.close()
                raise

    def __call__(self, frame: NDArray[np.uint8], *, size: tuple[int, int] | None = None) -> Segmentation:
        """Segment one frame.

        Args:
            frame: uint8 [H,W,3] BGR of any size; not changed.
            size: (height, width) at which the frame enters the network; None leaves it to the model.

        Raises:
            UsageError: the graph does not take the size.
            InputError: the frame is no such array, or the model failed on it.
        """
        (result,) = self.batch([frame], size=size)
        return result

    def batch(self, frames: Sequence[NDArray[np.uint8]], *, size: tuple[int, int] | None = None) -> list[Segmentation]:
        """Segment several frames of one size together, in as few runs of the graph as it allows; see `__call__`.

        Raises:
            UsageError: the graph does not take the size.
            InputError: a frame is no such array, sizes differ, or the model failed.
        """
        if len(frames) == 0:  # not `if not frames`: an array has no truth value, and `prepare` refuses it
            return []
        images = self.prepare(frames, size=size)
        height, width = frames[0].shape[:2]
        return [self.interpret(output, height, width) for output in self.run(images)]

    def working_size(self, height: int, width: int, size: tuple[int, int] | None = None) -> tuple[int, int]:
        """Return (rows, columns) at which a frame enters the graph, which is `size` where the user asks for one.

        Raises:
            UsageError: the graph does not take the size.
        """
        if size is None:
            return self.manifest.working_size(height, width)
        try:
            self.manifest.check_size(*size)
        except UsageError as error:
            raise UsageError(f"{self.path}: {error}") from error
        own = self.manifest.height * self.manifest.width
        if size[0] * size[1] > _FAR * own:
            self._warn_once(
                "%s: frames enter the network at %dx%d, %.0f times the area it is made for (%dx%d), and its classes "
                "are not reliable there. Choose a size or --tile nearer to that, or a larger --stride.",
                self.path.name, *size[::-1], size[0] * size[1] / own, self.manifest.width, self.manifest.height,
            )  # fmt: skip
        return size

    def _warn_once(self, text: str, *values: object) -> None:
        if text not in self._warned:
            self._warned.add(text)
            logger.warning(text, *values)

    def prepare(self, frames: Sequence[NDArray[np.uint8]], *, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
        """Check frames and bring them to the size of the graph: the first of the three steps of `batch`.

        Returns:
            uint8 [N,h',w',3], new.

        Raises:
            UsageError: the graph does not take the size.
            InputError: a frame is no uint8 [H,W,3], or sizes differ.
        """
        for frame in frames:
            if not isinstance(frame, np.ndarray):
                raise InputError(f"a frame is a {type(frame).__name__}; needed: a numpy array uint8 [H,W,3] BGR.")
            if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or frame.size == 0:
                raise InputError(f"a frame is {frame.dtype} {list(frame.shape)}; needed: uint8 [H,W,3] BGR.")
        if len({frame.shape for frame in frames}) > 1:
            raise InputError("the frames of a batch differ in size. Segment them one by one.")
        height, width = frames[0].shape[:2]
        rows, columns = self.working_size(height, width, size)
        return np.stack([resize_frame(frame, rows, columns) for frame in frames])  # [N,h',w',3]

    def interpret(self, output: NDArray[np.float32] | NDArray[np.uint8], height: int, width: int) -> Segmentation:
        """Turn one output of `run` into the segmentation of a frame of the given size: the last step of `batch`."""
        if self.manifest.output == "logits":
            return Segmentation(self.label_space, (height, width), logits=np.asarray(output, dtype=np.float32))
        classes = resize_labels(np.asarray(output, dtype=np.uint8), height, width)
        return Segmentation(self.label_space, (height, width), classes=classes)

    def warm_up(self, height: int | None = None, width: int | None = None, *, frames: int = 1) -> None:
        """Run the model once on black frames, so that no later frame waits for the first run.

        Args:
            height: rows of the frames that will come; None takes the model's own size.
            width: columns likewise.
            frames: how many will come at a time.
        """
        black = np.zeros((height or self.manifest.height, width or self.manifest.width, 3), dtype=np.uint8)
        self.batch([black] * frames)

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32] | NDArray[np.uint8]:
        """Run the graph on frames uint8 [N,H,W,3] that already have its size: the second of the steps of `batch`.

        A graph that takes another number of frames at a time runs several times, or on repeated frames whose results
        are dropped. Returns `logits` float32 [N,C,h,w] or `classes` uint8 [N,H,W], as the Manifest says.

        Raises:
            InputError: what comes out is not what the Manifest says.
        """
        least, most = self.manifest.batch_range()
        parts = [images[start : start + most] for start in range(0, len(images), most)]
        outputs = [self._run_part(part, least) for part in parts]
        return outputs[0] if len(outputs) == 1 else np.concatenate(outputs)

    def _run_part(self, images: NDArray[np.uint8], least: int) -> NDArray[Any]:
        """Run the graph once, on at least so many frames."""
        missing = least - len(images)
        if missing > 0:
            self._warn_once(
                "%s: takes %d frames at a time; where fewer come, each costs as much as all. For single frames export "
                "it with a free batch.", self.path.name, least,
            )  # fmt: skip
            images = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        output = self._backend.run(np.ascontiguousarray(images))
        self._check_output(output, images.shape[:3])
        return output[: len(output) - max(missing, 0)]

    def _check_output(self, output: NDArray[Any], shape: tuple[int, ...]) -> None:
        """Raise unless an output is what the Manifest says, for frames of a shape [N,H,W]."""
        classes = self.label_space.num_classes
        found = f"{self.path}: gave {output.dtype} {list(output.shape)}"
        if self.manifest.output == "logits":
            if output.dtype != np.float32 or output.ndim != 4 or output.shape[:2] != (shape[0], classes):
                raise InputError(f"{found}, no float32 [{shape[0]},{classes},h,w]. Export it again.")
            if not np.isfinite(output).all():
                raise InputError(f"{self.path}: gave logits that are not finite. Export it again, with more precision.")
            return
        if output.dtype != np.uint8 or output.shape != shape:
            raise InputError(f"{found}, no uint8 {list(shape)}. Export it again.")
        if output.max() >= classes:
            raise InputError(f"{self.path}: gave class {output.max()}, it has 0 to {classes - 1}. Export it again.")

    def stream(
        self, source: str | Path | Iterable[NDArray[np.uint8]], *, depth: int = 4, size: tuple[int, int] | None = None
    ) -> Iterator[tuple[NDArray[np.uint8], Segmentation]]:
        """Segment a video, or any frames, while the next ones are already being read.

        Args:
            source: a video file, or frames uint8 [H,W,3] BGR.
            depth: frames read ahead at most.
            size: (height, width) at which frames enter the network; None leaves it to the model.

        Yields:
            Each frame with its segmentation, in order.

        Raises:
            InputError: the source breaks; the frames before the place have been yielded by then.
        """
        for frame in prefetch(_frames_of(source), depth):
            yield frame, self(frame, size=size)

    def close(self) -> None:
        """Free the model, once the last thread that uses it has its result."""
        self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _frames_of(source: str | Path | Iterable[NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
    if isinstance(source, str | Path):
        from lsr_infer.video.reader import read_frames

        for item in read_frames(source):
            yield item.frame
    else:
        yield from source
