"""One small network and its float32 graph, traced once."""

from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx", reason="onnx is not installed (extra export)")
pytest.importorskip("onnxscript", reason="onnxscript is not installed (extra export)")

from lsr_infer.io.images import resize_frame
from lsr_infer.parity.frame_set import shipped_frames
from lsr_train.exporting.graph import trace
from tests.lsr_train.exporting.small import network


@pytest.fixture(scope="session")
def made() -> Any:
    return network(stem="caffe", normalization="caffe-bgr")


@pytest.fixture(scope="session")
def traced(made: Any) -> Any:
    return trace(made, fixed=None)


@pytest.fixture(scope="session")
def images() -> list[np.ndarray]:
    """Real (rendered) frames as the graph takes them."""
    return [np.ascontiguousarray(resize_frame(frame, 64, 96)[None]) for frame in shipped_frames(6).frames]
