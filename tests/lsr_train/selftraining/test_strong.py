"""Strong augmentation: against numpy and OpenCV, one image at a time."""

import cv2
import numpy as np
import pytest
import torch

from lsr_train.config.data import AugmentConfig
from lsr_train.data.augmentation import color_matrix
from lsr_train.network.spec import NORMALIZATIONS, Normalize
from lsr_train.selftraining import Strength, strong_augmentation
from lsr_train.selftraining.strong import DRAWS

PLAIN = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "blur": 0.0}


def frames_of(seed: int = 0, batch: int = 3) -> torch.Tensor:
    return 255 * torch.rand(batch, 12, 17, 3, generator=torch.Generator().manual_seed(seed))


def draws_of(seed: int = 1, batch: int = 3) -> torch.Tensor:
    return torch.rand(batch, DRAWS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Drawn:
    """A generator that hands out what was drawn already, as `uniform` does."""

    def __init__(self, values: list[float]) -> None:
        self.values = values

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self.values.pop(0)


def test_colors_equal_the_loaders() -> None:
    """The same draws through the augmentation of the loader give the same picture."""
    amounts = {"brightness": 0.3, "contrast": 0.4, "saturation": 0.5, "hue": 20.0}
    strength, config = Strength(probability=1.0, blur=0.0, **amounts), AugmentConfig(**amounts)
    frames, draws = frames_of() * 0.5 + 60, draws_of()  # far enough from the ends that nothing is clipped half way
    found = strong_augmentation(frames, strength, draws)
    for b in range(3):
        values = draws[b, 1:5].tolist()
        matrix = color_matrix(config, frames[b].double().mean(dim=(0, 1)).numpy(), Drawn(values))
        expected = np.clip(cv2.transform(frames[b].double().numpy(), matrix), 0, 255)
        torch.testing.assert_close(found[b].double(), torch.from_numpy(expected), rtol=0, atol=1e-3)


def test_blur_equals_opencvs() -> None:
    strength = Strength(**PLAIN | {"blur": 0.6, "blur_sigma": 1.5})
    frames, draws = frames_of(), draws_of()
    draws[:, 5] = torch.tensor([0.1, 0.7, 0.5])  # the second image is left alone
    found = strong_augmentation(frames, strength, draws)
    assert torch.equal(found[1], frames[1])
    for b in (0, 2):
        sigma = 0.15 + 1.35 * draws[b, 6].item()
        expected = cv2.GaussianBlur(frames[b].numpy(), (11, 11), sigma, borderType=cv2.BORDER_REFLECT_101)
        torch.testing.assert_close(found[b], torch.from_numpy(expected), rtol=0, atol=0.05)


def test_nothing_switched_on_changes_nothing() -> None:
    frames = frames_of()
    torch.testing.assert_close(strong_augmentation(frames, Strength(**PLAIN), draws_of()), frames)
    colors_never = Strength(probability=0.0, blur=0.0)
    torch.testing.assert_close(strong_augmentation(frames, colors_never, draws_of()), frames)


def test_an_image_does_not_depend_on_its_neighbours() -> None:
    frames, draws = frames_of(), draws_of()
    together = strong_augmentation(frames, Strength(), draws)
    alone = strong_augmentation(frames[1:2], Strength(), draws[1:2])
    torch.testing.assert_close(together[1:2], alone)
    assert together.min() >= 0
    assert together.max() <= 255
    assert torch.equal(frames, frames_of())  # what was passed in is as it was


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_levels_undo_the_normalisation(name: str) -> None:
    normalize = Normalize(NORMALIZATIONS[name])
    frames = frames_of()
    torch.testing.assert_close(normalize.levels(normalize(frames)), frames, rtol=0, atol=1e-3)
