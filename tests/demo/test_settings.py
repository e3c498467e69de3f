"""Limits, passwords, and the list of models."""

import asyncio
from dataclasses import fields
from pathlib import Path

import pytest

from lsr_infer import InputError, UsageError
from settings import Catalogue, Limits, ModelChoice, file_size, hash_password, read_password

SHIPPED = ["street-source.onnx", "street.onnx", "toytown-source.onnx", "toytown.onnx"]


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_a_limit_is_a_finite_number_above_nothing(value: float) -> None:
    for field in fields(Limits):
        with pytest.raises(UsageError, match=f"--{field.name.replace('_', '-')} is"):
            Limits(**{field.name: value})


@pytest.mark.parametrize(("client_queue", "queue"), [(40, 40), (3, 2), (1, 1), (10, 10)])
def test_one_address_may_not_have_the_whole_queue(client_queue: int, queue: int) -> None:
    with pytest.raises(UsageError, match=f"--client-queue is {client_queue} and --queue {queue}; allowed: less"):
        Limits(client_queue=client_queue, queue=queue)
    assert Limits(client_queue=client_queue, queue=client_queue + 1).queue == client_queue + 1


@pytest.mark.parametrize(("queue", "share"), [(40, 10), (10, 2), (9, 2), (3, 1), (1, 1)])
def test_one_address_may_have_a_quarter_of_the_queue_where_nothing_is_said(queue: int, share: int) -> None:
    assert Limits(queue=queue).of_one_address == share
    assert Limits(queue=queue + 7, client_queue=queue + 3).of_one_address == queue + 3
    assert Limits().of_one_address == 10


def test_each_limit_refuses_what_is_beyond_it_and_accepts_what_is_not() -> None:
    limits = Limits(upload_bytes=1024, pixels=100, seconds=2.0, frames=20)
    limits.check_bytes("a", 1024)
    limits.check_pixels("a", 10, 10)
    limits.check_length("a", 2.0, 20)
    limits.check_length("a", None, None)
    for refused, sentence in (
        (lambda: limits.check_bytes("a.mp4", 2048), "a.mp4 has 2.0 KiB; at most 1.0 KiB are accepted. Shorten"),
        (lambda: limits.check_pixels("a.png", 10, 11), "a.png has 11 x 10 pixels; at most 0 million are decoded."),
        (lambda: limits.check_length("a.mp4", 2.1, None), "a.mp4 lasts 2 s; at most 2 s are accepted. Shorten it."),
        (lambda: limits.check_length("a.mp4", None, 21), "a.mp4 has 21 frames; at most 20 are accepted. Shorten it."),
    ):
        with pytest.raises(InputError, match=sentence):
            refused()


def test_a_disk_without_room_is_refused(tmp_path: Path) -> None:
    Limits(free_bytes=1).check_room(tmp_path)
    with pytest.raises(InputError, match="The server has no room for files at the moment"):
        Limits(free_bytes=1 << 60).check_room(tmp_path)


def test_the_default_size_of_an_upload_reads_as_a_round_number() -> None:
    assert file_size(Limits().upload_bytes) == "256 MiB"
    assert [file_size(size) for size in (512, 1 << 20, 3 << 19)] == ["0.5 KiB", "1.0 MiB", "1.5 MiB"]


def test_a_password_is_known_by_its_hash_alone(tmp_path: Path) -> None:
    file = tmp_path / "hash"
    file.write_text(hash_password("secret") + "\n", encoding="utf-8")
    assert "secret" not in file.read_text(encoding="utf-8")
    check = read_password(f"ann:{file}")
    assert check("ann", "secret")
    assert not check("ann", "Secret")
    assert not check("bob", "secret")


@pytest.mark.parametrize("option", ["ann", "ann:", ":file", "ann:/no/such/file"])
def test_auth_says_what_it_takes(option: str) -> None:
    with pytest.raises(UsageError, match="--hash-password"):
        read_password(option)


def test_a_password_in_the_clear_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clear").write_text("secret\n", encoding="utf-8")
    with pytest.raises(UsageError, match="never a password itself"):
        read_password(f"ann:{tmp_path / 'clear'}")


def catalogue(folder: Path | None, opened: list[str] | None = None) -> Catalogue:
    """Return a catalogue that opens models in this process."""
    from worker import open_model, opened_models

    async def opener(choice: ModelChoice) -> dict[str, object]:
        if opened is not None:
            opened.append(choice.path.name)
        return open_model(opened_models(), lambda news: None, choice=choice)

    return Catalogue(folder, ModelChoice(device="cpu", threads=1), opener)


def test_the_shipped_networks_are_offered_and_marked() -> None:
    found = catalogue(None)
    entries = asyncio.run(found.refresh())
    assert [entry.key for entry in entries] == SHIPPED
    assert all(entry.shipped and not entry.problem for entry in entries)
    assert found.defaults() == tuple(SHIPPED[:2])


def test_a_folder_s_models_come_first_and_unusable_ones_have_a_reason(tmp_path: Path, repository: Path) -> None:
    adapted = repository / "lsr_infer" / "models" / SHIPPED[3]
    (tmp_path / "mine.onnx").write_bytes(adapted.read_bytes())
    (tmp_path / SHIPPED[3]).write_bytes(adapted.read_bytes())
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    opened: list[str] = []
    found = catalogue(tmp_path, opened)
    entries = asyncio.run(found.refresh())
    assert [entry.key for entry in entries] == [
        "broken.onnx", "mine.onnx", SHIPPED[3], *SHIPPED[:3], f"shipped/{SHIPPED[3]}",
    ]  # fmt: skip
    assert "broken.onnx" in entries[0].problem
    assert not entries[1].shipped
    assert found.defaults() == ("", "mine.onnx")
    with pytest.raises(InputError, match=r"cannot be used\. .*broken\.onnx"):
        found.entry("broken.onnx")
    with pytest.raises(InputError, match=r"gone\.onnx is not in the folder"):
        found.entry("gone.onnx")
    count = len(opened)
    asyncio.run(found.refresh())
    assert len(opened) == count, "unchanged files are not opened again"
    (tmp_path / "broken.onnx").write_bytes(adapted.read_bytes())
    assert not asyncio.run(found.refresh())[0].problem


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no such folder"):
        catalogue(tmp_path / "none")
