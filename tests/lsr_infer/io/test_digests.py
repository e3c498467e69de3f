"""A file carries its own digest, and any changed byte is noticed."""

import hashlib
import json
import mmap
from pathlib import Path

import pytest

from lsr_infer.io.digests import BLANK, digest_holds, seal, stated_digest


def sealed(path: Path) -> str:
    path.write_bytes(b"before " + json.dumps({"digest": BLANK}).encode() + b" behind")
    return seal(path)


def test_the_digest_is_that_of_the_file_with_zeros_in_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    digest = sealed(path)
    data = path.read_bytes()
    blank = data.replace(digest.encode(), BLANK.encode())
    assert blank.count(BLANK.encode()) == 1
    assert digest == f"sha256:{hashlib.sha256(blank).hexdigest()}"
    assert stated_digest(path) == digest


def test_every_bit_is_under_it(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    digest = sealed(path)
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            assert not digest_holds(content, digest), bit
    for other in (data[:-1], data + b"\0", data[1:], data[:40]):
        path.write_bytes(other)
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            assert not digest_holds(content, digest)


def test_a_damaged_file_is_told_from_one_without_a_digest(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    sealed(path)
    path.write_bytes(path.read_bytes().replace(b"before", b"befork"))
    with pytest.raises(ValueError, match="its digest"):
        stated_digest(path)
    for data in (b'{"digest": "sha256:12"}', b'{"digest": "another"}'):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="its digest"):
            stated_digest(path)
    for data in (b"", b"no digest here", b'{"digest": ""}'):
        path.write_bytes(data)
        assert stated_digest(path) is None
    with pytest.raises(ValueError, match="no place"):
        seal(path)
    with pytest.raises(FileNotFoundError):
        stated_digest(tmp_path / "b.bin")


def test_it_is_found_in_json_inside_of_json(tmp_path: Path) -> None:
    path = tmp_path / "header"
    path.write_text(json.dumps({"__metadata__": {"lsr": json.dumps({"digest": BLANK})}}), encoding="utf-8")
    assert seal(path) == stated_digest(path)
