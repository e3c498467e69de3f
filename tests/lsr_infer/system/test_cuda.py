"""Asking the CUDA driver, against small shared libraries that answer as one does: real ctypes, real calls."""

import shutil
import subprocess
from pathlib import Path

import pytest

from lsr_infer.errors import DeviceError, UsageError
from lsr_infer.system.cuda import CudaDevice, CudaProbe, choose_cuda_device, probe_cuda

DRIVER = """
#include <string.h>
int cuInit(unsigned flags) { return INIT; }
int cuDriverGetVersion(int *version) { *version = 13010; return 0; }
int cuDeviceGetCount(int *count) { *count = COUNT; return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal + 40; return ordinal < COUNT ? 0 : 101; }
int cuDeviceGetName(char *name, int length, int device) {
    strncpy(name, device == 40 ? "NVIDIA Orin" : "NVIDIA RTX 4090", length);
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (attribute == 75) *value = 8;
    else if (attribute == 76) *value = device == 40 ? 7 : 9;
    else return 1;
    return 0;
}
int cuGetErrorName(int code, const char **name) { *name = code == 100 ? "CUDA_ERROR_NO_DEVICE" : 0; return 0; }
"""


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("there is no C compiler to make a stand-in for the CUDA driver with")
    source = tmp_path / "driver.c"
    source.write_text(DRIVER, encoding="utf-8")
    return source


def driver(source: Path, *, init: int = 0, count: int = 2) -> str:
    library = source.with_name(f"libcuda_{init}_{count}.so")
    words = ["cc", "-shared", "-fPIC", f"-DINIT={init}", f"-DCOUNT={count}", str(source), "-o", str(library)]
    subprocess.run(words, check=True, timeout=60)
    return str(library)


def test_a_driver_tells_its_devices(compiled: Path) -> None:
    probe = probe_cuda(driver(compiled))
    assert probe == CudaProbe(
        devices=(
            CudaDevice(index=0, name="NVIDIA Orin", compute_capability=(8, 7)),
            CudaDevice(index=1, name="NVIDIA RTX 4090", compute_capability=(8, 9)),
        ),
        driver=(13, 1),
    )
    assert choose_cuda_device("auto", probe, "it").name == "NVIDIA Orin"
    assert choose_cuda_device("cuda", probe, "it").index == 0
    assert choose_cuda_device("cuda:1", probe, "it").compute_capability == (8, 9)
    with pytest.raises(
        DeviceError, match=r"it needs cuda:2, and cuda:0 \(NVIDIA Orin, compute capability 8.7\), cuda:1"
    ):
        choose_cuda_device("cuda:2", probe, "it")


def test_a_driver_without_devices(compiled: Path) -> None:
    refused = probe_cuda(driver(compiled, init=100))
    assert (refused.devices, refused.driver) == ((), None)
    assert refused.reason == "the CUDA driver answers CUDA_ERROR_NO_DEVICE to cuInit"
    assert "error 999 to cuInit" in probe_cuda(driver(compiled, init=999)).reason
    empty = probe_cuda(driver(compiled, count=0))
    assert (empty.devices, empty.driver, empty.reason) == ((), (13, 1), "the CUDA driver sees no device")


def test_no_driver_and_what_is_none(tmp_path: Path) -> None:
    missing = probe_cuda("libno_such_driver.so.1")
    assert missing.devices == ()
    assert "libno_such_driver.so.1 cannot be loaded" in missing.reason
    assert "is no CUDA driver" in probe_cuda("libc.so.6").reason
    broken = tmp_path / "libcuda.so.1"
    broken.write_bytes(b"no library")
    assert "cannot be loaded" in probe_cuda(str(broken)).reason


@pytest.mark.parametrize("name", ["cuda:x", "gpu", "cuda:-1", "cuda:0000", "CUDA:0", ""])
def test_names_that_are_no_device(name: str) -> None:
    with pytest.raises(UsageError, match="there is no device"):
        choose_cuda_device(name, CudaProbe(reason="none"), "it")


def test_an_engine_does_not_run_on_the_cpu() -> None:
    with pytest.raises(DeviceError, match="only on an NVIDIA GPU"):
        choose_cuda_device("cpu", CudaProbe(), "it")
    with pytest.raises(DeviceError, match="it needs a CUDA device, and nothing answers"):
        choose_cuda_device("auto", CudaProbe(reason="nothing answers"), "it")
