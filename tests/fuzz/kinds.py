"""Makes a small whole file of each kind, and does with a damaged one what a user does."""

import hashlib
import io
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import yaml

from lsr_infer.cli import main
from lsr_infer.errors import exit_status
from lsr_infer.io.digests import BLANK, seal
from lsr_infer.io.images import read_image
from lsr_infer.segmenter import Segmenter
from lsr_infer.system.process import import_onnxruntime
from tests.lsr_infer.onnxfile import colour_model, manifest
from tests.lsr_infer.onnxfile import model as onnx_file

__all__ = ["KINDS", "Kind"]

YAML_WORDS = (
    b"&a ", b"*a", b"<<: *a", b"[", b"]", b"{", b"}", b": ", b"\n- ", b"\n  ", b"\t", b"!!int ", b"!!binary ", b"#",
    b"'", b'"', b"|\n", b"? ", b"null", b"true", b".nan", b"1e999", b"0x" + b"f" * 60, b"2001-99-99", b"---\n", b"%",
    b"\xff", b"\x00", b"\xe2\x80\xae", b"\x1b[31m", b"99999999999999999999", b"-1", b"''",
)  # fmt: skip
JSON_WORDS = (
    b"null", b"true", b"NaN", b"Infinity", b"-1", b"1e400", b"9" * 400, b"[", b"]", b"{", b"}", b'"', b",", b":",
    b"[" * 2000,    b"\\u0000", b"\\ud800", b"\\u001b[31m", b"\xff", b"0.5", b'""', b"{}", b"[]",
)  # fmt: skip


class Kind:
    """A kind of file: its whole parts by name, how damage may end, and what is done with a part."""

    codes: tuple[int, ...] = (0, 4, 6)
    words: tuple[bytes, ...] = ()
    parts: dict[str, bytes]

    def __init__(self, folder: Path) -> None:
        """Make the whole parts; `folder` is the kind's own."""
        self.folder = folder

    def prepare(self) -> None:
        """Make what takes threads; in a process of its own, whose files stay."""

    def load(self) -> None:
        """Read what was prepared."""

    def relaid(self, data: bytes) -> list[bytes]:
        """Return texts that say the same as a part in another layout; none where a part is no text."""
        return []

    def work(self, part: str, data: bytes) -> tuple[int, Any]:
        """Do what a user does with a damaged part; return the exit code and what can be observed of the result."""
        raise NotImplementedError

    def silent(self, part: str, whole: Any, observed: Any) -> bool | None:
        """Whether something was lost although the exit code is 0; None where that cannot be judged."""
        return bool(whole != observed)

    def excuse(self, part: str, data: bytes) -> str:
        """Return what is said of a loss that a damaged part may want, empty where it can want none."""
        return ""


def _same_text(whole: Any, observed: Any) -> bool | None:
    """Judge texts: one that says the same in another layout gives the same; one that says something else may not."""
    (meant, result), (means, found) = whole, observed
    return bool(result != found) if meant == means else None


def _meaning(data: bytes, parse: Callable[[bytes], Any]) -> str | None:
    """Return what a text says by another parser, without comments and layout; None where that one cannot read it."""
    try:
        return repr(parse(data))
    except (ValueError, TypeError, LookupError, RecursionError, yaml.YAMLError):
        return None


def _plain(value: Any) -> str:
    """Return all that an object holds as text."""
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}{_sha(value.tobytes())}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_plain(key)}: {_plain(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_plain, value)) + "]"
    if is_dataclass(value):
        return f"{type(value).__name__}{_plain({one.name: getattr(value, one.name) for one in fields(value)})}"
    return repr(value)


def _frame(number: int = 0, size: tuple[int, int] = (64, 96)) -> np.ndarray:
    rows, columns = np.mgrid[: size[0], : size[1]]
    channels = (rows * 3 + number * 16, columns * 2 + number * 8, (rows + columns) * 2 - number * 8)
    return np.stack(channels, axis=2).astype(np.uint8)


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class _Infer(Kind):
    """What `lsr-infer` reads."""

    suffix = ""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        import_onnxruntime()
        self.model = colour_model(folder / "model.onnx")
        self.parts = {"": self.content()}

    def content(self) -> bytes:
        raise NotImplementedError

    def infer(self, data: bytes, *more: str) -> int:
        path = self.folder / f"damaged{self.suffix}"
        path.write_bytes(data)
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        return main([str(path), "--model", str(self.model), "-o", str(self.folder / "out"), *more, "--threads", "1"])


