"""Lists, reads and writes files of object stores (s3://, gs://, az://) and of http servers, through fsspec.

Requests that fail on the way are made again. Credentials come from where each store's own tools look for them, and are
in no message: those are about addresses without what may be a secret.
"""

import logging
import random
import re
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from lsr_infer.errors import DeviceError, InputError, UsageError, extra
from lsr_infer.io.addresses import is_address, without_secrets

__all__ = [
    "StoredFile", "above_pattern", "has_secret", "is_store", "is_url", "listing", "pieces", "put_folder", "put_whole",
    "remove", "remove_folder", "status", "stored",
]  # fmt: skip

_Answer = TypeVar("_Answer")

_STORES = ("s3", "gs", "gcs", "az", "abfs", "abfss")
_URL = re.compile(rf"({'|'.join(_STORES)}|https?)://", re.IGNORECASE)
_MAGIC = re.compile(r"[*?\[]")
_CHUNK, _LEAST_CHUNK = 16 << 20, 1 << 18
"""Bytes asked for at once: the most, and the least where connections are cut before the end."""
_TRIES = 8
"""Failures in a row after which a store is given up."""
_WAIT_SECONDS = 0.2
"""Before a request is made again the first time; each further time twice as long, at most 15 s."""
_AS_STORED = {"Accept-Encoding": "identity"}
_REFUSED = ("NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "ClientAuthenticationError",
            "ProfileNotFound", "RefreshError", "TokenRetrievalError")  # fmt: skip
"""What stores' libraries raise without credentials, or with wrong ones."""


@dataclass(frozen=True)
class StoredFile:
    """A file of a store: its address, its size in bytes, and the tag that the store gives each content of it."""

    url: str
    size: int
    tag: str


def is_store(place: object) -> bool:
    """Whether something is the address of a file, folder or pattern in an object store: s3://, gs:// or az://."""
    return isinstance(place, str) and _URL.match(place) is not None and not place.lower().startswith("http")


def is_url(place: object) -> bool:
    """Whether something is an address of an object store or an http server."""
    return isinstance(place, str) and _URL.match(place) is not None


def has_secret(url: str) -> bool:
    """Whether an address carries what may be a secret: a user, a password, or the signature in a query."""
    host = url.partition("://")[2].partition("/")[0]
    container = url.lower().startswith("abfs") and ":" not in host  # abfs://CONTAINER@ACCOUNT…
    named = not container and ("@" in host or (":" in host and is_store(url)))
    return named or re.search(r"[?&][^/]*=", url) is not None


