import numpy as np
import pytest
import torch

from lsr_train.network import NORMALIZATIONS, Normalization, Normalize


@pytest.fixture
def frames() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), dtype=np.uint8))


def test_imagenet_rgb_is_torchvisions_formula(frames: torch.Tensor) -> None:
    image = Normalize(NORMALIZATIONS["imagenet-rgb"])(frames)
    for channel, (mean, std) in enumerate([(0.485, 0.229), (0.456, 0.224), (0.406, 0.225)]):
        level = frames[..., 2 - channel].double()  # frames are BGR
        expected = (level / 255 - mean) / std
        torch.testing.assert_close(image[:, channel].double(), expected, rtol=1e-5, atol=1e-6)


def test_caffe_bgr_subtracts_the_published_mean(frames: torch.Tensor) -> None:
    image = Normalize(NORMALIZATIONS["caffe-bgr"])(frames)
    for channel, mean in enumerate([104.00699, 116.66877, 122.67891]):
        expected = frames[..., channel].double() - mean
        torch.testing.assert_close(image[:, channel].double(), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", sorted(NORMALIZATIONS))
def test_the_image_is_float32_in_channels_last_whatever_the_frames_type(name: str, frames: torch.Tensor) -> None:
    normalize = Normalize(NORMALIZATIONS[name])
    image = normalize(frames)
    assert image.shape == (2, 3, 5, 7)
    assert image.dtype == torch.float32
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(normalize(frames.float()), image)
    assert torch.equal(normalize(frames.double()), image)


def test_nothing_of_it_is_in_the_weights() -> None:
    assert Normalize(NORMALIZATIONS["caffe-bgr"]).state_dict() == {}


@pytest.mark.parametrize("shape", [(5, 7, 3), (2, 3, 5, 7), (2, 5, 7, 1)])
def test_another_shape_is_an_error(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[B,H,W,3\]"):
        Normalize(NORMALIZATIONS["caffe-bgr"])(torch.zeros(shape))


@pytest.mark.parametrize(
    "change",
    [{"channel_order": "gbr"}, {"scale": 0.0}, {"std": (1.0, 0.0, 1.0)}, {"mean": (1.0, 2.0)}, {"std": (1.0,)}],
)
def test_wrong_numbers_are_an_error(change: dict[str, object]) -> None:
    values: dict[str, object] = {"channel_order": "rgb", "scale": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    with pytest.raises(ValueError, match=r"channel_order|scale|mean"):
        Normalization(**{**values, **change})  # type: ignore[arg-type]  # that is the test
