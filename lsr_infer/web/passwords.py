"""A name and a password that is kept as a hash alone (scrypt), for a page that others than its owner can reach."""

import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lsr_infer.errors import UsageError

__all__ = ["Password", "hash_password"]

_COST = {"n": 1 << 14, "r": 8, "p": 1}
_SALT_BYTES = 16


def hash_password(password: str) -> str:
    """Return a line for a hash file."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return f"scrypt${salt.hex()}${_scrypt(password, salt).hex()}"


def _scrypt(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode("utf-8"), salt=salt, **_COST)


@dataclass(frozen=True)
class Password:
    """Who may come in.

    Args:
        user: the name.
        salt: of the hash.
        digest: of the password.
    """

    user: str
    salt: bytes
    digest: bytes

    @classmethod
    def read(cls, option: str) -> Self:
        """Read `USER:FILE`, as the command line has it; the file holds a line of `hash_password`.

        Raises:
            UsageError: it is not of this form, or the file is not there or holds something else.
        """
        user, colon, name = option.partition(":")
        if not user or not colon or not name:
            raise UsageError("--auth takes USER:FILE, a name and a file that holds what --hash-password printed.")
        try:
            text = Path(name).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--auth: {name} cannot be read. Make it with --hash-password.") from error
        try:
            kind, salt, digest = text.split("$")
            if kind != "scrypt":
                raise ValueError(kind)
            return cls(user, bytes.fromhex(salt), bytes.fromhex(digest))
        except ValueError as error:
            raise UsageError(
                f"--auth: {name} holds no line of --hash-password, and never a password itself."
            ) from error

    def matches(self, user: str, password: str) -> bool:
        """Whether these are the right ones; takes as long for a wrong name as for a wrong password."""
        right = hmac.compare_digest(self.digest, _scrypt(password, self.salt))
        return hmac.compare_digest(user.encode("utf-8"), self.user.encode("utf-8")) and right
