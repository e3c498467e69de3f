"""Stores and their cache, on a real object store behind a proxy whose connections fail."""

import fcntl
import logging
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lsr_infer.errors import DeviceError, InputError, UsageError, exit_status, stderr_handler
from lsr_infer.io.store_cache import _remove_unused, fetch, fetch_folder, local_path, release
from lsr_infer.io.stores import (
    has_secret,
    is_store,
    is_url,
    listing,
    pieces,
    put_folder,
    put_whole,
    remove,
    remove_folder,
    status,
    stored,
)
from tests.object_store import KEY, SECRET, FaultyProxy

KIB = 1 << 10


def written(tmp_path: Path, url: str, size: int, seed: int = 0) -> bytes:
    """Put random bytes to an address."""
    content = random.Random(f"{url} {seed}").randbytes(size)
    (tmp_path / "given").write_bytes(content)
    put_whole(tmp_path / "given", url)
    return content


def gets(proxy: FaultyProxy) -> list[str]:
    return [line for line in proxy.requests if line.startswith("GET")]


@pytest.mark.parametrize(
    ("text", "url", "store"),
    [
        ("s3://bucket/a b.mp4", True, True), ("gs://b/x", True, True), ("az://c/x", True, True),
        ("S3://b/x", True, True),
        ("abfss://c@account.dfs.core.windows.net/x", True, True),
        ("https://h/x", True, False), ("http://h", True, False),
        ("rtsp://h/x", False, False), ("s3:/b/x", False, False), ("folder/s3://x", False, False), ("0", False, False),
    ],
)  # fmt: skip
def test_addresses_are_told_from_paths(text: str, url: bool, store: bool) -> None:
    assert (is_url(text), is_store(text)) == (url, store)
    assert not is_url(Path(text))


