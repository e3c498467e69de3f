"""Networks opened and looked at on labelled frames, for the commands that draw."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from lsr_infer.errors import InputError, UsageError
from lsr_infer.labelspace import LabelSpace
from lsr_train.analysis.observation import Observation, observe
from lsr_train.analysis.options import AnalyzeOptions
from lsr_train.data.classes_file import load_label_space
from lsr_train.data.footage import evenly
from lsr_train.data.frames import LabelledFrame, LabelledFrames
from lsr_train.data.labels import LABEL_SPACES
from lsr_train.device import choose_device, choose_precision
from lsr_train.network import DeepLabV2
from lsr_train.runs.checkpoint import ModelInfo, load_model

__all__ = ["Opened", "SpreadFrames", "observe_network", "open_network"]

_FOREIGN_SIZE = (512, 1024)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A network that is looked at.

    Args:
        path: as it was named.
        file: the checkpoint.
        network: on the device.
        info: what it says of itself.
        size: rows and columns that are fed.
        space: its classes.
    """

    path: Path
    file: Path
    network: DeepLabV2
    info: ModelInfo
    size: tuple[int, int]
    space: LabelSpace


class SpreadFrames:
    """Evenly spread frames of a labelled data set, in order."""

    def __init__(self, frames: LabelledFrames, count: int) -> None:
        self._frames, self._indices = frames, evenly(len(frames), count)

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, position: int) -> LabelledFrame:
        """Return the frame at a position, 0 <= position < len."""
        return self._frames[self._indices[position]]

    def __iter__(self) -> Iterator[LabelledFrame]:
        return (self[position] for position in range(len(self)))


def open_network(options: AnalyzeOptions, path: Path, file: Path) -> Opened:
    """Open a checkpoint.

    Args:
        options: device, and the size and classes that are given for it.
        path: as it was named.
        file: the checkpoint.

    Raises:
        UsageError: nothing says what its classes are called, or it is an exported file.
    """
    if file.suffix.lower() in (".onnx", ".engine"):
        raise UsageError(f"{file.name} is an exported file, which has no features to look at. Name its checkpoint.")
    device = choose_device(options.device, options.precision)
    network, info = load_model(file)
    space, count = info.label_space, network.spec.num_classes
    if space is None and options.label_space != "auto":
        space = load_label_space(options.label_space)
    if space is None:
        space = next((known for known in LABEL_SPACES.values() if known.num_classes == count), None)
    if space is None or space.num_classes != count:
        raise UsageError(f"{file}: {count} classes and no names for them. Set --label_space.")
    trained = (info.height or _FOREIGN_SIZE[0], info.width or _FOREIGN_SIZE[1])
    size = (options.height, options.width) if options.height else trained
    return Opened(path=path, file=file, network=network.to(device), info=info, size=size, space=space)


def observe_network(
    options: AnalyzeOptions, opened: Opened, frames: Iterable[LabelledFrame], name: str, shown: Iterable[int]
) -> Observation:
    """Look at a network.

    Args:
        options: how.
        opened: the network.
        frames: labelled ones.
        name: of it, for the bar that shows how far it is.
        shown: positions of frames whose pictures are kept.

    Raises:
        InputError: there is no frame, or labels and frames do not fit.
    """
    device = next(opened.network.parameters()).device
    try:
        return observe(
            opened.network,
            tqdm(frames, desc=name, unit="frame", disable=None),
            opened.space,
            opened.size,
            precision=choose_precision(device, options.precision),
            per_class=options.per_class,
            confidence=options.confidence,
            seed=options.seed,
            shown=frozenset(shown),
        )
    except ValueError as error:
        raise InputError(f"{options.data or options.layout}: {error}.") from error
