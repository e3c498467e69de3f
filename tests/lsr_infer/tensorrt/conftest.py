"""Fixtures of TensorRT's tests."""

import pytest

from lsr_infer.tensorrt.flavour import Library, load_library


@pytest.fixture(scope="session")
def rtx() -> Library:
    """TensorRT for RTX, which builds without a GPU."""
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (extra trt-rtx)")
    return load_library("rtx")
