"""Writes the SHA-256 of a file into the file itself, and checks it.

The digest counts its own digits as zeros, so that every byte of the file is under it. The `format` of a file says
whether it has one, so that damage to its name is no way past it.
"""

import hashlib
import mmap
import re
from pathlib import Path

__all__ = ["BLANK", "digest_holds", "digest_in", "file_digest", "seal", "stated_digest"]

BLANK = f"sha256:{'0' * 64}"
"""Stands in a file where its digest will."""
_STATED = re.compile(rb'\\?"digest\\?":\s*\\?"([^"\\]+)')  # in JSON, or in JSON that is a string of JSON
_SEARCHED = 1 << 24
"""Bytes of a file in which its digest is looked for, where it is not known."""


def seal(path: Path) -> str:
    """Put the digest of a file in the place of `BLANK`, which stands in it once, and return it; `OSError` as it comes.

    Raises:
        ValueError: `BLANK` is not there.
    """
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            start = content.rfind(BLANK.encode())
            if start < 0:
                raise ValueError(f"{path} has no place for a digest")
            digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        file.seek(start)
        file.write(digest.encode())
    return digest


def digest_holds(content: mmap.mmap, digest: str) -> bool:
    """Whether a file's content has the digest that it states."""
    start = content.rfind(digest.encode())
    found = hashlib.sha256()
    with memoryview(content) as view:
        found.update(view[: max(start, 0)])
        found.update(BLANK.encode())
        found.update(view[start + len(BLANK) :])
    return start >= 0 and digest == f"sha256:{found.hexdigest()}"


def digest_in(content: mmap.mmap, text: bytes | mmap.mmap) -> str | None:
    """Return the digest of a file's content that a text states, None where it states none.

    Raises:
        ValueError: the content has another: it is damaged.
    """
    found = _STATED.search(text, 0, _SEARCHED)
    if found is None:
        return None
    digest = found[1].decode("utf-8", "replace")
    if not digest_holds(content, digest):
        raise ValueError("its content is not what its digest is of")
    return digest


def stated_digest(path: Path) -> str | None:
    """Return the digest that the beginning of a file states; as `digest_in`, and `OSError` as it comes."""
    with path.open("rb") as file:
        if not file.seek(0, 2):
            return None
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return digest_in(content, content)


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content; `OSError` as it comes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