def test_a_file_comes_whole_through_cut_connections_and_is_kept(
    place: str, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = written(tmp_path, f"{place}/clips/a b.mp4", 3000 * KIB)
    monkeypatch.setattr("lsr_infer.io.stores._CHUNK", 1024 * KIB)
    proxy.requests.clear()
    proxy.plan = ["503", "", "cut", "cut", "503", "slow", "cut answer"]
    path = fetch(f"{place}/clips/a b.mp4")
    assert path.read_bytes() == content
    assert path.name == "a b.mp4"
    assert sum(proxy.faults[fault] for fault in FaultyProxy.FAULTS) >= 5
    before = len(gets(proxy))
    assert fetch(f"{place}/clips/a b.mp4") == path
    assert len(gets(proxy)) == before  # asked how long it is, and no more
    assert [item.name for item in path.parent.iterdir() if item.name != "lock"] == ["a b.mp4"]


def test_a_read_that_was_killed_goes_on(place: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    content = written(tmp_path, f"{place}/a.bin", 500 * KIB)
    path = fetch(f"{place}/a.bin")
    release(path)
    path.unlink()
    path.with_name("a.bin.part").write_bytes(content[: 200 * KIB])
    proxy.requests.clear()
    assert fetch(f"{place}/a.bin").read_bytes() == content
    (line,) = gets(proxy)
    assert line.endswith(f"bytes={200 * KIB}-{500 * KIB - 1}")


def test_an_empty_file_is_the_first_in_the_cache(place: str, tmp_path: Path) -> None:
    assert written(tmp_path, f"{place}/empty.bin", 0) == b""
    assert fetch(f"{place}/empty.bin").read_bytes() == b""


def test_changed_content_is_fetched_anew(place: str, tmp_path: Path) -> None:
    old = written(tmp_path, f"{place}/a.bin", 10 * KIB, seed=1)
    first = fetch(f"{place}/a.bin")
    new = written(tmp_path, f"{place}/a.bin", 10 * KIB, seed=2)
    assert fetch(f"{place}/a.bin").read_bytes() == new != old == first.read_bytes()


def test_content_that_changes_within_a_read_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsr_infer.io.stores._CHUNK", 64 * KIB)
    written(tmp_path, f"{place}/a.bin", 200 * KIB, seed=1)
    found = status(f"{place}/a.bin")
    new = written(tmp_path, f"{place}/a.bin", 200 * KIB, seed=2)
    assert found is not None
    with pytest.raises(InputError, match=r"a\.bin: changed while it was read"):
        fetch(found)
    assert fetch(f"{place}/a.bin").read_bytes() == new


def test_the_cache_keeps_its_limit_and_what_is_read(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSR_CACHE_LIMIT", "100KB")
    contents = [written(tmp_path, f"{place}/{number}.bin", 30_000) for number in range(4)]
    written(tmp_path, f"{place}/large.bin", 100_001)
    paths = [fetch(f"{place}/{number}.bin") for number in range(3)]
    with pytest.raises(InputError, match=r"is full of files in use, 0\.00 GB of 0\.00 GB\. Set LSR_CACHE_LIMIT"):
        fetch(f"{place}/3.bin")
    release(paths[1])
    assert fetch(f"{place}/3.bin").read_bytes() == contents[3]
    assert [path.exists() for path in paths] == [True, False, True]
    with pytest.raises(InputError, match=r"large.bin: .* do not fit into .*LSR_CACHE_LIMIT"):
        fetch(f"{place}/large.bin")
    release(tmp_path / "given")  # is no copy
    monkeypatch.setenv("LSR_CACHE_LIMIT", "much")
    with pytest.raises(UsageError, match="LSR_CACHE_LIMIT is 'much'; write a size such as 200GB"):
        fetch(f"{place}/0.bin")


def test_a_file_that_is_fetched_twice_is_let_go_of_twice(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSR_CACHE_LIMIT", "100KB")
    for number in range(2):
        written(tmp_path, f"{place}/{number}.bin", 60_000)
    path = fetch(f"{place}/0.bin")
    assert fetch(f"{place}/0.bin") == path
    release(path)
    with pytest.raises(InputError, match="is full of files in use"):
        fetch(f"{place}/1.bin")
    release(path)
    fetch(f"{place}/1.bin")
    assert not path.exists()


def test_an_entry_that_was_made_anew_is_not_removed_by_who_held_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, flock = tmp_path / "entry", fcntl.flock
    entry.mkdir()

    def late(descriptor: int, how: int) -> None:
        flock(descriptor, how)
        (entry / "lock").unlink()  # what other processes do meanwhile
        (entry / "lock").touch()
        (entry / "a.bin.part").touch()

    monkeypatch.setattr("lsr_infer.io.store_cache.fcntl.flock", late)
    _remove_unused(entry)
    assert (entry / "a.bin.part").exists()


def test_several_readers_fetch_a_file_once(place: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    content = written(tmp_path, f"{place}/a.bin", 300 * KIB)
    proxy.requests.clear()
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(fetch, [f"{place}/a.bin"] * 8))
    assert {path.read_bytes() for path in paths} == {content}
    assert len(gets(proxy)) == 1


def test_folders_and_patterns_are_listed_and_fetched(place: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    names = ["day 1/a.mp4", "day 1/b.txt", "day 2/cam/c.mp4", "day 2/.hidden/d.mp4", "day 2/.e.mp4", "f[1].mp4"]
    contents = {name: written(tmp_path, f"{place}/set/{name}", 100 + len(name)) for name in names}
    shown = [name for name in names if "/." not in name]
    assert [found.url for found in listing(f"{place}/set")] == [f"{place}/set/{name}" for name in shown]
    assert [found.url for found in listing(f"{place}/set/day*/*.mp4")] == [f"{place}/set/day 1/a.mp4"]
    assert len(list(listing(f"{place}/set/**/*.mp4"))) == 3
    folder = fetch_folder(f"{place}/set/")
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {*shown}
    assert all((folder / name).read_bytes() == contents[name] for name in shown)
    proxy.requests.clear()
    assert fetch_folder(f"{place}/set") == folder
    assert all("list-type" in line for line in gets(proxy))
    assert local_path(f"{place}/set/day 1/a.mp4").read_bytes() == contents["day 1/a.mp4"]
    assert local_path(f"{place}/set/*/*.mp4") == local_path(f"{place}/set/*/*.mp4")
    assert local_path("some/folder") == Path("some/folder")
    for nothing in (f"{place}/other", f"{place}/set/*.avi"):
        with pytest.raises(InputError, match="holds no file"):
            list(listing(nothing))
    with pytest.raises(InputError, match="is a folder"):
        fetch(f"{place}/set")


def test_what_is_written_is_whole_or_not_there(place: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    for number, fault in enumerate(FaultyProxy.FAULTS):
        proxy.plan = [fault] * 2
        content = written(tmp_path, f"{place}/{number}.bin", 100 * KIB)
        assert fetch(f"{place}/{number}.bin").read_bytes() == content
    proxy.rate = 1.0
    proxy.FAULTS = ("cut request",)
    with pytest.raises(InputError, match=r"new.bin: cannot be written, 8 tries in a row failed \(\w+.*\)"):
        put_whole(tmp_path / "given", f"{place}/new.bin")
    proxy.rate = 0.0
    assert not stored(f"{place}/new.bin")
    (tmp_path / "tree" / "in").mkdir(parents=True)
    (tmp_path / "tree" / "in" / "a").write_text("a")
    put_folder(tmp_path / "tree", f"{place}/tree")
    assert stored(f"{place}/tree")
    assert fetch(f"{place}/tree/in/a").read_text() == "a"


def test_what_is_removed_may_be_gone_since_a_try_whose_answer_was_cut(
    place: str, proxy: FaultyProxy, tmp_path: Path
) -> None:
    written(tmp_path, f"{place}/run/a.bin", 10)
    proxy.requests.clear()
    proxy.plan = ["", "cut answer"]
    remove_folder(f"{place}/run")
    assert proxy.requests[1].startswith("POST"), proxy.requests
    assert not stored(f"{place}/run/a.bin")
    remove_folder(f"{place}/run")
    remove(f"{place}/run/a.bin")


def transfers(place: str, proxy: FaultyProxy, tmp_path: Path, count: int, workers: int) -> None:
    """Write and read files of 0 to 3 MB, a third of whose requests fail, and compare every byte."""
    proxy.rate = 1 / 3

    def transfer(number: int) -> bool:
        content = random.Random(number).randbytes(
            random.Random(-number).choice((0, 1, 10 * KIB, 900 * KIB, 3000 * KIB))
        )
        path = tmp_path / f"given {number}"
        path.write_bytes(content)
        put_whole(path, f"{place}/{number % 7}/{number}.bin")
        copy = fetch(f"{place}/{number % 7}/{number}.bin")
        same = copy.read_bytes() == content
        release(copy)
        path.unlink()
        return same

    with ThreadPoolExecutor(workers) as pool:
        assert all(pool.map(transfer, range(count // 2)))
    assert len(list(listing(place))) == count // 2
    assert min(proxy.faults[fault] for fault in FaultyProxy.FAULTS) > 0


def test_transfers_lose_nothing(place: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    transfers(place, proxy, tmp_path, 20, 4)


@pytest.mark.slow
def test_500_transfers_lose_nothing(place: str, proxy: FaultyProxy, tmp_path: Path) -> None:
    transfers(place, proxy, tmp_path, 500, 8)


@pytest.mark.slow
def test_100_000_keys_are_listed_a_page_at_a_time(place: str, proxy: FaultyProxy, store_port: int) -> None:
    import s3fs

    direct = s3fs.S3FileSystem(endpoint_url=f"http://127.0.0.1:{store_port}", use_listings_cache=False)
    for begin in range(0, 100_000, 10_000):
        names = (f"{place.removeprefix('s3://')}/clips/{number:06}.mp4" for number in range(begin, begin + 10_000))
        direct.pipe(dict.fromkeys(names, b"x"), batch_size=64)
    proxy.rate, proxy.FAULTS = 0.2, ("503", "cut", "slow")
    proxy.requests.clear()
    found = listing(f"{place}/clips")
    assert next(found).url.endswith("/000000.mp4")
    assert len([line for line in proxy.requests if "list-type" in line]) < 20  # one page, some of them failed
    names = [item.url.rpartition("/")[2] for item in found]
    assert names == [f"{number:06}.mp4" for number in range(1, 100_000)]


SECRETS = ("AKIASECRET", "passw0rd", "5ignature", SECRET, KEY)


def said(capsys: pytest.CaptureFixture[str], url: str) -> tuple[int, str]:
    """Return the exit code and all that a command says that fetches an address."""
    root, handler = logging.getLogger(), stderr_handler()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)

    def command() -> None:
        fetch(url)

    try:
        code = exit_status(command, argv=[url])
    finally:  # its stream is closed with this test
        root.removeHandler(handler)
        root.setLevel(level)
    return code, "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIASECRET:passw0rd@bucket/a.mp4", "s3://AKIASECRET:pass/w0rd@bucket/a.mp4", "gs://AKIASECRET@bucket/a.mp4",
        "az://box/a.mp4?sv=1&sig=5ignature", "s3://b/a.mp4?X-Amz-Signature=5ignature",
        "abfs://box:passw0rd@account.dfs.core.windows.net/a",
    ],
)  # fmt: skip
def test_credentials_in_an_address_of_a_store_are_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert has_secret(url)
    code, text = said(capsys, url)
    assert code == 2
    assert "credentials are not read from an address" in text
    assert not [secret for secret in (*SECRETS, "w0rd") if secret in text]


def test_secrets_of_the_environment_are_in_no_message(
    place: str, proxy: FaultyProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import s3fs

    written(tmp_path, f"{place}/a.bin", 100)
    assert said(capsys, f"{place}/a.bin") == (0, "")
    code, text = said(capsys, f"{place}/b.bin")
    assert (code, text) == (4, f"error: {place}/b.bin: there is no such file or folder.\n")
    proxy.rate, proxy.FAULTS = 1.0, ("503",)
    code, text = said(capsys, f"{place}/a.bin")
    assert code == 4
    assert "8 tries in a row failed" in text
    proxy.rate = 0.0
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "passw0rd")
    code, denied = said(capsys, f"{place}/a.bin")
    assert code == 4
    assert "a.bin: access is refused" in denied
    assert not [secret for secret in SECRETS if secret in text + denied]


def test_a_store_whose_library_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(DeviceError, match=r"gs://bucket/a: .*not installed. Install lsr-road\[stores\]"):
        status("gs://bucket/a")


class _Locked(SimpleHTTPRequestHandler):
    """Serves a folder to one user; knows no ranges, as Python's own server."""

    def do_HEAD(self) -> None:
        self.allowed() and super().do_HEAD()

    def do_GET(self) -> None:
        self.allowed() and super().do_GET()

    def allowed(self) -> bool:
        if self.headers.get("Authorization") == "Basic bWU6cGFzc3cwcmQ=" or "key=5ignature" in self.path:
            return True
        self.send_error(401)
        return False

    def log_message(self, *words: object) -> None:
        pass


def test_a_file_of_a_server_without_ranges_is_never_in_memory_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lsr_infer.io.stores._CHUNK", 500 * KIB)
    content = random.Random(0).randbytes(6000 * KIB)
    (tmp_path / "a.onnx").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Locked)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        found = status(f"http://127.0.0.1:{server.server_port}/a.onnx?key=5ignature")
        assert found is not None
        for begin in (0, 3000 * KIB + 1):
            parts = list(pieces(found, begin))
            assert b"".join(parts) == content[begin:]
            assert max(map(len, parts)) <= 500 * KIB
    finally:
        server.shutdown()
        server.server_close()


def test_files_come_from_http_with_passwords_that_nobody_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lsr_infer.io.stores._WAIT_SECONDS", 0.001)
    monkeypatch.setenv("LSR_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a model.onnx").write_bytes(b"content" * 1000)
    monkeypatch.chdir(tmp_path)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Locked)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    host = f"127.0.0.1:{server.server_port}"
    try:
        path = fetch(f"http://me:passw0rd@{host}/a%20model.onnx")
        assert (path.name, path.read_bytes()) == ("a model.onnx", b"content" * 1000)
        assert fetch(f"http://{host}/a%20model.onnx?key=5ignature").read_bytes() == b"content" * 1000
        for wrong, reason in (
            (f"http://me:passw0rd@{host}/b.onnx?key=5ignature", "there is no such file"),
            (f"http://AKIASECRET:passw0rd@{host}/a%20model.onnx", "access is refused"),
        ):
            assert has_secret(wrong)
            code, text = said(capsys, wrong)
            assert code == 4
            assert reason in text
            assert not [secret for secret in SECRETS if secret in text]
    finally:
        server.shutdown()
        server.server_close()
    with pytest.raises(InputError, match=r"cannot be read, 8 tries in a row failed"):
        fetch(f"http://{host}/a%20model.onnx")
    with pytest.raises(UsageError, match="http servers are only read"):
        put_whole(tmp_path / "a model.onnx", f"http://{host}/b")
    assert not [path for path in (tmp_path / "cache" / "stores").rglob("*") if "passw0rd" in str(path)]
    assert [path.name for path in (tmp_path / "cache" / "stores").rglob("*.onnx")] == ["a model.onnx"] * 2
