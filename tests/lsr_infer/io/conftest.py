"""Fixtures of what reads and writes stores."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lsr_infer.io.object_store import KEY, SECRET, FaultyProxy, object_store


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
