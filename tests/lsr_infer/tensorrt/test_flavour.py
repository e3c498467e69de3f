"""What differs between TensorRT 10, 11 and TensorRT for RTX, on stand-ins for the modules that cannot be here."""

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from lsr_infer.errors import DeviceError, UsageError
from lsr_infer.system.cuda import CudaDevice, CudaProbe
from lsr_infer.tensorrt.flavour import Library, load_library, platform_name, resolve_flavour

GPU = CudaProbe(devices=(CudaDevice(index=0, name="NVIDIA Orin", compute_capability=(8, 7)),), driver=(12, 6))
NONE = CudaProbe(reason="there is no CUDA driver")


def module(version: str, **members: Any) -> SimpleNamespace:
    flags = SimpleNamespace(STRONGLY_TYPED=1)
    levels = SimpleNamespace(NONE=0, AMPERE_PLUS=1)
    return SimpleNamespace(
        __version__=version, NetworkDefinitionCreationFlag=flags, HardwareCompatibilityLevel=levels, **members
    )


def library(version: str, flavour: str = "tensorrt") -> Library:
    return Library(flavour=flavour, module=module(version), version=version)


@pytest.mark.parametrize(
    ("version", "flavour", "flags"),
    [("10.3.0", "tensorrt", 2), ("10.16.1.11", "tensorrt", 2), ("11.1.0.106", "tensorrt", 0), ("1.7.1.116", "rtx", 0)],
)
def test_only_tensorrt_10_has_to_be_told_to_be_strongly_typed(version: str, flavour: str, flags: int) -> None:
    assert library(version, flavour).network_flags() == flags


def test_a_network_that_chooses_its_own_types_is_refused() -> None:
    tensorrt = library("10.3.0")
    tensorrt.check_strongly_typed(SimpleNamespace(get_flag=lambda flag: flag == 1))
    with pytest.raises(DeviceError, match="not strongly typed"):
        tensorrt.check_strongly_typed(SimpleNamespace(get_flag=lambda flag: False))


def test_the_newest_may_have_lost_the_flag() -> None:
    without = module("12.0.0")
    del without.NetworkDefinitionCreationFlag.STRONGLY_TYPED
    newest = Library(flavour="tensorrt", module=without, version="12.0.0")
    assert newest.network_flags() == 0
    newest.check_strongly_typed(SimpleNamespace(get_flag=lambda flag: pytest.fail("there is no flag to ask for")))


def test_an_old_or_broken_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", module("8.6.1"))
    with pytest.raises(DeviceError, match=r"TensorRT 8.6.1 is too old; needed: 10 or newer"):
        load_library("tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace())  # a folder of that name, or a stub
    with pytest.raises(DeviceError, match=r"Install lsr-road\[trt\]"):
        load_library("tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(DeviceError, match=r"TensorRT for RTX cannot be loaded .* Install lsr-road\[trt-rtx\]"):
        load_library("rtx")


def test_auto_takes_tensorrt_where_a_gpu_is(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    monkeypatch.setitem(sys.modules, "tensorrt", module("11.1.0"))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", module("1.7.1"))
    assert resolve_flavour("auto", GPU).flavour == "tensorrt"
    assert "takes TensorRT 11.1.0: it is installed, and there is cuda:0 (NVIDIA Orin" in caplog.text
    assert resolve_flavour("auto", NONE).flavour == "rtx"
    assert "takes TensorRT for RTX 1.7.1: there is no CUDA driver" in caplog.text
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert resolve_flavour("auto", GPU).flavour == "rtx"
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    with pytest.raises(DeviceError, match=r"lsr-road\[trt\].*lsr-road\[trt-rtx\]"):
        resolve_flavour("auto", GPU)
    with pytest.raises(DeviceError, match=r"there is no CUDA driver; .*lsr-road\[trt-rtx\]"):
        resolve_flavour("auto", NONE)


def test_tensorrt_needs_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", module("11.1.0"))
    assert resolve_flavour("tensorrt", GPU).version == "11.1.0"
    with pytest.raises(DeviceError, match="builds for the GPU it runs on, and there is no CUDA driver"):
        resolve_flavour("tensorrt", NONE)


@pytest.mark.parametrize(
    ("option", "flag"),
    [
        ({"hardware_compatible": "ampere_plus"}, "--hardware-compatible"),
        ({"version_compatible": True}, "--version-compatible"),
        ({"timing_cache": True}, "--timing-cache"),
    ],
)
def test_what_rtx_has_not(option: dict[str, Any], flag: str) -> None:
    none: dict[str, Any] = {"hardware_compatible": "", "version_compatible": False, "timing_cache": False}
    library("1.7.1", "rtx").check_options(**none)
    with pytest.raises(UsageError, match=f"{flag} is not for TensorRT for RTX"):
        library("1.7.1", "rtx").check_options(**(none | option))
    library("11.1.0").check_options(**(none | option))


def test_a_level_that_a_version_has_not() -> None:
    with pytest.raises(DeviceError, match=r"TensorRT 10.0.1 has no hardware compatibility level same_compute"):
        library("10.0.1").check_options(
            hardware_compatible="same_compute_capability", version_compatible=False, timing_cache=False
        )


def test_targets_of_the_real_library() -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (extra trt-rtx)")
    rtx = load_library("rtx")
    assert "75" in rtx.all_targets()
    assert rtx.targets(()) == tuple(one for one in rtx.all_targets() if one != "75")
    assert rtx.targets(("120", "75", "120")) == ("75", "120")
    with pytest.raises(UsageError, match="does not build for 90; known: 75, 80"):
        rtx.targets(("90",))
    with pytest.raises(UsageError, match="--targets is for --flavour rtx"):
        library("11.1.0").targets(("86",))
    assert library("11.1.0").targets(()) == ()


def test_the_platform_has_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert platform_name().startswith(f"{sys.platform}_")
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    monkeypatch.setattr(sys, "platform", "win32")
    assert platform_name() == "windows_x86_64"
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    monkeypatch.setattr(sys, "platform", "linux")
    assert platform_name() == "linux_aarch64"
