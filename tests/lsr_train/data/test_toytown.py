import itertools

import numpy as np
import pytest

from lsr_train.data.toytown import CLASSES, DOMAINS, clip, render

SIZE = {"height": 64, "width": 128}


@pytest.mark.parametrize("domain", sorted(DOMAINS))
@pytest.mark.parametrize(("height", "width"), [(64, 128), (61, 83), (96, 128), (16, 16)])
def test_frame_and_labels_have_the_promised_form(domain: str, height: int, width: int) -> None:
    frame, labels = render(domain, 3, height=height, width=width)
    assert frame.shape == (height, width, 3)
    assert labels.shape == (height, width)
    assert frame.dtype == labels.dtype == np.uint8
    assert labels.max() < len(CLASSES)


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_the_same_seed_gives_the_same_bytes_whatever_came_before(domain: str) -> None:
    first = render(domain, 5, **SIZE)
    render(domain, 6, **SIZE)
    again = render(domain, 5, **SIZE)
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])


def test_scenes_differ_by_seed_and_by_domain() -> None:
    labels = [render(domain, seed, **SIZE)[1] for domain in sorted(DOMAINS) for seed in (1, 2)]
    assert all((one != other).mean() > 0.02 for one, other in itertools.combinations(labels, 2))


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_a_clip_starts_with_the_rendered_frame_and_moves(domain: str) -> None:
    frames = list(clip(domain, 4, frames=3, fps=5, **SIZE))
    frame, labels = render(domain, 4, **SIZE)
    assert len(frames) == 3
    assert np.array_equal(frames[0][0], frame)
    assert np.array_equal(frames[0][1], labels)
    assert (frames[1][1] != labels).any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("moon", 1, 64, 128), "game"),
        (("game", -1, 64, 128), "-1"),
        (("game", 1, 8, 128), "128x8"),
    ],
)
def test_what_cannot_be_painted_is_refused(arguments: tuple[str, int, int, int], words: str) -> None:
    domain, seed, height, width = arguments
    with pytest.raises(ValueError, match=words):
        render(domain, seed, height=height, width=width)


@pytest.mark.parametrize(("frames", "fps"), [(-1, 10), (3, 0)])
def test_a_clip_needs_frames_and_a_rate(frames: int, fps: float) -> None:
    with pytest.raises(ValueError, match="fps"):
        clip("game", 1, frames=frames, fps=fps, **SIZE)
