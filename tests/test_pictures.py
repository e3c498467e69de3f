"""Every picture that a command writes explains itself: captions that can be read, and the classes that are in it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lsr_infer.labelspace import LabelSpace
from lsr_infer.render.draw import Drawer, DrawingOptions, MaskIds, SegmentedFrame
from lsr_infer.segmenter import Segmentation
from lsr_infer.video.containers import VideoFrame
from lsr_train.analysis.drawings import downsampling_figure, embedding_figure, qualitative_figure, styled
from lsr_train.analysis.observation import ShownFrame
from lsr_train.autopilot import summary
from lsr_train.data.labels import CITYSCAPES_19
from lsr_train.data.samples import UnlabelledSample
from lsr_train.evaluation.scores import ScoredFrame, comparison
from lsr_train.suggestion.label_folder import Prefilled, write_preview
from tests.lsr_train.fake_network import ConvNetwork

Picture = NDArray[np.uint8]
HEIGHT, WIDTH = 270, 480
FRAME = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
PRESENT = (0, 2, 8, 10, 13)
CLASSES = np.array(PRESENT, np.uint8)[np.arange(WIDTH) * len(PRESENT) // WIDTH][None].repeat(HEIGHT, axis=0)
ALL = tuple(range(19))


def drawn(*, captions: tuple[str, str] | None, video: bool) -> Picture:
    """Draw a frame as `lsr-infer` does, and the page its clips."""
    options = DrawingOptions(ids=MaskIds.of("train", CITYSCAPES_19), captions=captions)
    found = Segmentation(CITYSCAPES_19, (HEIGHT, WIDTH), classes=CLASSES)
    other = found if captions else None
    picture = Drawer(options, CITYSCAPES_19, video=video)(
        SegmentedFrame(VideoFrame(FRAME, 0.0, 0), 0, 0.0, found, other)
    ).picture
    assert picture is not None
    return picture


def overlay_of_a_picture(folder: Path) -> Picture:
    return drawn(captions=None, video=False)


def pictures_side_by_side(folder: Path) -> Picture:
    return drawn(captions=("left", "right"), video=False)


def video_side_by_side(folder: Path) -> Picture:
    return drawn(captions=("left", "right"), video=True)


def worst_frame(folder: Path) -> Picture:
    return comparison(ScoredFrame(file="f", miou=0.5, frame=FRAME, labels=CLASSES, classes=CLASSES), CITYSCAPES_19)


def suggested_frame(folder: Path) -> Picture:
    write_preview(folder, Prefilled(name="f", frame=FRAME, labels=CLASSES, doubt=np.zeros((4, 8))), CITYSCAPES_19)
    return np.asarray(cv2.imread(str(folder / "preview" / "f.jpg")), np.uint8)


def before_and_after(folder: Path) -> Picture:
    networks = ConvNetwork(19, seed=1), ConvNetwork(19, seed=2)
    sample = UnlabelledSample(frame=FRAME, file="f")
    (path,) = summary._pictures(folder / "pictures", [sample], networks, CITYSCAPES_19, "fp32")  # type: ignore[arg-type]
    return np.asarray(cv2.imread(str(path)), np.uint8)


def named_below(picture: Picture, space: LabelSpace = CITYSCAPES_19) -> Iterator[int]:
    """Yield the classes whose colours stand as areas below a picture."""
    for index, color in enumerate(space.colors):
        close = abs(picture[HEIGHT:].astype(int) - color[::-1]).max(axis=2) < 24  # JPEG changes them a little
        if cv2.erode(close.astype(np.uint8), np.ones((6, 6), np.uint8)).any():
            yield index


def letters(picture: Picture) -> int:
    """Return how many rows the capitals of the caption in the upper left corner have."""
    bar = picture[: HEIGHT // 14, : WIDTH // 3]
    rows = np.flatnonzero((bar.min(axis=2) > 150).any(axis=1))
    return int(rows[-1] + 1 - rows[0]) if len(rows) else 0


@pytest.mark.parametrize(
    ("draw", "present", "caption"),
    [
        (overlay_of_a_picture, PRESENT, False),
        (pictures_side_by_side, PRESENT, True),
        (video_side_by_side, ALL, True),  # a picture of one size holds every class that may come
        (worst_frame, PRESENT, True),
        (suggested_frame, PRESENT, True),
        (before_and_after, None, True),
    ],
)
def test_pictures_have_captions_and_the_classes_that_are_in_them(
    draw: Callable[[Path], Picture], present: tuple[int, ...] | None, caption: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    picture = draw(tmp_path)
    named = tuple(named_below(picture))
    assert named == present if present is not None else 0 < len(named) < 19
    if caption:
        assert letters(picture) >= 0.03 * picture.shape[0]


def figures() -> dict[str, Figure]:
    labels = CLASSES[::9, ::9]
    shown = ShownFrame(file="f", frame=FRAME[::9, ::9], labels=labels, classes=labels, nearest=labels, histogram=labels)
    points = np.eye(len(PRESENT), 2, dtype=np.float32)
    return {
        "downsampling": downsampling_figure(shown, CITYSCAPES_19),
        "qualitative": qualitative_figure({"one": [shown, shown], "other": [shown, shown]}, CITYSCAPES_19),
        "tsne": embedding_figure({"one": (points, torch.tensor(PRESENT))}, CITYSCAPES_19),
    }


@pytest.mark.parametrize("kind", ["downsampling", "qualitative", "tsne"])
def test_figures_have_titles_and_the_classes_that_are_in_them(kind: str) -> None:
    with styled():
        figure = figures()[kind]
        figure.draw_without_rendering()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [CITYSCAPES_19.names[index] for index in PRESENT]
    titled = [axes for axes in figure.axes if axes.get_title()]
    assert titled
    for axes in titled:
        assert axes.title.get_fontsize() * figure.dpi / 72 >= 0.03 * axes.bbox.height
