"""No command of the three command lines is silent: each runs on a clock that slow work moves."""

import importlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Self

import pytest

from lsr_infer import cli
from lsr_infer.archive.clip_work import ArchiveJob, ClipWorker, Unit
from lsr_infer.archive.ledger import ClipRecord
from lsr_infer.errors import exit_status
from lsr_infer.system.progress import Progress, with_progress
from lsr_train.commands.dispatch import COMMANDS
from tests.conftest import REPOSITORY
from tests.lsr_infer.onnxfile import colour_model
from tests.lsr_infer.tensorrt.graphs import small_file
from tests.lsr_train.training_runs import TINY, run_here, words
from tests.silence import Silence, listening

DATA = ["--layout", "toytown-camera", "--split", "val", "--limit", "8", "--threads", "1"]
OF_STAGE = ["--network.weights", "none", "--source_stage.recipe", "toytown_source", "--source_stage.train.steps", "3"]
TABLE = ["--recipe", "toytown", *TINY, "--source_stage.train.steps", "2"]

CLIP = REPOSITORY / "lsr_infer/models/toytown/clips/drive_camera_900101.mp4"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that pretraining made, while somebody listened."""
    folder = tmp_path_factory.mktemp("silence")
    with listening() as heard:
        assert run_here("pretrain", words("toytown_source", folder / "source")) == 0
    assert heard.found == []
    assert heard.worked > 6
    return folder / "source"


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Silence]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with listening() as found:
        yield found


def lsr_train(command: str, *argv: object) -> int:
    return run_here(command, [*map(str, argv)])


def lsr_infer(*argv: object) -> int:
    return cli.main([*map(str, argv)])


def script(name: str, *argv: object) -> int:
    """Run a script; that an untrained network misses its bar (5) is no matter here."""
    main = importlib.import_module(f"export.{name}").main
    return {5: 0}.get(code := exit_status(lambda: main([*map(str, argv)])), code)


class ThisProcess:
    """Runs the units of an archive one after the other, where no cluster is."""

    def __init__(self, job: ArchiveJob, _: object) -> None:
        self._worker = ClipWorker(job)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *ended: object) -> None:
        self._worker.close()

    def workers(self) -> int:
        return 1

    def outcomes(self, units: Iterable[Unit], *, cut: bool) -> Iterator[tuple[Unit, ClipRecord]]:
        return ((unit, self._worker.work(unit)) for unit in units)

    def joined(self, *, wait: bool) -> Iterator[tuple[Unit, ClipRecord]]:
        return iter(())

    def clear(self) -> None:
        pass


def archive(clip: Path, model: Path, out: Path) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lsr_infer.archive.cluster.RayRunner", ThisProcess)
        return lsr_infer("archive", clip, "--model", model, "-o", out)


def frames(folder: Path) -> Path:
    """Write pictures to segment, and return their folder."""
    from lsr_train.toytown.__main__ import main

    argv = ["", "frames", "--frames", "20", "--height", "48", "--width", "96", "-o", str(folder)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", argv)
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0
    return folder / "images"


SCENARIOS: dict[str, Callable[[Path, Path], int]] = {
    "lsr_train pretrain": lambda source, out: 0,  # the fixture
    "lsr_train adapt": lambda source, out: lsr_train("adapt", *words("toytown_lsr_em", out / "run"), *OF_STAGE),
    "lsr_train distill": lambda source, out: lsr_train("distill", source, *words("toytown_distill", out / "run")),
    "lsr_train compare": lambda source, out: lsr_train("compare", *TABLE, "--methods", "lsr", "--out", out / "table"),
    "lsr_train ablate": lambda source, out: lsr_train(
        "ablate", *TABLE, "--run", "minent", "--sweep", "weights.entropy=0.1,0.2", "--out", out / "table"
    ),
    "lsr_train analyze": lambda source, out: lsr_train("analyze", source, *DATA, "--out", out / "figures"),
    "lsr_train report": lambda source, out: lsr_train("report", source, *DATA, "--out", out / "report.html"),
    "lsr_train evaluate": lambda source, out: lsr_train("evaluate", source, *DATA),
    "lsr_train suggest": lambda source, out: lsr_train(
        "suggest", source, "--target", frames(out / "footage"), "-n", "4", "--out", out / "labels", "--threads", "1"
    ),
    "lsr-infer": lambda source, out: lsr_infer(
        frames(out / "footage"), "--model", colour_model(out / "model.onnx"), "--output", out / "segmented"
    ),
    "lsr-infer bench": lambda source, out: lsr_infer("bench", colour_model(out / "model.onnx"), "--frames", "8"),
    "lsr-infer info": lambda source, out: lsr_infer("info", colour_model(out / "model.onnx")),
    "lsr-infer serve-config": lambda source, out: lsr_infer(
        "serve-config", colour_model(out / "model.onnx"), "-o", out / "served"
    ),
    "lsr-infer archive": lambda source, out: archive(CLIP, colour_model(out / "model.onnx"), out / "archive"),
    "export/to_onnx.py": lambda source, out: script(
        "to_onnx", source, "-o", out / "model.onnx", "--precision", "int8", "--report", out / "report.json"
    ),
    "export/to_trt.py": lambda source, out: script(
        "to_trt", small_file(out / "model.onnx"), "-o", out / "model.engine", "--flavour", "rtx"
    ),
}
"""A run of each command that has more to do than three seconds of the slow clock."""

LONG = {"lsr_train compare", "lsr_train ablate", "lsr_train analyze", "lsr_train report", "export/to_onnx.py"}
"""Those that take longer than some seconds; the tests of the commands themselves listen, too."""


def commands() -> set[str]:
    """Return every command of the three command lines."""
    scripts = {f"export/{path.name}" for path in (REPOSITORY / "export").glob("*.py")}
    runtime = {"lsr-infer", *(f"lsr-infer {name}" for name in cli._COMMANDS)}
    return {f"lsr_train {name}" for name in COMMANDS} | runtime | scripts


def test_every_command_is_listened_to() -> None:
    assert set(SCENARIOS) == commands(), "a command has no scenario: add a run of it that has much to do"


@pytest.mark.parametrize("command", [
    pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in SCENARIOS
])  # fmt: skip
def test_no_command_is_silent(command: str, source: Path, tmp_path: Path, heard: Silence) -> None:
    assert SCENARIOS[command](source, tmp_path) == 0
    assert heard.found == []


def test_work_without_a_sign_is_heard(heard: Silence) -> None:
    import cv2
    import numpy as np

    picture = np.frombuffer(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes(), np.uint8)
    for _ in with_progress(range(50), "reading", 50):
        cv2.imdecode(picture, cv2.IMREAD_COLOR)
    assert heard.found == []
    with Progress("reading"):
        for _ in range(200):
            cv2.imdecode(picture, cv2.IMREAD_COLOR)
    assert "knows no end" in heard.found[0]
    heard.found.clear()
    for _ in range(14):
        cv2.imdecode(picture, cv2.IMREAD_COLOR)
    assert heard.found == []
    for _ in range(3):
        cv2.imdecode(picture, cv2.IMREAD_COLOR)
    assert "without a sign" in heard.found[0]