class _Picture(_Infer):
    def content(self) -> bytes:
        return cv2.imencode(self.suffix, _frame())[1].tobytes()

    def work(self, part: str, data: bytes) -> tuple[int, Any]:
        code = self.infer(data, "--save", "mask")
        return code, _sha(read_image(self.folder / f"damaged{self.suffix}").tobytes()) if code == 0 else None


class Png(_Picture):
    """Every chunk has a checksum: what is accepted has the pixels of the whole file."""

    suffix = ".png"
    words = (b"IDAT", b"IEND", b"PLTE", b"tRNS", b"acTL", b"fcTL", b"\x89PNG\r\n\x1a\n", b"\xff\xff\xff\xff")


class Jpeg(_Picture):
    """No checksum tells a changed sample: lost is what libjpeg makes up, by its own words, where pixels are others."""

    suffix = ".jpg"
    words = (
        b"\xff\xd8",
        b"\xff\xd9",
        b"\xff\xda",
        b"\xff\xc0",
        b"\xff\xc2",
        b"\xff\xe1",
        b"\xff\xdd\x00\x04",
        b"\xff\xff",
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        for name, options in (("progressive", [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]), ("restarts", [_RESTARTS, 3])):
            self.parts[name] = cv2.imencode(self.suffix, _frame(), options)[1].tobytes()

    def work(self, part: str, data: bytes) -> tuple[int, Any]:
        code, pixels = super().work(part, data)
        return code, [pixels, _libjpeg_says(data) if code == 0 else ""]

    def silent(self, part: str, whole: Any, observed: Any) -> bool | None:
        return whole[0] != observed[0] and (_MADE_UP.search(observed[1]) is not None or None)


_RESTARTS = cv2.IMWRITE_JPEG_RST_INTERVAL
_MADE_UP = re.compile(
    r"extraneous bytes before marker|premature end|Premature end|bad \w+ code|instead of RST|Inconsistent"
)


def _libjpeg_says(data: bytes) -> str:
    """Return what the decoder within OpenCV writes to stderr while it fills what is missing."""
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_COLOR)
        os.dup2(kept, 2)
        file.seek(0)
        return file.read().decode()


class _Video(_Infer):
    container = ""
    codec = "libx264"
    frames = 12

    def content(self) -> bytes:
        target = io.BytesIO()
        with av.open(target, "w", format=self.container) as container:
            stream: Any = container.add_stream(self.codec, rate=10, options={"g": "4", "bf": "0"})
            stream.height, stream.width, stream.pix_fmt = 64, 96, "yuvj420p" if self.codec == "mjpeg" else "yuv420p"
            stream.time_base = Fraction(1, 10)
            for number in range(self.frames):
                picture: Any = av.VideoFrame.from_ndarray(_frame(number), format="bgr24")
                picture.pts = number
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))
        return target.getvalue()

    def work(self, part: str, data: bytes) -> tuple[int, Any]:
        code = self.infer(data, "--save", "json")
        lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in (self.folder / "out").rglob("*.jsonl")]
        return code, sum(lines)

    def silent(self, part: str, whole: Any, observed: Any) -> bool | None:
        return bool(observed < whole)


class Mp4(_Video):
    """Frames behind a table, of which an edit list may hide some."""

    suffix, container = ".mp4", "mp4"
    words = (b"moov", b"mdat", b"trak", b"stts", b"stsz", b"stco", b"free", b"elst", b"\x00\x00\x00\x01", b"\xff" * 8)

    def excuse(self, part: str, data: bytes) -> str:
        """A list of edits that is damaged itself, or the unit of its track's times, hides frames as a trimmed one."""
        whole = self.parts[part]
        are_whole = all(whole[whole.find(name) :][:28] in data for name in (b"elst", b"mdhd"))
        return "" if are_whole else "edit list hides"


