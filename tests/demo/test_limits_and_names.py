"""Limits, names and passwords: what is refused, and in which words."""

from pathlib import Path

import pytest

from lsr_infer.errors import InputError, UsageError
from lsr_infer.web.limits import Limits
from lsr_infer.web.passwords import Password, hash_password
from lsr_infer.web.sessions import clean_name


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_a_limit_is_a_number_above_nothing(value: float) -> None:
    with pytest.raises(UsageError, match="seconds"):
        Limits(seconds=value)


def test_each_limit_refuses_what_is_beyond_it_and_takes_what_is_not() -> None:
    limits = Limits(upload_bytes=1000, pixels=200, seconds=10, frames=50)
    limits.check_bytes("a", 1000)
    limits.check_pixels("a", 10, 20)
    limits.check_length("a", 10.0, 50)
    limits.check_length("a", None, None)
    with pytest.raises(InputError, match=r"a has 1\.0 kB; at most 1\.0 kB"):
        limits.check_bytes("a", 1001)
    with pytest.raises(InputError, match="21 x 10 pixels"):
        limits.check_pixels("a", 10, 21)
    with pytest.raises(InputError, match=r"lasts 11 s; at most 10 s"):
        limits.check_length("a", 10.6, None)
    with pytest.raises(InputError, match="51 frames; at most 50"):
        limits.check_length("a", None, 51)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\me\\street.jpg", "street.jpg"),
        ("a\0b\nc<d>.jpg", "a_b_c_d_.jpg"),
        ("..", "upload"),
        ("", "upload"),
        ("straße 7.png", "straße 7.png"),
        (".hidden", "hidden"),
        ("x" * 300 + ".mp4", "x" * 96 + ".mp4"),
        ("𝒳" * 80 + ".jpg", "𝒳" * 24 + ".jpg"),
    ],
)
def test_names_of_uploads_lose_what_could_do_harm(given: str, kept: str) -> None:
    assert clean_name(given) == kept


def test_a_password_is_known_by_its_hash_alone(tmp_path: Path) -> None:
    file = tmp_path / "hash"
    file.write_text(hash_password("right") + "\n", encoding="utf-8")
    assert b"right" not in file.read_bytes()
    password = Password.read(f"ann:{file}")
    assert password.matches("ann", "right")
    assert not password.matches("ann", "wrong")
    assert not password.matches("bob", "right")
    assert hash_password("right") != hash_password("right")  # salted


@pytest.mark.parametrize("option", ["ann", "ann:", ":file", "ann:/nowhere/at/all"])
def test_auth_says_what_it_takes(option: str) -> None:
    with pytest.raises(UsageError, match="--hash-password"):
        Password.read(option)


def test_a_password_in_the_clear_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "hash"
    file.write_text("secret", encoding="utf-8")
    with pytest.raises(UsageError, match="never a password itself"):
        Password.read(f"ann:{file}")
