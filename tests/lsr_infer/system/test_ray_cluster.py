"""Ray that is not installed, and a cluster that is not there."""

import sys

import pytest

from lsr_infer.errors import DeviceError
from lsr_infer.system.ray_cluster import join_cluster


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DeviceError, match=r"tables are made by Ray, and ray is not there.*lsr-road\[ray\]"):
        join_cluster("", "tables are made by Ray")


def test_a_cluster_that_is_not_there_is_said() -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra ray)")
    with pytest.raises(DeviceError, match="Ray cannot be reached at nowhere"):
        join_cluster("nowhere", "tables are made by Ray")