class Mkv(_Video):
    """Frames in clusters."""

    suffix, container = ".mkv", "matroska"
    words = (
        b"\x1a\x45\xdf\xa3",
        b"\x1f\x43\xb6\x75",
        b"\xa3",
        b"\xec",
        b"\x16\x54\xae\x6b",
        b"\x01\xff\xff\xff\xff\xff\xff\xff",
    )


class Avi(_Video):
    """Frames in chunks, with an index behind them."""

    suffix, container, codec = ".avi", "avi", "mjpeg"
    words = (b"RIFF", b"LIST", b"movi", b"00dc", b"idx1", b"JUNK", b"strh", b"\xff\xff\xff\xff")


class Flv(_Video):
    """Frames in tags."""

    suffix, container = ".flv", "flv"
    words = (b"FLV\x01", b"\x08", b"\x09", b"\x12", b"\x17", b"\x27", b"\x57", b"\x02", b"\xff\xff\xff")


class Ts(_Video):
    """Frames over packets of 188 bytes; a file that is cut between two of them is a whole one that is shorter."""

    suffix, container = ".ts", "mpegts"
    words = (b"\x47", b"\x47\x01\x00\x10", b"\x47\x41\x00\x30", b"\x00\x00\x01\xe0", b"\x00\x00\x01\x09", b"\xff" * 188)

    def work(self, part: str, data: bytes) -> tuple[int, Any]:
        code, count = super().work(part, data)
        return code, self.frames if len(data) < len(self.parts[part]) and len(data) % 188 == 0 else count


_OLD = "as 0.1.0 wrote it"
"""A part without a digest, in which other weights cannot be noticed."""


class Onnx(_Infer):
    """A model whose Manifest has a digest of the file."""

    suffix = ".onnx"
    words = (b"image", b"logits", b"weights", b"lsr_manifest", b"digest", b"\x0a\xff\xff\xff\xff\x0f", b"\x00" * 16)

    def content(self) -> bytes:
        path = colour_model(self.folder / "sealed.onnx", manifest(digest=BLANK))
        seal(path)
        cv2.imwrite(str(self.folder / "frame.png"), _frame())
        return path.read_bytes()

    def load(self) -> None:
        self.parts[_OLD] = colour_model(self.folder / "old.onnx", manifest()).read_bytes()

    def work(self, part: str, data: bytes) -> tuple[int, Any]:
        path = self.folder / "damaged.onnx"
        path.write_bytes(data)
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        words = ["--model", str(path), "-o", str(self.folder / "out"), "--save", "mask", "--threads", "1"]
        told = main(["info", str(path)])
        code = main([str(self.folder / "frame.png"), *words])
        if code or told:
            return code or told, None
        with Segmenter(path, "cpu", threads=1) as segmenter:
            return 0, _sha(np.ascontiguousarray(segmenter(_frame()).logits).tobytes())

    def silent(self, part: str, whole: Any, observed: Any) -> bool | None:
        return None if part == _OLD and whole != observed else super().silent(part, whole, observed)


class ManifestText(Onnx):
    """The Manifest alone, in an ONNX file that is whole otherwise."""

    words = JSON_WORDS

    def content(self) -> bytes:
        super().content()
        return manifest(scores={"miou": 0.5}, choices=("a",), licence="MIT", method="lsr").to_json().encode()

    def work(self, part: str, data: bytes) -> tuple[int, Any]:
        weights, bias = np.eye(3, dtype=np.float32), np.zeros(3, np.float32)
        text = data.decode("utf-8", "surrogateescape").encode("utf-8", "replace").decode("utf-8")
        code, logits = super().work(part, onnx_file(weights, bias, {"lsr_manifest": text}))
        if code:
            return code, None
        with Segmenter(self.folder / "damaged.onnx", "cpu", threads=1) as segmenter:
            return code, [_meaning(data, json.loads), [logits, _plain(segmenter.manifest)]]

    def load(self) -> None:
        """There is one part."""

    def relaid(self, data: bytes) -> list[bytes]:
        document = json.loads(data)
        return [b"\n" + data + b" \n", *(json.dumps(document, indent=width).encode() for width in (None, 0, 3))]

    def silent(self, part: str, whole: Any, observed: Any) -> bool | None:
        return _same_text(whole, observed)


