"""Fixtures that every test may use."""

from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


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
