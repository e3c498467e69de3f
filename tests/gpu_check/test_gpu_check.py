"""The GPU check: parts that are split and joined, steps that fail without stopping others, the page, and a dry run."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from docs.gpu_page import BEGIN, END, PAGE, fill
from tests.gpu_check import bundle
from tests.gpu_check.__main__ import FAILED, STEPS, Step, check
from tests.processes import running, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("size", [1, 99, 100, 101, 1000])
def test_what_was_split_is_joined_whole(tmp_path: Path, size: int) -> None:
    (tmp_path / "whole").write_bytes(os.urandom(size))
    parts = bundle.split(tmp_path / "whole", tmp_path / "parts", most=100)
    assert len(parts) == -(-size // 100)
    assert max(part.stat().st_size for part in parts) <= 100
    bundle.join(tmp_path / "parts", tmp_path / "joined")
    assert (tmp_path / "joined").read_bytes() == (tmp_path / "whole").read_bytes()


def test_the_list_of_digests_is_one_that_sha256sum_reads(tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(os.urandom(250))
    bundle.split(tmp_path / "whole", tmp_path / "parts", most=100)
    subprocess.run(["sha256sum", "--check", "--quiet", bundle.DIGESTS], cwd=tmp_path / "parts", check=True)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda parts: (parts / "part-001").unlink(), "part-001: it is missing"),
        (lambda parts: (parts / "part-002").write_bytes(b"other"), "part-002: its digest"),
        (lambda parts: (parts / bundle.DIGESTS).unlink(), f"no {bundle.DIGESTS}"),
    ],
)
def test_a_part_that_is_missing_or_damaged_is_named(tmp_path: Path, spoil: Any, text: str) -> None:
    (tmp_path / "whole").write_bytes(os.urandom(250))
    bundle.split(tmp_path / "whole", tmp_path / "parts", most=100)
    spoil(tmp_path / "parts")
    with pytest.raises(ValueError, match=text):
        bundle.join(tmp_path / "parts", tmp_path / "joined")


def test_a_bundle_has_what_the_project_and_its_gpu_tests_need_and_leaves_torch_and_tensorrt_to_the_machine() -> None:
    needed = " ".join(bundle.requirements(["train", "export"]))
    for name in (
        "numpy",
        "onnxruntime-gpu",
        "accelerate",
        "onnxscript",
        "pytest",
        "hypothesis",
        "setuptools",
        "cuda-python",
    ):
        assert name in needed
    assert "tensorrt" not in needed


def of_python(name: str, code: str, seconds: float = 60) -> tuple[Step, list[str]]:
    return Step(name=name, about=name, seconds=seconds, words=()), [sys.executable, "-c", code]


def test_no_step_stops_another(tmp_path: Path) -> None:
    so_far = """printf '{"so far": 1}' > "$GPU_CHECK_RESULT"; """
    report = "import os; open(os.environ['GPU_CHECK_RESULT'], 'w').write('{}'); "
    steps = [
        (Step(name="hangs", about="", seconds=3, words=()), ["sh", "-c", so_far + "sleep 600"]),
        (
            Step(name="is killed within", about="", seconds=60, words=()),
            ["sh", "-c", "printf '{' > \"$GPU_CHECK_RESULT\""],
        ),
        of_python("crashes", "import os; os.abort()"),
        of_python("raises", "raise SystemExit('error: no card')"),
        of_python("is not there", report.format('{"skipped": "no library"}')),
        (Step(name="cannot start", about="", seconds=60, words=()), [str(tmp_path / "no-python")]),
        of_python("works", report.format('{"figure": 3}')),
    ]
    document = check(tmp_path, steps, dict(os.environ), dry=False, log=lambda line: None)
    assert json.loads((tmp_path / "gpu-check.json").read_text(encoding="utf-8")) == document
    found = {step["name"]: step for step in document["steps"]}
    assert {name: step["state"] for name, step in found.items()} == {
        "hangs": "timed out", "crashes": "failed", "raises": "failed", "is not there": "skipped",
        "cannot start": "failed", "works": "passed", "is killed within": "passed",
    }  # fmt: skip
    assert found["hangs"]["result"] == {"so far": 1}
    assert "signal 6" in found["crashes"]["reason"]
    assert found["raises"]["reason"].startswith("no card (exit 1")
    assert found["is not there"]["reason"] == "no library"
    assert found["works"]["result"] == {"figure": 3}


def test_a_step_for_which_no_time_is_left_counts_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.gpu_check.__main__.LIMIT_SECONDS", 0)
    document = check(tmp_path, [of_python("late", "")], dict(os.environ), dry=False, log=lambda line: None)
    assert document["steps"][0]["state"] == "not run"
    assert document["steps"][0]["state"] in FAILED


def test_what_a_killed_step_had_started_ends_with_it(tmp_path: Path) -> None:
    child = "import subprocess, sys, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
    check(tmp_path, [of_python("hangs", child, 3)], dict(os.environ), dry=False, log=lambda line: None)
    pid = int((tmp_path / "logs/hangs.log").read_text(encoding="utf-8"))
    wait_until(lambda: not running(pid))


DOCUMENT: dict[str, Any] = {
    "kind": "gpu-check", "dry": False, "started": "2000-01-01T00:00:00+00:00", "seconds": 300.0,
    "machine": {"gpu": "a card", "driver": "1.2", "torch": "3"},
    "steps": [
        {"name": "memory bf16", "about": "memory", "state": "passed", "seconds": 9.0, "result": {"peak_gib": 12.345}},
        {"name": "latency", "about": "speed", "state": "failed", "seconds": 3.0, "reason": "it broke",
         "result": {"a.onnx": {"p50_ms": 1.5}, "b.onnx": {"p50_ms": 2.5, "device": "cuda:0"}}},
        {"name": "tensorrt", "about": "engines", "state": "skipped", "reason": "no library"},
    ],
}  # fmt: skip


def test_the_page_shows_the_card_every_state_and_every_figure_and_is_written_again_the_same() -> None:
    empty = PAGE.read_text(encoding="utf-8")
    page = fill(empty, DOCUMENT)
    for text in ("| card | a card |", "| latency | failed | 3 | it broke |", "| tensorrt | skipped |  | no library |",
                 "| peak gib |", "| 12.35 |", "| b.onnx | 2.5 | cuda:0 |"):  # fmt: skip
        assert text in page
    assert fill(page, DOCUMENT) == page
    assert page.partition(BEGIN)[0] == empty.partition(BEGIN)[0]
    assert page.partition(END)[2] == empty.partition(END)[2]


def test_a_dry_run_is_no_result() -> None:
    with pytest.raises(ValueError, match="no results of a GPU"):
        fill(PAGE.read_text(encoding="utf-8"), {**DOCUMENT, "dry": True})


@pytest.mark.slow  # every step for real on the CPU: minutes
def test_a_dry_run_takes_every_step(tmp_path: Path) -> None:
    command = ["make", "gpu-check", "DRY=1", f"CHECKED={tmp_path / 'out'}", f"BUNDLE={tmp_path / 'none'}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "out/gpu-check.json").read_text(encoding="utf-8"))
    found = {step["name"]: step for step in document["steps"]}
    assert list(found) == [step.name for step in STEPS]
    skipped = {name for name, step in found.items() if step["state"] == "skipped"}
    assert {name for name, step in found.items() if step["state"] != "passed"} == skipped <= {"tests", "tensorrt"}
    assert document["machine"]["gpu"].startswith("none")
    assert found["two processes"]["result"]["processes"] == 2
    assert all(network["agreement"] == 1 for network in found["parity"]["result"].values())
    assert {"street.onnx", "resnet101_fp16.onnx", "resnet101, torch bf16"} <= set(found["latency"]["result"])


@pytest.mark.slow  # an environment is made, and pip runs three times
def test_a_bundle_is_installed_without_a_network(tmp_path: Path) -> None:
    content = tmp_path / "content"
    (content / "wheels").mkdir(parents=True)
    bundle.stand_in(content / "wheels", "lsr_road_bundled", "1.2")
    (content / "requirements.txt").write_text("lsr-road-bundled>=1\nnumpy\n", encoding="utf-8")
    subprocess.run(["tar", "--create", "--file", tmp_path / "bundle.tar", "--directory", content, "."], check=True)
    bundle.split(tmp_path / "bundle.tar", tmp_path / "parts", most=1000)
    command = [
        sys.executable,
        "-m",
        "tests.gpu_check.bundle",
        "install",
        str(tmp_path / "parts"),
        str(tmp_path / "out"),
    ]
    subprocess.run(command, cwd=REPOSITORY, check=True)
    code = "import importlib.metadata, torch; print(importlib.metadata.version('lsr-road-bundled'))"
    python = str(tmp_path / "out/environment/bin/python")
    assert subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout == "1.2\n"