class _Yaml(Kind):
    codes = (0, 2, 4)
    words = YAML_WORDS
    sample = ""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.parts = {"": self.sample.encode()}

    def read(self, path: Path) -> object:
        raise NotImplementedError

    def relaid(self, data: bytes) -> list[bytes]:
        lines = data.splitlines()
        return [b"# a note\n\n" + data, b"\n".join(lines) + b"  # a note", b" \n\n".join(lines), b"\r\n".join(lines)]

    def work(self, part: str, data: bytes) -> tuple[int, Any]:
        path = self.folder / f"{part or 'damaged'}.yaml"
        path.write_bytes(data)
        results = []
        code = exit_status(lambda: results.append(_plain(self.read(path))))
        return code, None if code else [_meaning(data, yaml.safe_load), results]

    def silent(self, part: str, whole: Any, observed: Any) -> bool | None:
        return _same_text(whole, observed)


class Recipe(_Yaml):
    """A recipe of training, by the command that takes it."""

    def __init__(self, folder: Path) -> None:
        from lsr_train.config.recipes import recipe_path

        super().__init__(folder)
        recipes = {"pretrain": "toytown_source", "adapt": "toytown_lsr_em"}
        self.parts = {command: recipe_path(name).read_bytes() for command, name in recipes.items()}

    def read(self, path: Path) -> object:
        from lsr_train.config.command_line import training_request

        return training_request(path.stem, ["--recipe", str(path), "--out", str(self.folder / "run")])


class ConfigFile(_Yaml):
    """The config.yaml of a run."""

    def __init__(self, folder: Path) -> None:
        from lsr_train.config.recipes import to_yaml
        from lsr_train.config.run import Config

        super().__init__(folder)
        self.parts = {"": to_yaml(Config()).encode()}

    def read(self, path: Path) -> object:
        from lsr_train.config.recipes import config_from_text

        return config_from_text(path.read_bytes().decode("utf-8", "replace"), str(path))


class ClassesFile(_Yaml):
    """The classes.yaml of a folder."""

    sample = (
        "name: my simulator\nclasses:\n  - {name: road, color: [128, 64, 128], ids: [1, 24]}\n"
        "  - {name: car, color: [0, 0, 142], ids: [14]}\nignore: [0, 23]\nsubsets: {drivable: [road]}\n"
    )

    def read(self, path: Path) -> object:
        from lsr_train.data.classes_file import load_classes

        return load_classes(path)


class ComparisonFile(_Yaml):
    """The runs of a table."""

    def __init__(self, folder: Path) -> None:
        from importlib import resources

        super().__init__(folder)
        found = resources.files("lsr_train") / "comparisons"
        self.parts = {
            item.name: item.read_bytes() for item in found.iterdir() if item.name.endswith(".yaml")
        }  # fmt: skip

    def read(self, path: Path) -> object:
        from lsr_train.comparison.spec import read_comparison

        return read_comparison(str(path))


