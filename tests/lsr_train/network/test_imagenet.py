import hashlib
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from lsr_infer.errors import InputError
from lsr_train.network import DeepLabV2, NetworkSpec, weight_files
from lsr_train.network.spec import RESNETS
from lsr_train.network.weight_files import IMAGENET_FILES, fetch_imagenet
from lsr_train.network.weights import load_backbone_weights


class Server:
    """Serves files from memory on this machine and counts the requests."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.claimed: dict[str, int] = {}
        self.requests: list[str] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.requests.append(self.path)
                name = self.path.rsplit("/", 1)[-1]
                if name not in owner.files:
                    self.send_error(404)
                    return
                data = owner.files[name]
                self.send_response(200)
                self.send_header("Content-Length", str(owner.claimed.get(name, len(data))))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/models"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture
def published(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A file whose name begins with its own hash, as torchvision's; returns that name."""
    path = tmp_path / "made.pth"
    torch.save(DeepLabV2(NetworkSpec(backbone="resnet18")).backbone.state_dict(), path)
    data = path.read_bytes()
    name = f"resnet18-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    monkeypatch.setitem(IMAGENET_FILES, "resnet18", name)
    server.files[name] = data
    return name


def test_every_resnet_has_torchvisions_v1_file() -> None:
    assert set(IMAGENET_FILES) == set(RESNETS)
    assert IMAGENET_FILES == {
        "resnet18": "resnet18-f37072fd.pth",
        "resnet34": "resnet34-b627a593.pth",
        "resnet50": "resnet50-0676ba61.pth",
        "resnet101": "resnet101-63fe2227.pth",
    }
    assert weight_files.BASE_URL.startswith("https://")


def test_it_is_fetched_once_and_loads(server: Server, published: str, tmp_path: Path) -> None:
    cache = tmp_path / "cache" / "deep"
    network = DeepLabV2(NetworkSpec(backbone="resnet18"))
    text = load_backbone_weights(network, "imagenet", cache=cache, base_url=server.url + "/")
    assert text == f"from torchvision's {published} (ImageNet, V1)"
    assert (cache / published).read_bytes() == server.files[published]
    assert fetch_imagenet("resnet18", cache, server.url) == cache / published
    assert server.requests == [f"/models/{published}"]
    assert [path.name for path in cache.iterdir()] == [published]


def test_a_wrong_hash_leaves_nothing(server: Server, published: str, tmp_path: Path) -> None:
    server.files[published] = server.files[published][:-1] + b"!"
    with pytest.raises(InputError, match=r"its SHA-256 begins .* as published") as caught:
        fetch_imagenet("resnet18", tmp_path / "cache", server.url)
    assert str(tmp_path / "cache" / published) in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_wrong_file_in_the_cache_is_named_and_not_overwritten(server: Server, published: str, tmp_path: Path) -> None:
    (tmp_path / published).write_bytes(b"something else")
    with pytest.raises(InputError, match=f"Delete .*{published}"):
        fetch_imagenet("resnet18", tmp_path, server.url)
    assert (tmp_path / published).read_bytes() == b"something else"
    assert server.requests == []


def test_a_file_put_there_by_hand_needs_no_connection(published: str, server: Server, tmp_path: Path) -> None:
    (tmp_path / published).write_bytes(server.files[published])
    assert fetch_imagenet("resnet18", tmp_path, "http://127.0.0.1:1") == tmp_path / published


def test_a_connection_that_breaks_leaves_nothing(server: Server, published: str, tmp_path: Path) -> None:
    server.claimed[published] = len(server.files[published]) + 1000
    with pytest.raises(InputError, match=r"connection broke|bytes arrived"):
        fetch_imagenet("resnet18", tmp_path / "cache", server.url)
    assert list((tmp_path / "cache").iterdir()) == []


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}", "http://no-such-host.invalid"])
def test_without_a_connection_it_says_where_to_put_the_file(url: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be reached") as caught:
        fetch_imagenet("resnet50", tmp_path / "cache", url.format(port=free_port()))
    message = str(caught.value)
    assert f"Put the file at {tmp_path / 'cache' / 'resnet50-0676ba61.pth'} by hand" in message
    assert "\n" not in message
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_file_the_server_has_not_is_said(server: Server, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the server answers 404"):
        fetch_imagenet("resnet34", tmp_path, server.url)


def test_a_place_that_cannot_be_written_is_said(server: Server, published: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        fetch_imagenet("resnet18", tmp_path / "file" / "cache", server.url)


def test_the_default_place_is_torch_hubs(
    server: Server, published: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    path = fetch_imagenet("resnet18", base_url=server.url)
    assert path == tmp_path / "torch" / "hub" / "checkpoints" / published


def test_an_unknown_backbone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="allowed: resnet18"):
        fetch_imagenet("vgg16", tmp_path)
