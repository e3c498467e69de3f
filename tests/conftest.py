"""Fixtures and options that every test may use."""

from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("project", deadline=None)  # a clock says nothing on a shared machine
hypothesis.settings.load_profile("project")

REPOSITORY = Path(__file__).resolve().parents[1]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--run-slow`."""
    parser.addoption("--run-slow", action="store_true", help="run what is marked slow too (make test-all)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what cannot or shall not run here, with the reason in the report."""
    for item in items:
        if item.get_closest_marker("slow") and not config.getoption("--run-slow"):
            item.add_marker(pytest.mark.skip(reason="slow: make test-all runs it"))
        if item.get_closest_marker("gpu") and not _cuda():
            item.add_marker(pytest.mark.skip(reason="gpu: no CUDA device here"))


def _cuda() -> bool:
    """Whether torch sees a CUDA device; without torch, as where engines are only run, whether the driver does."""
    try:
        import torch
    except ImportError:
        from lsr_infer.system.cuda import probe_cuda

        return bool(probe_cuda().devices)
    return torch.cuda.is_available()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Find real data in the folder `shared` beside the checkout, or skip with the reason."""

    def find(relative: str) -> Path:
        path = REPOSITORY.parent / "shared" / relative
        if not path.exists():
            pytest.skip(f"shared/{relative} is not beside this checkout")
        return path

    return find
