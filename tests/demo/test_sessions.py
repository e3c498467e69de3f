"""Sessions: whose files are whose, and when they go."""

from pathlib import Path

import pytest

from lsr_infer.errors import InputError
from lsr_infer.web.limits import Limits
from lsr_infer.web.sessions import FullError, Session, Sessions


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


def test_the_oldest_results_make_room_but_never_what_is_in_use(sessions: Sessions) -> None:
    session = sessions.open(cookie=True)
    results = [session.new_result() for _ in range(4)]
    for result in results:
        (result.folder / "video.mp4").write_bytes(b"x" * 40_000)
    token = written(session, "street.jpg", 40_000)
    session.make_room(160_000, keep={token, results[0].id})
    kept = [result.id for result in results if session.result(result.id)]
    assert kept[0] == results[0].id
    assert kept[1:] == [result.id for result in results][-len(kept[1:]) :]
    assert len(kept) < 4
    with pytest.raises(FullError, match="all the room"):
        session.make_room(1, keep={token, results[0].id})
    assert [result.id for result in results if session.result(result.id)] == [results[0].id]
    assert session.upload(token).path.is_file()
    session.make_room(0 if not list(session.folder.rglob("*")) else 50_000, keep=())
    assert session.result(results[0].id) is None


def test_a_crowd_of_strangers_ends_nobody_elses_session(tmp_path: Path, clock: Clock, ended: list[Session]) -> None:
    sessions = Sessions(tmp_path / "crowd", Limits(sessions=5), clock=clock, on_end=ended.append)
    ann = sessions.open(cookie=True)
    written(ann, "street.jpg")
    for _ in range(20):  # visitors who never send anything make room for one another
        clock.now += 1
        sessions.open(cookie=True)
    assert len(sessions) == 5
    assert sessions.get(ann.key) is ann
    for _ in range(5):
        written(sessions.open(cookie=False), "x.jpg")
    with pytest.raises(FullError, match="Too many visitors"):
        sessions.open(cookie=False)
    assert sessions.get(ann.key) is ann
    clock.now += 121  # what a program sent and never used
    sessions.sweep()
    assert sessions.open(cookie=False)
    assert sessions.get(ann.key) is ann


def test_jobs_keep_a_session_alive(tmp_path: Path, clock: Clock, ended: list[Session]) -> None:
    busy: set[str] = set()
    sessions = Sessions(
        tmp_path / "busy", Limits(session_seconds=10), clock=clock, busy=lambda one: one.key in busy,
        on_end=ended.append,
    )  # fmt: skip
    session = sessions.open(cookie=True)
    busy.add(session.key)
    clock.now = 100
    sessions.sweep()
    assert not ended
    busy.clear()
    sessions.sweep()
    assert ended == [session]


def test_a_page_that_lost_its_line_for_a_moment_is_not_gone(sessions: Sessions, clock: Clock) -> None:
    session = sessions.open(cookie=True)
    session.enter("one")
    sessions.leave(session, "one")
    for clock.now in (30.0, 60.0, 90.0):
        sessions.get(session.key)
        sessions.sweep()
    assert sessions.get(session.key) is session


def test_a_session_that_has_ended_takes_nothing_and_leaves_nothing(sessions: Sessions) -> None:
    session = sessions.open(cookie=True)
    sessions.end(session)
    for make in (lambda: session.new_upload("street.jpg"), session.new_result):
        with pytest.raises(InputError, match="no longer known"):
            make()
    assert not session.folder.exists()


def test_at_the_end_nothing_is_left(sessions: Sessions, ended: list[Session]) -> None:
    for _ in range(3):
        written(sessions.open(cookie=False), "street.jpg")
    sessions.end_all()
    assert len(ended) == 3
    assert not sessions.root.exists()
