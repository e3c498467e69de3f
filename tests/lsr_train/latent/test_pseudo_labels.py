import pytest
import torch

from lsr_train.latent import nearest_downsample, pseudo_labels
from tests.lsr_train.latent.oracles import VOID, pseudo_label_oracle


def logits_of(shape: tuple[int, ...], seed: int = 0, sharpness: float = 2.0) -> torch.Tensor:
    """Return logits whose cells are sometimes sure, sometimes not, in patches of three pixels."""
    generator = torch.Generator().manual_seed(seed)
    B, C, H, W = shape
    patches = torch.randn(B, C, H // 3 + 1, W // 3 + 1, generator=generator) * sharpness
    return patches.repeat_interleave(3, 2).repeat_interleave(3, 3)[:, :, :H, :W].contiguous()


@pytest.mark.parametrize(
    ("shape", "size"), [((2, 3, 9, 13), (4, 5)), ((3, 4, 8, 5), (1, 3)), ((1, 2, 7, 7), (1, 1)), ((2, 1, 6, 6), (3, 3))]
)
@pytest.mark.parametrize(("threshold", "confidence"), [(0.5, 0.5), (0.9, 0.3), (0.5, 0.9)])
def test_equals_oracle(shape: tuple[int, ...], size: tuple[int, int], threshold: float, confidence: float) -> None:
    logits = logits_of(shape)
    found = pseudo_labels(logits, size, threshold, confidence)
    assert torch.equal(found, pseudo_label_oracle(logits, size, threshold, confidence))


def test_mask_equals_oracle() -> None:
    logits = logits_of((2, 3, 12, 10), 1)
    mask = torch.rand(2, 12, 10, generator=torch.Generator().manual_seed(2)) < 0.6
    mask[0, :4] = False
    found = pseudo_labels(logits, (5, 4), 0.5, 0.5, mask=mask)
    assert torch.equal(found, pseudo_label_oracle(logits, (5, 4), 0.5, 0.5, mask))
    assert (found[0, 0] == VOID).all()
    assert (found != VOID).any()


def test_confidence_is_strict_and_a_mean_over_the_window() -> None:
    logits = torch.zeros(1, 2, 2, 2)  # every peak probability is exactly one half
    assert pseudo_labels(logits, (1, 1), confidence=0.5).item() == VOID
    assert pseudo_labels(logits, (1, 1), confidence=0.49).item() == 0


def test_no_graph() -> None:
    logits = logits_of((1, 3, 6, 6)).requires_grad_()
    assert not pseudo_labels(logits, (2, 2)).requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_logits_are_computed_in_float32(dtype: torch.dtype) -> None:
    logits = logits_of((2, 3, 9, 13)).to(dtype)
    assert torch.equal(pseudo_labels(logits, (4, 5)), pseudo_labels(logits.float(), (4, 5)))


def test_channels_last_and_strided() -> None:
    logits = logits_of((2, 3, 9, 13))
    expected = pseudo_labels(logits, (4, 5))
    assert torch.equal(pseudo_labels(logits.contiguous(memory_format=torch.channels_last), (4, 5)), expected)
    wide = torch.zeros(2, 3, 18, 13)
    wide[:, :, ::2] = logits
    assert torch.equal(pseudo_labels(wide[:, :, ::2], (4, 5)), expected)


def test_nearest_takes_the_centre_and_keeps_the_confidence() -> None:
    logits = logits_of((2, 3, 9, 13), sharpness=1.0)
    found = pseudo_labels(logits, (4, 5), downsample=nearest_downsample)
    kept = found != VOID
    centre = nearest_downsample(logits.argmax(dim=1), (4, 5), 3)
    assert torch.equal(found[kept], centre[kept])
    assert kept.any()
    assert not kept.all()


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="floating"):
        pseudo_labels(torch.zeros(1, 3, 4, 4, dtype=torch.int64), (2, 2))
    with pytest.raises(ValueError, match="floating"):
        pseudo_labels(torch.zeros(3, 4, 4), (2, 2))
    with pytest.raises(ValueError, match="mask"):
        pseudo_labels(torch.zeros(1, 3, 4, 4), (2, 2), mask=torch.ones(1, 4, 4))
