"""torchvision's published ImageNet weights, fetched once and checked against the hash in their name."""

import hashlib
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path

import torch
from tqdm import tqdm

from lsr_infer.errors import InputError
from lsr_infer.io.atomic import whole_file
from lsr_infer.io.paths import place_error

__all__ = ["BASE_URL", "IMAGENET_FILES", "fetch_imagenet"]

BASE_URL = "https://download.pytorch.org/models"

IMAGENET_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
}
"""torchvision's IMAGENET1K_V1 weights (the papers', not the later V2); the hex digits begin the SHA-256."""

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30.0


def fetch_imagenet(backbone: str, cache: Path | None = None, base_url: str = BASE_URL) -> Path:
    """Return the path of a backbone's published weights, downloading them where they are not there yet.

    Args:
        backbone: a key of `IMAGENET_FILES`.
        cache: the folder; None is torch.hub's own, where torchvision puts the same files.
        base_url: folder of the files on the server.

    Returns:
        A file whose hash is right.

    Raises:
        InputError: no connection, a server error, a wrong hash, or a place that cannot be written; says where to put
            the file by hand.
        ValueError: there is no such backbone.
    """
    if backbone not in IMAGENET_FILES:
        raise ValueError(f"backbone is {backbone!r}; allowed: {', '.join(IMAGENET_FILES)}")
    name = IMAGENET_FILES[backbone]
    folder = Path(torch.hub.get_dir()) / "checkpoints" if cache is None else cache
    path = folder / name
    if path.is_file():
        _check(path, path, name, f"Delete {path} and start again.")
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise place_error(path, error) from error
    url = f"{base_url.rstrip('/')}/{name}"
    with whole_file(path, overwrite=True) as temporary:
        _download(url, temporary, path)
        _check(temporary, path, name, f"Fetch {url} by other means and put it at {path}.")
    return path


def _download(url: str, temporary: Path, path: Path) -> None:
    """Copy `url` into `temporary`; a failing connection is told from a failing disk."""
    by_hand = f"Put the file at {path} by hand, or set --network.weights to a file or to none."
    try:
        response = urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        raise InputError(f"{url}: the server answers {error.code} {error.reason}. {by_hand}") from error
    except (OSError, HTTPException) as error:
        raise InputError(f"{url}: cannot be reached ({_reason(error)}). {by_hand}") from error
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None
    received = 0
    with response, temporary.open("wb") as file, tqdm(total=total, unit="B", unit_scale=True, disable=None) as bar:
        while True:
            try:
                chunk = response.read(_CHUNK)
            except (OSError, HTTPException) as error:
                raise InputError(f"{url}: the connection broke after {received} bytes. {by_hand}") from error
            if not chunk:
                break
            file.write(chunk)
            received += len(chunk)
            bar.update(len(chunk))
    if total is not None and received != total:
        raise InputError(f"{url}: {received} of {total} bytes arrived. Start again. {by_hand}")


def _reason(error: BaseException) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__


def _check(file: Path, path: Path, name: str, advice: str) -> None:
    """Compare the beginning of the SHA-256 with the one in the file's name."""
    wanted = name.rsplit("-", 1)[1].removesuffix(".pth")
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if not found.startswith(wanted):
        raise InputError(f"{path}: its SHA-256 begins {found[: len(wanted)]}, not {wanted} as published. {advice}")
