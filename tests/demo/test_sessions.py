"""Sessions: whose files are whose, and when they go."""

from pathlib import Path

import pytest

from lsr_infer.errors import InputError
from lsr_infer.web.limits import Limits
from lsr_infer.web.sessions import Session, Sessions


class Clock:
    """A clock that tests move."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ended() -> list[Session]:
    return []


@pytest.fixture
def sessions(tmp_path: Path, clock: Clock, ended: list[Session]) -> Sessions:
    limits = Limits(session_seconds=100, session_bytes=1000)
    return Sessions(tmp_path / "sessions", limits, clock=clock, on_end=ended.append)


def written(session: Session, name: str, size: int = 10) -> str:
    upload = session.new_upload(name)
    upload.path.write_bytes(b"x" * size)
    return upload.token


def test_an_upload_is_found_by_its_own_session_alone(sessions: Sessions) -> None:
    one, other = sessions.open(cookie=True), sessions.open(cookie=True)
    token = written(one, "street.jpg")
    assert one.upload(token).name == "street.jpg"
    with pytest.raises(InputError, match="Send it again"):
        other.upload(token)
    path = one.upload(token).path
    found = sessions.owning(path)
    assert found is not None
    assert found[0] is one


@pytest.mark.parametrize("change", ["../x", "folder", "nothing"])
def test_no_other_path_is_an_upload(sessions: Sessions, change: str) -> None:
    session = sessions.open(cookie=False)
    path = session.upload(written(session, "street.jpg")).path
    wrong = {
        "../x": path.parent / ".." / path.parent.name / path.name,
        "folder": path.parent,
        "nothing": path.with_name("other.jpg"),
    }[change]
    assert sessions.owning(wrong) is None
    assert sessions.owning(Path("/etc/passwd")) is None


def test_a_secret_nobody_was_given_opens_nothing(sessions: Sessions) -> None:
    session = sessions.open(cookie=True)
    assert sessions.get(session.key) is session
    assert sessions.get("guess") is None
    assert sessions.get("") is None
    assert sessions.get(None) is None
    assert session.key not in str(session.folder)


def test_idle_sessions_end_and_their_files_go(sessions: Sessions, clock: Clock, ended: list[Session]) -> None:
    idle, used = sessions.open(cookie=True), sessions.open(cookie=True)
    written(idle, "street.jpg")
    clock.now = 99
    sessions.get(used.key)
    clock.now = 101
    sessions.sweep()
    assert ended == [idle]
    assert not idle.folder.exists()
    assert sessions.get(idle.key) is None
    assert sessions.get(used.key) is used


def test_a_session_ends_a_minute_after_its_last_page(sessions: Sessions, clock: Clock, ended: list[Session]) -> None:
    session = sessions.open(cookie=True)
    session.enter("one")
    session.enter("two")
    sessions.leave(session, "one")
    clock.now = 90
    sessions.sweep()
    assert not ended
    sessions.leave(session, "two")
    session.enter("three")  # the page was loaded again
    clock.now = 99
    sessions.sweep()
    assert not ended
    clock.now = 30
    sessions.leave(session, "three")
    clock.now = 91
    sessions.sweep()
    assert ended == [session]


def test_results_hand_out_only_what_was_published(sessions: Sessions) -> None:
    one, other = sessions.open(cookie=True), sessions.open(cookie=True)
    result = one.new_result()
    (result.folder / "video.mp4").write_bytes(b"x")
    found = one.result(result.id)
    assert found is not None
    assert not found.names
    one.publish(result, {"video.mp4": "drive.mp4"})
    found = one.result(result.id)
    assert found is not None
    assert dict(found.names) == {"video.mp4": "drive.mp4"}
    assert other.result(result.id) is None
    one.drop_result(result.id)
    assert one.result(result.id) is None
    assert not result.folder.exists()


def test_the_oldest_results_make_room(sessions: Sessions) -> None:
    session = sessions.open(cookie=True)
    results = [session.new_result() for _ in range(4)]
    for result in results:
        (result.folder / "video.mp4").write_bytes(b"x" * 400)
    session.make_room(Limits(session_bytes=20_000))
    kept = [result.id for result in results if session.result(result.id)]
    assert kept
    assert kept == [result.id for result in results][-len(kept) :]
    session.make_room(Limits(session_bytes=1))
    assert not any(session.result(result.id) for result in results)


def test_at_the_end_nothing_is_left(sessions: Sessions, ended: list[Session]) -> None:
    for _ in range(3):
        written(sessions.open(cookie=False), "street.jpg")
    sessions.end_all()
    assert len(ended) == 3
    assert not sessions.root.exists()
