"""The jobs of a page and their files, without the page."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lsr_infer.web.limits import Limits
from lsr_infer.web.requests import ModelChoice
from lsr_infer.web.service import Sent, Service, Work
from tests.processes import wait_until


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path / "sessions", None, ModelChoice(path=Path(), title="", threads=1), Limits(jobs=1))
    try:
        made.catalogue.refresh()
        yield made
    finally:
        made.close()


def clip_at_work(service: Service, clip: Path) -> tuple[Work, int]:
    """Begin a clip; return it and the process that computes its frames."""
    session = service.sessions.open(cookie=True)
    models = [entry.key for entry in service.catalogue.good()]
    work = service.clip(session, Sent(path=clip, name=clip.name), models[:2])
    wait_until(lambda: bool(work.job.progress.get("frames")))
    worker = service.clips.processes[0].pid
    assert worker is not None
    return work, worker


@pytest.mark.parametrize("whole_session", [False, True])
@pytest.mark.parametrize("hangs", [False, True])
def test_nothing_is_left_of_a_job_that_nobody_wants(
    service: Service, clip_of: Callable[[int], Path], hangs: bool, whole_session: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files go when nobody writes any more; a process that hangs and is killed later leaves none, either."""
    monkeypatch.setattr("lsr_infer.web.processes._STOP_SECONDS", 0.5 if hangs else 60)
    work, worker = clip_at_work(service, clip_of(400))
    if hangs:
        os.kill(worker, signal.SIGSTOP)
    if whole_session:
        service.sessions.end(work.session)
    else:
        service.end(work)
    wait_until(lambda: work.job.over)
    assert work.job.state == "cancelled"
    wait_until(lambda: not work.result.folder.exists())
    time.sleep(0.3)
    assert not work.result.folder.exists()
    assert (service.clips.processes[0].pid == worker) != hangs
    assert service.work(work.session, work.job.id) is None