def _opened(url: str) -> tuple[Any, str]:
    """Return the file system of an address and the path in it."""
    if is_store(url) and has_secret(url):
        raise UsageError(
            f"{url.partition(':')[0]}://…: credentials are not read from an address. Set them as the store's own tools "
            "have them: in the environment, a file of the user, or the role of the machine."
        )
    if not is_store(url):
        is_address(url)  # raises where it is malformed
    for noisy in ("aiobotocore", "botocore", "azure", "google", "urllib3", "asyncio", "s3fs", "fsspec"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("gcsfs").setLevel(logging.ERROR)  # it warns at each request to a bucket of unknown kind
    options: dict[str, Any] = {"use_listings_cache": False}
    if url.lower().startswith("s3://"):  # else its libraries try 25 times behind each try of `_Patience`
        options["config_kwargs"] = {"retries": {"total_max_attempts": 1}}
    try:
        from fsspec.core import url_to_fs

        if not is_store(url):  # proxies and ~/.netrc as for other programs; sizes as they are stored
            from aiohttp import ClientTimeout

            timeout = ClientTimeout(total=None, sock_connect=30, sock_read=60)  # a large file takes as long as it does
            options = {"client_kwargs": {"trust_env": True, "timeout": timeout}, "headers": _AS_STORED}
        file_system, path = url_to_fs(url, **options)
    except ImportError as error:
        raise DeviceError(
            f"{without_secrets(url)}: what reads this store is not installed. {extra('stores')}"
        ) from error
    except Exception as error:  # each library raises its own where credentials or a project are missing
        raise InputError(f"{without_secrets(url)}: cannot be opened ({_kind(error)}). {_ADVICE}") from error
    if hasattr(file_system, "retries"):
        file_system.retries = 1
    return file_system, str(path)


_ADVICE = "Set the credentials as the store's own tools have them (docs/guide/stores.md)."


def _kind(error: BaseException) -> str:
    """Name an error of a library without its text, which may hold the whole address."""
    code = getattr(error, "status", None) or getattr(error, "errno", None)
    return f"{type(error).__name__}{f' {code}' if code else ''}"


class _Patience:
    """Decides whether a failed request to a store is made again, and waits before."""

    def __init__(self, url: str, verb: str) -> None:
        self._url, self._verb, self._failures = url, verb, 0

    def progress(self) -> None:
        self._failures = 0

    def failed(self, error: Exception) -> None:
        """Wait a while; raises `InputError` where another try is no use, or was none so far."""
        name = without_secrets(self._url)
        cause = error.__cause__ if isinstance(error, FileNotFoundError) and not is_store(self._url) else None
        code = getattr(cause or error, "status", None)
        if code in (401, 403) or isinstance(error, PermissionError) or type(error).__name__ in _REFUSED:
            raise InputError(f"{name}: access is refused ({_kind(cause or error)}). {_ADVICE}") from error
        if isinstance(error, FileNotFoundError) and (cause is None or code in (404, 410)):
            raise InputError(f"{name}: there is no such file or folder.") from error
        self._failures += 1
        if self._failures >= _TRIES:
            raise InputError(
                f"{name}: cannot be {self._verb}, {_TRIES} tries in a row failed ({_kind(cause or error)}). Check the "
                "address and the network; the same command goes on."
            ) from error
        time.sleep(min(15.0, _WAIT_SECONDS * 2**self._failures) * random.uniform(0.5, 1))


def _tried(url: str, verb: str, action: Callable[[], _Answer]) -> _Answer:
    """Return what a request to a store gives, made again where it fails on the way."""
    patience = _Patience(url, verb)
    while True:
        try:
            return action()
        except (UsageError, InputError):
            raise
        except Exception as error:  # noqa: BLE001 - each library has its own errors; `_Patience` tells them apart
            patience.failed(error)


def _file(url: str, info: dict[str, Any]) -> StoredFile:
    keys = ("ETag", "etag", "md5Hash", "generation", "LastModified", "Last-Modified", "last_modified")
    return StoredFile(url, int(info["size"]), next((str(info[key]).strip('"') for key in keys if info.get(key)), ""))


def status(url: str) -> StoredFile | None:
    """Return what a store says of a file; None where the address is that of a folder.

    Raises:
        UsageError: the address carries credentials.
        DeviceError: what reads this store is not installed.
        InputError: there is no such file, access is refused, or the store cannot be reached.
    """
    file_system, path = _opened(url)
    info = _tried(url, "read", partial(file_system.info, path))
    if info.get("type") == "directory":
        return None
    if info.get("size") is None:
        raise InputError(
            f"{without_secrets(url)}: the server does not say how long this is, so that nobody knows when it is whole. "
            "Fetch it by other means, and name the file."
        )
    return _file(url, info)


def stored(url: str) -> bool:
    """Whether there is a file or folder at an address; raises as `status`, but where there is none."""
    file_system, path = _opened(url)

    def is_there() -> bool:
        with suppress(FileNotFoundError):
            file_system.info(path)
            return True
        return False

    return _tried(url, "read", is_there)


def listing(url: str) -> Iterator[StoredFile]:
    """Yield the files below an address, or those that fit a pattern (`s3://clips/2026-*/**/*.mp4`), a page at a time.

    Files and folders whose names begin with a dot below it are left out. The order is that of the store.

    Raises:
        InputError: there is none; and as `status`. `UsageError` for http, which has no listings.
    """
    if not is_store(url):
        raise UsageError(f"{without_secrets(url)}: http servers have no listings. Name a file, or use a store.")
    base = above_pattern(url)
    file_system, top = _opened(base.rstrip("/"))
    fits = None
    if base != url:
        from fsspec.utils import glob_translate

        fits = re.compile(glob_translate(f"{top.rstrip('/')}/{url[len(base) :]}"))
    pages = _s3_pages if base.lower().startswith("s3://") else _folders
    any_found = False
    for path, info in pages(base, file_system, top.rstrip("/")):
        below = path[len(top.rstrip("/")) + 1 :]
        if path.endswith("/") or any(part.startswith(".") for part in below.split("/")):
            continue
        if fits is None or fits.fullmatch(path):
            any_found = True
            yield _file(f"{url.partition('://')[0]}://{path}", info)
    if not any_found:
        raise InputError(f"{without_secrets(url)}: holds no file{' of such a name' if fits else ''}.")


def above_pattern(url: str) -> str:
    """Return the folder below which all that fits a pattern lies; an address without one as it is."""
    magic = _MAGIC.search(url)
    return url[: url.rindex("/", 0, magic.start()) + 1] if magic else url


def _s3_pages(url: str, file_system: Any, top: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what lies below a prefix of S3, 1,000 keys a request."""
    bucket, _, key = top.partition("/")
    more: dict[str, str] = {}
    while True:
        ask = partial(file_system.call_s3, "list_objects_v2", Bucket=bucket, Prefix=f"{key}/" if key else "", **more)
        page = _tried(url, "listed", ask)
        for item in page.get("Contents", ()):
            yield f"{bucket}/{item['Key']}", {"size": item["Size"], "ETag": item.get("ETag")}
        if not page.get("IsTruncated"):
            return
        more = {"ContinuationToken": page["NextContinuationToken"]}


def _folders(url: str, file_system: Any, top: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what lies below a folder of a store, one folder after the other."""
    folders = [top]
    while folders:
        found = _tried(url, "listed", partial(file_system.ls, folders.pop(), detail=True))
        found = sorted(found, key=lambda info: str(info["name"]))
        yield from ((str(info["name"]), info) for info in found if info["type"] != "directory")
        folders += [str(info["name"]).rstrip("/") for info in reversed(found) if info["type"] == "directory"]


def pieces(found: StoredFile, begin: int = 0) -> Iterator[bytes]:
    """Yield the bytes of a file from a place on, and go on where connections are cut."""
    return _ranges(found, begin) if is_store(found.url) else _streamed(found, begin)


def _ranges(found: StoredFile, begin: int) -> Iterator[bytes]:
    """Yield ranges of a file, each asked for by itself; where connections are cut, smaller ones."""
    file_system, path = _opened(found.url)
    patience, chunk = _Patience(found.url, "read"), _CHUNK
    while begin < found.size:
        end = min(begin + chunk, found.size)
        try:
            piece = file_system.cat_file(path, start=begin, end=end)
            if len(piece) != end - begin:
                raise EOFError(f"{len(piece)} of {end - begin} bytes")
        except Exception as error:  # noqa: BLE001 - as in `_tried`
            patience.failed(error)
            chunk = max(_LEAST_CHUNK, chunk // 4)
            continue
        patience.progress()
        chunk = min(_CHUNK, 2 * chunk)
        begin += len(piece)
        yield piece


def _streamed(found: StoredFile, begin: int) -> Iterator[bytes]:
    """Yield the bytes of a file of an http server as they come, since it may know no ranges and send all of it."""
    file_system, path = _opened(found.url)
    patience = _Patience(found.url, "read")
    while begin < found.size:
        headers = {**_AS_STORED, "Range": f"bytes={begin}-"}
        try:
            with file_system.open(path, block_size=0, size=found.size, headers=headers) as file:
                known = 0 if file.r.status == 206 else begin
                while begin < found.size:
                    if not (piece := file.read(_CHUNK)):
                        raise EOFError(f"{begin} of {found.size} bytes")
                    fresh = piece[known : known + found.size - begin]
                    known = max(0, known - len(piece))
                    begin += len(fresh)
                    if fresh:
                        patience.progress()
                        yield fresh
        except Exception as error:  # noqa: BLE001 - as in `_tried`
            patience.failed(error)


def remove_folder(url: str) -> None:
    """Remove every file below an address of a store, if there is any; raises as `put_whole`."""
    file_system, path = _opened(url)
    _removed(url, partial(file_system.rm, path, recursive=True))


def put_whole(local: Path, url: str) -> None:
    """Write a file to a store, where it is whole under its name or not there; what was there is replaced.

    Raises:
        InputError: access is refused, or the store cannot be reached. `UsageError` for http, which is only read.
    """
    if not is_store(url):
        raise UsageError(
            f"{without_secrets(url)}: http servers are only read. Write to a folder, or s3://, gs://, az://."
        )
    file_system, path = _opened(url)

    def put() -> None:
        file_system.put_file(str(local), path)
        written = file_system.info(path)["size"]
        if written != local.stat().st_size:
            raise EOFError(f"{written} bytes arrived")

    _tried(url, "written", put)


def remove(url: str) -> None:
    """Remove a file of a store, if it is there; raises `InputError`."""
    file_system, path = _opened(url)
    _removed(url, partial(file_system.rm_file, path))


def _removed(url: str, action: Callable[[], object]) -> None:
    """Remove something; it may be gone since a try whose answer was lost."""

    def remove_once() -> None:
        with suppress(FileNotFoundError):
            action()

    _tried(url, "removed", remove_once)


def put_folder(local: Path, url: str, *, own: re.Pattern[str] | None = None) -> None:
    """Write every file below a folder to a store, each as `put_whole`, and remove others there that have such names."""
    top = url.rstrip("/")
    names = sorted(path.relative_to(local).as_posix() for path in local.rglob("*") if path.is_file())
    for name in names:
        put_whole(local / name, f"{top}/{name}")
    if own is not None:
        there = [found.url[len(top) + 1 :] for found in listing(top)]
        for name in {name for name in there if own.fullmatch(name)} - {*names}:
            remove(f"{top}/{name}")
