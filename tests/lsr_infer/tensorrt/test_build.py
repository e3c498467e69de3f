"""Real builds with TensorRT for RTX, on the CPU: what the builder is told, what it says, and how it is stopped."""

import io
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra export)")
pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed (extra trt-rtx)")

from lsr_infer.errors import DeviceError, InputError, QualityGateError  # noqa: E402
from lsr_infer.tensorrt.build import (  # noqa: E402  # noqa: E402
    Builder,
    BuildOptions,
    BuildProgress,
    Shapes,
    _load_timing_cache,
    build_engine,
    terminal_progress,
)
from lsr_infer.tensorrt.flavour import Library  # noqa: E402
from lsr_infer.tensorrt.types import check_network_types  # noqa: E402
from tests.lsr_infer.tensorrt.graphs import small_file, small_graph  # noqa: E402

ONE: Shapes = ((1, 64, 96),) * 3
SPAN: Shapes = ((1, 32, 32), (1, 64, 96), (4, 128, 192))


def ahead(rtx: Library) -> Builder:
    return Builder(library=rtx, options=BuildOptions(shapes=SPAN, targets=("86", "89")))


@pytest.mark.parametrize("output", ["classes", "logits"])
@pytest.mark.parametrize(
    ("precision", "working"),
    [("fp32", {"float": 4}), ("fp16", {"half": 4}), ("int8", {"float": 1, "int8": 3})],
)
def test_every_precision_builds_and_shows_its_types(
    rtx: Library, tmp_path: Path, precision: str, output: str, working: dict[str, int]
) -> None:
    model = small_file(tmp_path / "model.onnx", precision, output).read_bytes()
    built = build_engine(ahead(rtx), model)
    assert len(built.plan) > 10_000
    assert built.working == working
    check_network_types(precision, built.working)
    assert (built.types.get("half", 0) > 0) == (precision == "fp16")
    assert (built.types.get("int8", 0) > 0) == (precision == "int8")
    for other in {"fp32", "fp16", "int8"} - {precision}:
        with pytest.raises(QualityGateError, match=f"Manifest says {other}, but of its convolutions"):
            check_network_types(other, built.working)


def test_the_options_reach_the_builder(rtx: Library) -> None:
    model = small_graph().SerializeToString()
    default = build_engine(Builder(library=rtx, options=BuildOptions(shapes=ONE)), model).plan
    turing = build_engine(Builder(library=rtx, options=BuildOptions(shapes=ONE, targets=("75",))), model).plan
    assert len(turing) > len(default)  # kernels for Turing are larger, so the target was taken
    told = BuildOptions(shapes=ONE, workspace_mb=256, optimization_level=1, tf32=True, targets=("89",))
    assert build_engine(Builder(library=rtx, options=told), model).plan
    unable = BuildOptions(shapes=ONE, version_compatible=True)  # it has no lean library to put in
    with pytest.raises(DeviceError, match=r"could not build the engine: .+"):
        build_engine(Builder(library=rtx, options=unable), model)


def test_progress_rises_to_the_end(rtx: Library) -> None:
    seen: list[tuple[float, str]] = []
    build_engine(ahead(rtx), small_graph().SerializeToString(), progress=BuildProgress(lambda *one: seen.append(one)))
    shares = [share for share, _ in seen]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[-1] == 1
    assert len(set(shares)) > 20
    assert len({name for _, name in seen}) > 5


@pytest.mark.parametrize("steps", [1, 20])
def test_a_build_stops_at_the_next_step(rtx: Library, steps: int) -> None:
    calls: list[str] = []

    def show(share: float, name: str) -> None:
        calls.append(name)
        if len(calls) == steps:
            progress.cancel()

    progress = BuildProgress(show)
    with pytest.raises(KeyboardInterrupt):
        build_engine(ahead(rtx), small_graph().SerializeToString(), progress=progress)
    everything: list[str] = []
    build_engine(
        ahead(rtx), small_graph().SerializeToString(), progress=BuildProgress(lambda s, n: everything.append(n))
    )
    assert len(calls) < len(everything) / 2


def test_a_monitor_that_fails_stops_the_build(rtx: Library, caplog: pytest.LogCaptureFixture) -> None:
    def show(share: float, name: str) -> None:
        raise RuntimeError("no terminal")

    with pytest.raises(KeyboardInterrupt):
        build_engine(ahead(rtx), small_graph().SerializeToString(), progress=BuildProgress(show))
    assert "no terminal" in caplog.text


def test_what_cannot_be_read_or_shaped(rtx: Library) -> None:
    with pytest.raises(InputError, match="cannot read the ONNX file"):
        build_engine(ahead(rtx), b"no model")
    model = small_graph()
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(InputError, match=r"cannot read the ONNX file: .*at node levels \(NoSuchOperator\)"):
        build_engine(ahead(rtx), model.SerializeToString())


def test_a_check_ends_the_build_before_the_work(rtx: Library) -> None:
    phases: list[str] = []

    def refuse(working: object) -> None:
        raise QualityGateError("no")

    with pytest.raises(QualityGateError, match="no"):
        build_engine(
            ahead(rtx),
            small_graph().SerializeToString(),
            progress=BuildProgress(lambda share, name: phases.append(name)),
            check=refuse,
        )
    assert not phases


class TimingConfig:
    """A builder's configuration of the library that measures times, which takes caches of its own kind alone."""

    def __init__(self) -> None:
        self.attached: bytes | None = None

    def create_timing_cache(self, stored: bytes) -> bytes | None:
        return stored if stored in (b"", b"ours", b"of another GPU") else None

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        if cache == b"of another GPU":
            return False
        self.attached = cache
        return True


@pytest.mark.parametrize(
    ("stored", "attached"), [(None, b""), (b"ours", b"ours"), (b"of another GPU", b""), (b"damaged", b"")]
)
def test_a_timing_cache_is_taken_or_starts_empty(
    tmp_path: Path, stored: bytes | None, attached: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "model.timing"
    if stored is not None:
        path.write_bytes(stored)
    config = TimingConfig()
    assert _load_timing_cache(config, path) == config.attached == attached
    assert ("starts empty" in caplog.text) == (stored not in (None, attached))


def test_a_terminal_sees_a_bar_that_reaches_the_end(rtx: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with terminal_progress() as progress:
        build_engine(ahead(rtx), small_graph().SerializeToString(), progress=progress)
    bars = [bar for bar in terminal.getvalue().split("\r") if "%" in bar]
    assert "building:   0%" in bars[0]
    assert "building: 100%" in bars[-1]
