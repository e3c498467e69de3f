"""Colours over frames, pictures side by side, masks as palette PNGs."""

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lsr_infer.io.images import palette_png
from lsr_infer.labelspace import LabelSpace
from lsr_infer.render.draw import Drawer, DrawingOptions, MaskIds, SegmentedFrame
from lsr_infer.render.overlay import captioned, colorize, explained, legend, overlay, overlay_planes, side_by_side
from lsr_infer.segmenter import Segmentation
from lsr_infer.video.containers import BT709, ColorTags, VideoFrame
from lsr_infer.video.planes import PlaneConverter, plane_palette

SPACE = LabelSpace(name="two", names=("road", "sky"), colors=((128, 64, 32), (10, 200, 250)))
THREE = LabelSpace(name="three", names=("road", "sky", "café"), colors=((128, 64, 32), (10, 200, 250), (9, 8, 7)))


def test_an_overlay_is_the_weighted_mean_and_void_is_the_frame() -> None:
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    classes = rng.choice([0, 1, 255], size=(20, 30)).astype(np.uint8)
    before = frame.copy()
    result = overlay(frame, classes, SPACE, 0.3)
    for y in range(20):
        for x in range(30):
            c = classes[y, x]
            bgr = frame[y, x] if c == 255 else 0.7 * frame[y, x] + 0.3 * np.array(SPACE.colors[c][::-1])
            assert np.abs(result[y, x] - bgr).max() <= 0.5 + 1e-6
    np.testing.assert_array_equal(frame, before)


def test_the_ends_of_alpha() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    classes = np.array([[0, 1, 0, 1, 0]] * 4)  # int64, as the losses have it
    np.testing.assert_array_equal(overlay(frame, classes, SPACE, 0.0), frame)
    np.testing.assert_array_equal(overlay(frame, classes, SPACE, 1.0), colorize(classes, SPACE))
    assert colorize(classes, SPACE)[0, 1].tolist() == [250, 200, 10]


@pytest.mark.parametrize(
    ("classes", "alpha"),
    [(np.zeros((4, 4), np.uint8), 0.5), (np.zeros((4, 5), np.uint8), 1.5), (np.full((4, 5), 256), 0.5)],
)
def test_what_does_not_fit(classes: np.ndarray, alpha: float) -> None:
    with pytest.raises(ValueError, match="fit|alpha|labels"):  # noqa: RUF043 - three messages
        overlay(np.zeros((4, 5, 3), np.uint8), classes, SPACE, alpha)


