"""Trimming: as often as it should, and it gives memory back."""

import ctypes
import sys
from pathlib import Path

import pytest

from lsr_infer.system.process import Trimmer

glibc = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="no malloc_trim in this C library"
)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096


@glibc
def test_holes_in_the_heap_are_given_back() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = (
        ctypes.c_void_p,
        [ctypes.c_size_t],
        [ctypes.c_void_p],
    )
    blocks = [libc.malloc(60_000) for _ in range(1000)]  # below the size that is mapped on its own
    for block in blocks:
        ctypes.memset(block, 1, 60_000)
    for block in blocks[:-1]:  # the last one keeps the top of the heap where it is
        libc.free(block)
    before = resident()
    assert Trimmer(seconds=0.0)()
    assert before - resident() > 40_000_000
    libc.free(blocks[-1])


@glibc
def test_it_is_not_done_all_the_time() -> None:
    trimmer = Trimmer(seconds=1000)
    assert not trimmer()
