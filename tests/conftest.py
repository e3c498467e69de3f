"""Fixtures and options that every test may use."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

from tests.object_store import KEY, SECRET, FaultyProxy, object_store

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


@pytest.fixture(scope="session")
def store_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an object store."""
    s3fs = pytest.importorskip("s3fs")
    with object_store(tmp_path_factory.mktemp("store")) as port:
        direct = s3fs.S3FileSystem(key=KEY, secret=SECRET, endpoint_url=f"http://127.0.0.1:{port}")
        direct.mkdir("tests")
        yield port


@pytest.fixture
def proxy(store_port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy before the store, by which s3:// goes in this test, with an empty cache."""
    s3fs = pytest.importorskip("s3fs")
    proxy = FaultyProxy(store_port)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{proxy.port}")
    for name, value in (("ACCESS_KEY_ID", KEY), ("SECRET_ACCESS_KEY", SECRET), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("LSR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lsr_infer.io.stores._WAIT_SECONDS", 0.001)
    monkeypatch.setattr("lsr_infer.io.store_cache._unchecked", {})
    monkeypatch.setattr("lsr_infer.io.store_cache._local", {})
    s3fs.S3FileSystem.clear_instance_cache()
    yield proxy
    s3fs.S3FileSystem.clear_instance_cache()
    proxy.close()


@pytest.fixture
def place(proxy: FaultyProxy) -> str:
    """The address of an empty folder of the store, of the test's own."""
    return f"s3://tests/{uuid.uuid4().hex[:12]}"
