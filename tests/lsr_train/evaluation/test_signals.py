import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from lsr_train.data.samples import UnlabelledBatch
from lsr_train.device import Precision
from lsr_train.evaluation.scores import in_eval_mode
from lsr_train.evaluation.signals import label_free_signals
from tests.lsr_train.fake_network import ConstantNetwork, ConvNetwork, PixelNetwork


def frames(seed: int, count: int = 3, height: int = 24, width: int = 33) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 256, (count, 3, 5, 6), generator=generator).float()
    smooth = functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=True)
    return smooth.permute(0, 2, 3, 1).round().to(torch.uint8)


def masks(seed: int, like: torch.Tensor) -> torch.Tensor:
    return torch.rand(like.shape[:3], generator=torch.Generator().manual_seed(seed)) < 0.7


def full_logits(network: nn.Module, image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return functional.interpolate(network(image).logits, size, mode="bilinear", align_corners=True)


def agreement_oracle(first: torch.Tensor, second: torch.Tensor, mask: torch.Tensor, classes: int) -> float:
    """mIoU class by class, pixel by pixel, divided by all classes."""
    total = 0.0
    for c in range(classes):
        union = ((first == c) | (second == c)) & mask
        both = (first == c) & (second == c) & mask
        total += both.sum().item() / union.sum().item() if union.any() else 0.0
    return total / classes


@torch.no_grad()
def test_signals_equal_their_oracles() -> None:
    network = ConvNetwork(classes=5).eval()
    data = frames(1, count=4)
    mask = masks(2, data)
    image, size = network.normalize(data), (24, 33)
    plain = full_logits(network, image, size)
    mirrored = full_logits(network, image.flip(-1), size).argmax(1).flip(-1)
    small = functional.interpolate(image, (12, 16), mode="bilinear", antialias=True)
    batches = [UnlabelledBatch(image=data[:3], mask=mask[:3]), UnlabelledBatch(image=data[3:], mask=mask[3:])]
    signals = label_free_signals(network, batches, scales=(0.5,))
    assert signals.flip == pytest.approx(agreement_oracle(plain.argmax(1), mirrored, mask, 5))
    assert signals.scale == pytest.approx(
        agreement_oracle(plain.argmax(1), full_logits(network, small, size).argmax(1), mask, 5)
    )
    probabilities = plain.double().softmax(1)
    entropy = -(probabilities * probabilities.log()).nansum(1) / math.log(5)
    assert signals.entropy == pytest.approx(entropy[mask].mean().item(), rel=1e-5)
    labels = plain.argmax(1)
    for c in range(5):
        given = (labels == c) & mask
        assert signals.classes.share[c].item() == pytest.approx(given.sum().item() / mask.sum().item())
        confidence = probabilities.amax(1)[given].mean().item()
        assert signals.classes.confidence[c].item() == pytest.approx(confidence, rel=1e-5, nan_ok=True)
        union = (given | ((mirrored == c) & mask)).sum().item()
        both = (given & (mirrored == c)).sum().item()
        assert signals.classes.flip[c].item() == pytest.approx(both / union if union else math.nan, nan_ok=True)
    assert signals.frames == 4
    assert 0.05 < signals.flip < 0.999


def test_batching_does_not_matter() -> None:
    network = ConvNetwork()
    data = frames(5, count=4)
    one = label_free_signals(network, [UnlabelledBatch(image=data)])
    four = label_free_signals(network, [UnlabelledBatch(image=part) for part in torch.split(data, 1)])
    assert one.flip == pytest.approx(four.flip, abs=1e-6)
    assert one.scale == pytest.approx(four.scale, abs=1e-6)
    assert one.entropy == pytest.approx(four.entropy, abs=1e-6)


def test_a_pixelwise_network_agrees_with_its_mirror_image() -> None:
    data = torch.zeros(2, 8, 10, 3, dtype=torch.uint8)
    data[..., 0] = torch.randint(0, 4, (2, 8, 10), generator=torch.Generator().manual_seed(1))
    signals = label_free_signals(PixelNetwork(4), [UnlabelledBatch(image=data)])
    assert signals.flip == 1
    assert signals.classes.flip.tolist() == [1, 1, 1, 1]
    assert signals.higher_is_better() == {"flip": 1, "scale": signals.scale, "entropy": -signals.entropy}
    assert label_free_signals(PixelNetwork(8), [UnlabelledBatch(image=data)]).flip == pytest.approx(4 / 8)


def test_a_constant_prediction_does_not_score_one() -> None:
    signals = label_free_signals(ConstantNetwork([1.0, 0.0, 0.0, 0.0]), [UnlabelledBatch(image=frames(6))])
    assert signals.flip == pytest.approx(1 / 4)
    assert signals.scale == pytest.approx(1 / 4)


def test_entropy_is_a_share_of_log_c() -> None:
    batches = [UnlabelledBatch(image=frames(7))]
    assert label_free_signals(ConstantNetwork([2.0] * 5), batches).entropy == pytest.approx(1)
    assert label_free_signals(ConstantNetwork([200.0, 0.0, 0.0]), batches).entropy == pytest.approx(0, abs=1e-6)
    assert label_free_signals(ConstantNetwork([1.0]), batches).entropy == 0


def test_masked_pixels_do_not_count() -> None:
    network = ConvNetwork()
    data = frames(8)
    mask = torch.zeros(data.shape[:3], dtype=torch.bool)
    with pytest.raises(ValueError, match="no pixel"):
        label_free_signals(network, [UnlabelledBatch(image=data, mask=mask)])
    everywhere = label_free_signals(network, [UnlabelledBatch(image=data, mask=~mask)])
    plain = label_free_signals(network, [UnlabelledBatch(image=data)])
    assert everywhere.higher_is_better() == plain.higher_is_better()
    mask[:, :, :9] = True
    changed = data.clone()
    changed[:, :, 9:] = 0
    part = label_free_signals(PixelNetwork(4), [UnlabelledBatch(image=data, mask=mask)])
    assert part.entropy == label_free_signals(PixelNetwork(4), [UnlabelledBatch(image=changed, mask=mask)]).entropy


def test_nothing_to_evaluate_is_an_error() -> None:
    with pytest.raises(ValueError, match="no frame"):
        label_free_signals(ConvNetwork(), [])
    for scales in ((), (1.0,), (-1.0,)):
        with pytest.raises(ValueError, match="scales"):
            label_free_signals(ConvNetwork(), [UnlabelledBatch(image=frames(1))], scales=scales)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_near(precision: Precision) -> None:
    batches = [UnlabelledBatch(image=frames(9))]
    exact, near = (label_free_signals(ConvNetwork(), batches, precision=p) for p in ("fp32", precision))
    assert near.flip == pytest.approx(exact.flip, abs=0.1)
    assert near.entropy == pytest.approx(exact.entropy, abs=0.02)


def test_modes_and_state_are_put_back() -> None:
    network = ConvNetwork()
    network.train()
    network.norm.eval()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    data = frames(10)
    copy = data.clone()
    label_free_signals(network, [UnlabelledBatch(image=data)])
    assert network.training
    assert network.encoder.training
    assert not network.norm.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert torch.equal(data, copy)


def fail_inside(network: ConvNetwork) -> None:
    with in_eval_mode(network):
        assert not network.training
        assert not torch.is_grad_enabled()
        raise RuntimeError("inside")


def test_modes_are_put_back_after_an_error() -> None:
    network = ConvNetwork().train()
    with pytest.raises(RuntimeError, match="inside"):
        fail_inside(network)
    assert network.training
    assert torch.is_grad_enabled()
