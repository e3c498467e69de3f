"""Ray that is not installed, and a cluster that is not there."""

import os
import sys

import pytest

from lsr_infer.errors import DeviceError
from lsr_infer.system import ray_cluster
from lsr_infer.system.ray_cluster import join_cluster


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DeviceError, match=r"tables are made by Ray, and ray is not there.*lsr-road\[ray\]"):
        join_cluster("", "tables are made by Ray")


def test_a_cluster_that_is_not_there_is_said() -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra ray)")
    with pytest.raises(DeviceError, match="Ray cannot be reached at nowhere"):
        join_cluster("nowhere", "tables are made by Ray")


def test_its_note_of_a_level_is_left_out_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    with ray_cluster._without_note():
        os.write(2, b"[2026-11-30 22:27:41,182 I 5083 5083] logging.cc:303: Set ray log level to 3\n")
        os.write(2, b"[2026-11-30 22:27:41,182 E 5083 5083] node.cc:1: no memory\n")
    os.write(2, b"behind\n")
    assert capfd.readouterr().err == "[2026-11-30 22:27:41,182 E 5083 5083] node.cc:1: no memory\nbehind\n"
