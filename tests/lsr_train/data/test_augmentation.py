"""Geometry moves frame and labels alike; colours do what they say; everything comes from the generator."""

from dataclasses import fields, replace

import cv2
import numpy as np
import pytest

from lsr_train.config.data import AugmentConfig
from lsr_train.data.augmentation import Augmentation, color_matrix, lab_statistics, lab_transfer

PLAIN = AugmentConfig(flip=0.0)
FULL = AugmentConfig(
    crop_height=20, crop_width=24, flip=0.5, scale_min=0.8, scale_max=1.7, white_point=75, jitter=25, brightness=0.4,
    contrast=0.4, saturation=0.4, hue=18, blur=0.5, blur_sigma=1.5, noise=6, lab_transfer=0.5,
)  # fmt: skip


def coded(height: int = 36, width: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """A frame of flat patches and labels that are a function of its blue channel."""
    labels = np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4), np.ones((height // 3, width // 4), dtype=np.uint8))
    frame = np.repeat((labels * 20)[..., None], 3, axis=2)
    return frame, labels


def scene(seed: int = 0, height: int = 36, width: int = 48) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(40, 216, (4, 5, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height)).astype(np.uint8)


def run(config: AugmentConfig, n: int = 0, *, frame: np.ndarray, labels: np.ndarray | None = None, **sizes: int):
    size = {"height": 36, "width": 48, **sizes}
    references = np.stack([lab_statistics(scene(seed)) for seed in range(50, 55)])
    return Augmentation(config, references=references, **size)(frame, labels, np.random.default_rng([0, n]))


def test_with_everything_off_nothing_happens() -> None:
    frame, labels = coded()
    out_frame, out_labels = run(PLAIN, frame=frame, labels=labels)
    assert np.array_equal(out_frame, frame)
    assert np.array_equal(out_labels, labels)
    out_frame[:] = 0
    assert frame.any(), "what comes out is the caller's own"


@pytest.mark.parametrize("n", range(12))
def test_labels_follow_the_frame(n: int) -> None:
    frame, labels = coded()
    config = replace(PLAIN, flip=0.5, scale_min=0.7, scale_max=2.0, crop_height=24, crop_width=30)
    out_frame, out_labels = run(config, n, frame=frame, labels=labels)
    assert out_frame.shape == (24, 30, 3)
    assert out_labels.shape == (24, 30)
    inner = cv2.erode((out_frame[..., 0] % 20 == 0).astype(np.uint8), np.ones((5, 5))) > 0  # away from borders
    assert inner.sum() > 100
    assert np.array_equal(out_frame[..., 0][inner] // 20, out_labels[inner])


def test_labels_of_another_size_than_the_frame_follow_too() -> None:
    frame, labels = coded()
    _, small = coded(18, 24)
    _, expected = run(PLAIN, frame=frame, labels=labels)
    assert np.array_equal(run(PLAIN, frame=frame, labels=small)[1], expected)


def test_crops_are_everywhere_inside_and_nowhere_else() -> None:
    rows, columns = np.mgrid[0:36, 0:48].astype(np.uint8)
    frame = np.stack([rows, columns, np.full_like(rows, 200)], axis=2)
    config = replace(PLAIN, crop_height=33, crop_width=45)
    corners = set()
    for n in range(300):
        out, _ = run(config, n, frame=frame)
        assert (out[..., 2] == 200).all()
        corners.add((int(out[0, 0, 0]), int(out[0, 0, 1])))
    assert corners == {(top, left) for top in range(4) for left in range(4)}


def test_half_of_the_images_are_flipped() -> None:
    frame, labels = coded()
    flipped = [
        np.array_equal(run(replace(PLAIN, flip=0.5), n, frame=frame, labels=labels)[1], labels[:, ::-1])
        for n in range(400)
    ]
    assert 150 < sum(flipped) < 250


def test_the_same_generator_gives_the_same_sample() -> None:
    frame, labels = scene(), coded()[1]
    first = [run(FULL, n, frame=frame, labels=labels) for n in range(6)]
    again = [run(FULL, n, frame=frame, labels=labels) for n in (5, 4, 3, 2, 1, 0)][::-1]
    for one, other in zip(first, again, strict=True):
        assert np.array_equal(one[0], other[0])
        assert np.array_equal(one[1], other[1])
    assert len({one[0].tobytes() for one in first}) == 6


@pytest.mark.parametrize(
    "part", ["white_point", "jitter", "brightness", "contrast", "saturation", "hue", "blur", "noise", "lab_transfer"]
)
def test_each_part_changes_colours_and_only_colours(part: str) -> None:
    frame, labels = scene(), coded()[1]
    config = replace(PLAIN, **{part: getattr(FULL, part) if part not in ("blur", "lab_transfer") else 1.0})
    out_frame, out_labels = run(config, 3, frame=frame, labels=labels)
    assert not np.array_equal(out_frame, frame)
    assert np.array_equal(out_labels, labels)
    assert out_frame.dtype == np.uint8


def test_every_switch_is_read() -> None:
    geometry = {"crop_height", "crop_width", "flip", "scale_min", "scale_max"}
    colours = {"white_point", "jitter", "brightness", "contrast", "saturation", "hue", "blur", "blur_sigma", "noise"}
    elsewhere = {"lab_transfer", "rare_class_temperature", "target_colors"}
    assert {field.name for field in fields(AugmentConfig)} == geometry | colours | elsewhere
    full = AugmentConfig(crop_height=32, crop_width=48, scale_max=1.5, **dict.fromkeys(colours, 0.5))
    plain = full.without_colors()
    assert {name: getattr(plain, name) for name in geometry} == {name: getattr(full, name) for name in geometry}
    assert not any(getattr(plain, name) for name in colours - {"blur_sigma"})  # without blur, its width says nothing


def slow_colors(pixel: np.ndarray, config: AugmentConfig, mean: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The colour changes one after the other, on one pixel, in floating point."""

    def chain(value: np.ndarray, draws: dict[str, np.ndarray], grey: float | None) -> np.ndarray:
        value = value * 255 / (255 + draws["white_point"])  # what was at the new white is 255
        value = value + draws["jitter"]
        value = value * (1 + draws["brightness"])
        if grey is None:
            return value
        value = grey + (value - grey) * (1 + draws["contrast"])
        luma = 0.114 * value[0] + 0.587 * value[1] + 0.299 * value[2]
        value = luma + (value - luma) * (1 + draws["saturation"])
        angle = np.deg2rad(draws["hue"])
        axis = np.ones(3) / np.sqrt(3)
        return (
            value * np.cos(angle) + np.cross(axis, value) * np.sin(angle) + axis * (axis @ value) * (1 - np.cos(angle))
        )

    draws = {}
    for name in ("white_point", "jitter", "brightness", "contrast", "saturation", "hue"):
        reach = getattr(config, name)
        draws[name] = rng.uniform(-reach, reach, 3 if name in ("white_point", "jitter") else None)
    return chain(pixel, draws, float(chain(mean, draws, None).mean()))


@pytest.mark.parametrize("seed", range(5))
def test_one_matrix_is_the_chain_of_changes(seed: int) -> None:
    mean = np.random.default_rng(seed + 90).uniform(50, 200, 3)
    matrix = color_matrix(FULL, mean, np.random.default_rng(seed))
    assert matrix is not None
    for pixel in np.random.default_rng(seed).uniform(0, 255, (20, 3)):
        expected = slow_colors(pixel, FULL, mean, np.random.default_rng(seed))
        assert np.allclose(matrix @ [*pixel, 1.0], expected, atol=1e-9)
    assert color_matrix(PLAIN, mean, np.random.default_rng(0)) is None


def test_grey_stays_grey_under_saturation_and_hue() -> None:
    grey = np.full((36, 48, 3), 120, dtype=np.uint8)
    out, _ = run(replace(PLAIN, saturation=1.0, hue=180.0), 1, frame=grey)
    assert np.abs(out.astype(int) - 120).max() <= 1


def test_lab_transfer_takes_over_mean_and_spread() -> None:
    frame, other = scene(1), cv2.convertScaleAbs(scene(2), alpha=0.5, beta=30).astype(np.uint8)
    wanted = lab_statistics(other)
    out = lab_transfer(frame, lab_statistics(frame), wanted)
    assert np.abs(lab_statistics(out) - wanted).max() < 4
    assert np.abs(lab_statistics(frame) - wanted).max() > 15
    same = lab_transfer(frame, wanted, wanted)
    assert np.abs(same.astype(int) - frame).max() <= 8, "8-bit LAB there and back"
    flat = np.full((36, 48, 3), 77, dtype=np.uint8)
    assert np.isfinite(lab_transfer(flat, lab_statistics(flat), wanted)).all()


def test_lab_transfer_draws_among_all_references_as_often_as_told() -> None:
    frame = scene(1)
    outs = [run(replace(PLAIN, lab_transfer=0.5), n, frame=frame)[0].tobytes() for n in range(200)]
    assert 70 < outs.count(frame.tobytes()) < 130
    assert len(set(outs)) == 6


def test_statistics_of_a_large_frame_are_those_of_its_grid() -> None:
    frame = scene(3, 1000, 1400)
    full = np.stack([part[:, 0] for part in cv2.meanStdDev(cv2.cvtColor(frame, cv2.COLOR_BGR2LAB))])
    assert np.abs(lab_statistics(frame) - full).max() < 1


def test_noise_and_blur_have_their_size() -> None:
    flat = np.full((360, 480, 3), 128, dtype=np.uint8)
    config = replace(PLAIN, noise=8.0)
    spreads = [run(config, n, frame=flat, height=360, width=480)[0].std() for n in range(8)]
    assert max(spreads) < 8.4
    assert min(spreads) >= 0
    assert len({round(spread, 3) for spread in spreads}) == 8
    sharp = np.zeros((36, 48, 3), dtype=np.uint8)
    sharp[18, 24] = 255
    blurred, _ = run(replace(PLAIN, blur=1.0, blur_sigma=1.5), 2, frame=sharp)
    assert blurred[18, 24, 0] < 255
    assert np.array_equal(run(replace(PLAIN, blur=1.0, blur_sigma=0.0), 2, frame=sharp)[0], sharp)