@pytest.mark.parametrize(("height", "width"), [(720, 1280), (60, 40), (5, 3)])
def test_a_caption_stays_in_its_corner(height: int, width: int) -> None:
    picture = np.full((height, width, 3), 90, dtype=np.uint8)
    result = captioned(picture, "adapted.onnx")
    rows = max(16, height // 14)
    assert (picture == 90).all()
    assert (result[rows:] == 90).all()
    assert (result[:rows, 0] == 0).all()
    if height == 720:
        assert (result[:rows].max(axis=2) == 255).any()  # letters
        assert (result[:rows, width // 2 :] == 90).all()
        assert not np.array_equal(result, captioned(picture, "source.onnx"))


def test_side_by_side() -> None:
    one, other = np.full((3, 4, 3), 7, np.uint8), np.full((3, 5, 3), 9, np.uint8)
    both = side_by_side(one, other, gap=2)
    assert both.shape == (3, 11, 3)
    assert both[0, :, 0].tolist() == [7] * 4 + [0] * 2 + [9] * 5
    for wrong in ((), (one, other[:2])):
        with pytest.raises(ValueError, match="side by side"):
            side_by_side(*wrong)


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 99))
def test_a_palette_png_holds_the_labels(height: int, width: int, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)
    palette = np.random.default_rng(seed + 1).integers(0, 256, (256, 3), dtype=np.uint8)
    data = palette_png(labels, palette)
    shown = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    np.testing.assert_array_equal(shown, palette[labels][:, :, ::-1])


def test_a_palette_png_is_read_back_as_labels(tmp_path) -> None:  # type: ignore[no-untyped-def]  # pytest's own
    from lsr_infer.io.images import read_label

    labels = np.random.default_rng(0).choice([0, 1, 255], size=(9, 14)).astype(np.uint8)
    (tmp_path / "mask.png").write_bytes(palette_png(labels, SPACE.palette()))
    np.testing.assert_array_equal(read_label(tmp_path / "mask.png"), labels)
    for wrong in (labels.astype(int), labels[None], labels[:0]):
        with pytest.raises(ValueError, match="labels"):
            palette_png(wrong, SPACE.palette())


def test_an_ignore_mask_of_another_shape_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    mask = np.zeros((64, 96), dtype=bool)
    mask[5, 7] = True
    drawing = DrawingOptions(ids=MaskIds.of("train", SPACE), ignored=mask)

    def draw(height: int, width: int) -> np.ndarray:
        frame, classes = np.zeros((height, width, 3), np.uint8), np.zeros((height, width), np.uint8)
        found = Segmentation(SPACE, (height, width), classes=classes)
        return Drawer(drawing, SPACE)(SegmentedFrame(VideoFrame(frame, 0.0, 0), 0, 0.0, found, None)).classes

    for size in ((64, 96), (128, 192), (32, 48), (200, 301)):  # the last one's shape is rounded
        assert (draw(*size) == 255).any()
    assert not caplog.records
    for size in ((64, 98), (96, 64)):
        assert (draw(*size) == 255).any()
    (line,) = [record.message for record in caplog.records]
    assert "the ignore mask is 96x64 and is stretched to frames of 98x64" in line


def test_a_legend_names_the_classes_that_are_there_beside_their_colours() -> None:
    classes = np.array([[2, 2, 255], [0, 2, 0]], dtype=np.uint8)
    strip = legend(THREE, 360, 640, classes)
    assert strip.shape[1:] == (640, 3)
    assert strip.shape[0] % 2 == 0
    for number, color in enumerate(THREE.colors):
        patch = (strip == color[::-1]).all(axis=2)
        assert (patch.sum() > 50) == (number in (0, 2)), THREE.names[number]
    places = [np.argwhere((strip == THREE.colors[number][::-1]).all(axis=2))[0, 1] for number in (0, 2)]
    assert places == sorted(places)


def test_a_legend_of_all_classes_wraps_and_does_not_depend_on_the_frame() -> None:
    wide, narrow = legend(SPACE, 360, 2000), legend(SPACE, 360, 100)
    assert narrow.shape[0] > wide.shape[0]
    for strip in (wide, narrow):
        assert all((strip == color[::-1]).all(axis=2).any() for color in SPACE.colors)
    assert legend(SPACE, 20, 7).shape[1] == 7  # cut off, no error


@pytest.mark.parametrize("beside", [False, True])
@pytest.mark.parametrize(("setting", "of_picture", "of_video"), [("auto", 1, 0), ("on", 1, 1), ("off", 0, 0)])
def test_where_a_legend_stands(setting: Any, of_picture: int, of_video: int, beside: bool) -> None:
    captions = ("frame", "model") if beside else None
    drawing = DrawingOptions(ids=MaskIds.of("train", SPACE), legend=setting, captions=captions)
    of_video |= beside and setting == "auto"
    frame = np.zeros((40, 60, 3), dtype=np.uint8)
    found = Segmentation(SPACE, (40, 60), classes=np.ones((40, 60), np.uint8))
    for video, expected in ((False, of_picture), (True, of_video)):
        drawer = Drawer(drawing, SPACE, video=video)
        picture = drawer(SegmentedFrame(VideoFrame(frame, 0.0, 0), 0, 0.0, found, None)).picture
        assert picture is not None
        assert (picture.shape[0] > 40) == bool(expected)
        if video:
            assert picture.shape[:2] == drawer.size(40, 60)


def test_pictures_in_rows_have_captions_of_the_height_of_all() -> None:
    pictures = [np.full((100, 300, 3), 40 + number, np.uint8) for number in range(5)]
    drawn = explained(pictures, ("one", "two", "three", "", ""), SPACE, np.zeros((1, 1), np.uint8), columns=3)
    below = legend(SPACE, 200, 908, np.zeros((1, 1), np.uint8))
    assert drawn.shape == (200 + below.shape[0], 908, 3)
    np.testing.assert_array_equal(drawn[200:], below)
    assert [int(drawn[99, x, 0]) for x in (299, 603, 907)] == [40, 41, 42]
    assert [int(drawn[199, x, 0]) for x in (299, 603, 907)] == [43, 44, 0]  # the last place is empty
    np.testing.assert_array_equal(drawn[:100, :300], captioned(pictures[0], "one", 200))
    assert (drawn[: 200 // 14, 0] == 0).all()


@pytest.mark.parametrize("color", [BT709, ColorTags(matrix=6), ColorTags(matrix=1, full_range=True)])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 0.8])
def test_an_overlay_in_planes_is_that_of_the_picture_but_for_rounding(color: ColorTags, alpha: float) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(90, 160, (6, 9, 3), dtype=np.uint8)  # no colour outside RGB, which planes can hold
    convert = PlaneConverter(color)
    stored = convert(np.asarray(cv2.resize(coarse, (180, 90), interpolation=cv2.INTER_NEAREST), np.uint8))
    stored.colorspace, stored.color_range = color.matrix, 2 if color.full_range else 1
    frame = stored.to_ndarray(format="bgr24")
    classes = np.repeat(np.repeat(rng.integers(0, 2, (45, 90), dtype=np.uint8), 2, axis=0), 2, axis=1)
    expected = convert(overlay(frame, classes, SPACE, alpha)).to_ndarray().astype(int)
    planes = stored.to_ndarray()
    before = planes.copy()
    found = overlay_planes(planes, classes, plane_palette(SPACE.palette(), color), alpha)
    chroma = np.abs(found[90:].astype(int) - expected[90:]).reshape(2, 45, 90)
    assert np.abs(found[:90].astype(int) - expected[:90]).max() <= 2
    if color.full_range:  # libav's conversion to it takes chroma from neighbours too
        same = classes[::2, ::2]
        inside = (same == np.roll(same, 1, 1)) & (same == np.roll(same, -1, 1))
        inside &= (same == np.roll(same, 1, 0)) & (same == np.roll(same, -1, 0))
        chroma = chroma[:, inside]
    assert chroma.max() <= (4 if color.full_range else 1)
    np.testing.assert_array_equal(planes, before)


def test_planes_are_drawn_where_they_are_those_of_the_video() -> None:
    frame = np.full((40, 60, 3), 90, dtype=np.uint8)
    stored = PlaneConverter(BT709)(frame)
    stored.colorspace, stored.color_range, stored.color_primaries, stored.color_trc = 1, 1, 1, 1
    found = Segmentation(SPACE, (40, 60), classes=np.ones((40, 60), np.uint8))

    def drawn_in_planes(stored: Any = stored, color: ColorTags = BT709, shown: bool = False, **options: Any) -> bool:
        drawer = Drawer(
            DrawingOptions(ids=MaskIds.of("train", SPACE), **options), SPACE, video=True, color=color, shown=shown
        )
        result = drawer(SegmentedFrame(VideoFrame(frame, 0.0, 0, stored), 0, 0.0, found, None))
        assert (result.planes is None) == (result.picture is not None)
        return result.planes is not None

    assert drawn_in_planes()
    assert drawn_in_planes(alpha=0.8)
    assert not drawn_in_planes(stored=None)
    assert not drawn_in_planes(color=ColorTags(matrix=6))
    assert not drawn_in_planes(color=ColorTags(matrix=1, primaries=1, transfer=1, full_range=True))
    assert not drawn_in_planes(shown=True)
    assert not drawn_in_planes(legend="on")
    assert not drawn_in_planes(captions=("one", "two"))
    assert not drawn_in_planes(ignored=np.eye(40, 60, dtype=bool))