class _Trained(Kind):
    """What a tiny training leaves."""

    steps = 3

    def prepare(self) -> None:
        from tests.lsr_train.training_runs import run_here, words

        for number in range(4):  # rendering Toytown would take longer than training
            for kind, picture in (("images", _frame(number, (48, 96))), ("labels", _frame(number)[:48, :, 0] // 16)):
                (self.folder / kind).mkdir(exist_ok=True)
                cv2.imwrite(str(self.folder / kind / f"{number}.png"), picture)
        data = ["--data.source.layout", "folder", "--data.source.root", str(self.folder), "--data.source.split", ""]
        data += ["--data.target.layout", "frames", "--data.target.root", str(self.folder / "images")]
        more = ["--train.steps", str(self.steps), "--selection.every", "2"]
        assert run_here("pretrain", words("toytown_source", self.folder / "whole", *data, *more)) == 0


class Safetensors(_Trained):
    """A checkpoint's weights, as `evaluate` reads them."""

    words = (
        b'"dtype"',
        b'"F32"',
        b'"shape"',
        b"data_offsets",
        b"__metadata__",
        b"digest",
        b"\xff" * 8,
        b"\x00" * 8,
        b"NaN",
    )

    def prepare(self) -> None:
        super().prepare()
        shutil.copyfile(self.folder / f"whole/checkpoints/step-{self.steps}/model.safetensors", self.folder / "part")

    def load(self) -> None:
        from safetensors.numpy import load_file, save

        whole = self.folder / "part"
        content = whole.read_bytes()
        head = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        metadata = {key: re.sub(r'"digest": *"[^"]*", *', "", text) for key, text in head["__metadata__"].items()}
        assert "sha256:" not in str(metadata)
        self.parts = {"": content, _OLD: save(load_file(whole), metadata)}

    def silent(self, part: str, whole: Any, observed: Any) -> bool | None:
        return None if part == _OLD and whole != observed else super().silent(part, whole, observed)

    def work(self, part: str, data: bytes) -> tuple[int, Any]:
        from safetensors.numpy import load_file

        from tests.lsr_train.training_runs import run_here

        path = self.folder / "damaged.safetensors"
        path.write_bytes(data)
        layout = ["--layout", "toytown-camera", "--split", "val", "--limit", "1", "--height", "48", "--width", "96"]
        code = run_here("evaluate", [str(path), *layout, "--threads", "1", "--device", "cpu"])
        tensors = sorted(load_file(path).items()) if code == 0 else []
        return code, [_sha(name.encode() + value.tobytes()) for name, value in tensors]


class Run(_Trained):
    """A run folder that a kill left in the middle, as `--resume` reads it."""

    codes = (0, 2, 4, 6)
    words = (*YAML_WORDS, *JSON_WORDS)

    def prepare(self) -> None:
        super().prepare()
        run = self.folder / "whole"
        shutil.rmtree(run / f"checkpoints/step-{self.steps}")
        for pointer in ("last", "best"):
            if (run / "checkpoints" / pointer).is_file():
                (run / "checkpoints" / pointer).write_text("step-2\n", encoding="utf-8")

    def load(self) -> None:
        run = self.folder / "whole"
        files = sorted(path for path in run.rglob("*") if path.is_file() and path.name != ".lock")
        self.parts = {str(path.relative_to(run)): path.read_bytes() for path in files}

    def work(self, part: str, data: bytes) -> tuple[int, Any]:
        from tests.lsr_train.training_runs import run_here, weights

        run = self.folder / "damaged"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(self.folder / "whole", run)
        if part:
            (run / part).write_bytes(data)
        code = run_here("pretrain", ["--resume", str(run)])
        found = weights(run, self.steps) if code == 0 else {}
        return code, [_sha(name.encode() + value) for name, value in sorted(found.items())]

    def silent(self, part: str, whole: Any, observed: Any) -> bool | None:
        if part == "config.yaml":
            return None if whole != observed else False  # who changes a setting gets other weights
        return bool(whole != observed)


class Report(Run):
    """The same folder, as `report` reads it."""

    def work(self, part: str, data: bytes) -> tuple[int, Any]:
        from tests.lsr_train.training_runs import run_here

        run, page = self.folder / "damaged", self.folder / "report.html"
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(self.folder / "whole", run)
        if part:
            (run / part).write_bytes(data)
        return run_here("report", [str(run), "--out", str(page), "--overwrite"]), None

    def silent(self, part: str, whole: Any, observed: Any) -> bool | None:
        return None  # other figures are another page


KINDS: dict[str, Callable[[Path], Kind]] = {
    "png": Png, "jpeg": Jpeg, "mp4": Mp4, "mkv": Mkv, "avi": Avi, "flv": Flv, "ts": Ts, "onnx": Onnx,
    "manifest": ManifestText, "safetensors": Safetensors, "recipe": Recipe, "config": ConfigFile,
    "classes": ClassesFile, "comparison": ComparisonFile, "run": Run, "report": Report,
}  # fmt: skip
