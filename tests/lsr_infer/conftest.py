"""Fixtures of the runtime's tests."""

from pathlib import Path

import pytest

from tests.lsr_infer.onnxfile import colour_model


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An exported model that names the strongest channel."""
    return colour_model(tmp_path / "model.onnx")
