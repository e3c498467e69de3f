import pytest
import torch

from lsr_infer.errors import DeviceError, UsageError
from lsr_train import device
from lsr_train.device import choose_device, choose_precision


def test_cpu_and_auto() -> None:
    assert choose_device("cpu", "bf16") == torch.device("cpu")
    assert choose_device("auto", "fp32").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("device", ["", "gpu", "cuda:x", "cuda:", "cpu:0", "mps", "cuda:-1"])
def test_unknown_names(device: str) -> None:
    with pytest.raises(UsageError, match=r"Set --train\.device"):
        choose_device(device, "fp32", prefix="train.")


def test_what_is_not_there() -> None:
    with pytest.raises(DeviceError, match="CUDA devices"):
        choose_device("cuda:99", "fp32")
    with pytest.raises(DeviceError, match="fp16 needs"):
        choose_device("cpu", "fp16")


@pytest.mark.parametrize(
    ("instructions", "seconds", "expected"),
    [
        ({}, 0.5, "fp32"), ({"avx512_f": True}, 0.5, "fp32"), ({"avx512_bf16": True}, 0.5, "bf16"),
        ({"avx512_bf16": True}, 2.0, "fp32"), ({"amx_bf16": True}, 0.5, "bf16"),
    ],
)  # fmt: skip
def test_auto_takes_bf16_only_where_the_cpu_has_it_and_is_faster(
    monkeypatch: pytest.MonkeyPatch, instructions: dict[str, bool], seconds: float, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: instructions)
    monkeypatch.setattr(device, "convolution_seconds", {"bf16": seconds, "fp32": 1.0}.__getitem__)
    assert choose_precision(torch.device("cpu"), "auto") == expected
    assert choose_precision(torch.device("cpu"), "bf16") == "bf16"


def test_both_precisions_are_measured() -> None:
    assert all(0 < device.convolution_seconds(precision) < 10 for precision in ("fp32", "bf16"))


@pytest.mark.gpu
def test_cuda() -> None:
    assert choose_device("cuda", "fp16") == torch.device("cuda")
    assert choose_device("cuda:0", "bf16") == torch.device("cuda:0")
