"""Everything the page does, without the page: jobs for the files of a session, and the documents its elements show.

A result's address names the result and one of its files; `lsr_infer.web.routes` hands it out to its session alone.
"""

import asyncio
import secrets
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from lsr_infer.errors import InputError
from lsr_infer.web.clips import growing_video
from lsr_infer.web.lanes import BusyError, Job, Lane
from lsr_infer.web.limits import Limits
from lsr_infer.web.models import Catalogue
from lsr_infer.web.requests import ClipRequest, ConfidenceRequest, FrameRequest, ImageRequest, ModelChoice, OpenRequest
from lsr_infer.web.sessions import FullError, Result, Session, Sessions

__all__ = ["Example", "Sent", "Service", "Work", "attachment", "examples"]

_OWN = "the page itself"
_MOST_EVERY = 1000
_LEAST_RATE_FRAMES = 10
"""Before so many frames, how fast they come says nothing about how long the rest will take."""


@dataclass(frozen=True)
class Sent:
    """A file that shall be segmented.

    Args:
        path: it.
        name: what the user calls it.
        token: of the upload, None for an example.
        owner: whose turn it takes; None is the session's own. All programs of an address share one.
    """

    path: Path
    name: str
    token: str | None = None
    owner: str | None = None


@dataclass(frozen=True)
class Work:
    """A job of a session, and where its results go.

    Args:
        job: it.
        session: whose.
        result: where its files lie.
        sent: what was sent.
    """

    job: Job
    session: Session
    result: Result
    sent: Sent

    @property
    def name(self) -> str:
        """What the user calls what was sent."""
        return self.sent.name


@dataclass(frozen=True)
class Example:
    """A frame or a clip that comes with the package.

    Args:
        key: its file's name without suffix.
        kind: which of both.
        title: for people.
        path: the file.
    """

    key: str
    kind: Literal["image", "video"]
    title: str
    path: Path


def examples() -> tuple[Example, ...]:
    """Return the frames and clips that come with the package, those of the camera first."""
    folder = Path(__file__).resolve().parents[1] / "models" / "toytown"
    kinds: tuple[tuple[Literal["image", "video"], str, str], ...] = (
        ("image", "images/{}_*.jpg", "Toytown, {} {}"),
        ("video", "clips/drive_{}_*.mp4", "A drive through Toytown, {}"),
    )
    found = []
    for kind, pattern, title in kinds:
        for domain, word in (("camera", "camera"), ("game", "simulator")):
            paths = sorted(folder.glob(pattern.format(domain)))
            found += [Example(path.stem, kind, title.format(word, n), path) for n, path in enumerate(paths, start=1)]
    return tuple(found)


class Service:
    """The jobs of a running page.

    Args:
        root: an empty folder of its own.
        models: the user's models, None for the shipped ones alone.
        options: how models are opened; its path and title stand for nothing.
        limits: what is taken.

    Attributes:
        sessions: who is there.
        catalogue: the models on offer.
        limits: what is taken.
        run: another one each time, so that a page notices a server that was started anew.
        examples: frames and clips to try, by key.

    Raises:
        UsageError: the folder of models is not there.
    """

    def __init__(self, root: Path, models: Path | None, options: ModelChoice, limits: Limits) -> None:
        self.limits = limits
        self.run = secrets.token_hex(8)
        self.catalogue = Catalogue(models, options, self._opened)
        self.examples = {example.key: example for example in examples()}
        self.sessions = Sessions(root, limits, busy=self._has_jobs, on_end=self._forget)
        # Pictures have a process of their own, so that nobody waits for somebody else's video to see one.
        self.stills = Lane("stills", 1, limits, limits.picture_seconds)
        self.clips = Lane("clips", limits.jobs, limits, limits.job_seconds)
        self._works: dict[str, Work] = {}

    @property
    def alive(self) -> bool:
        """Whether all workers are there."""
        return self.stills.alive and self.clips.alive

    def stop(self) -> None:
        """Stop all work, and take no more."""
        self.stills.close()
        self.clips.close()

    def close(self) -> None:
        """Stop all work and remove all files."""
        self.stop()
        self.sessions.end_all()

    def image(self, session: Session, sent: Sent, models: Sequence[str], *, compared: bool = False) -> Work:
        """Put a picture into the queue.

        Args:
            session: whose result it will be.
            sent: the file.
            models: keys of one or two models.
            compared: the models' times are to be compared, see `ImageRequest`.

        Raises:
            InputError: a model is not on offer.
            BusyError: the queue is full.
            FullError: there is no room for results.
        """
        choices = self._choices(models)
        result = self._new_result(session, sent)
        request = ImageRequest(
            path=sent.path, name=sent.name, models=choices, folder=result.folder, limits=self.limits, compared=compared
        )
        return self._submit(self.stills, Work(Job(sent.owner or session.key, request), session, result, sent))

    def clip(self, session: Session, sent: Sent, models: Sequence[str], *, every: int = 1) -> Work:
        """Put a video into the queue; see `image`.

        Args:
            session: whose result it will be.
            sent: the file.
            models: keys of one or two models.
            every: take one of so many frames.
        """
        choices = self._choices(models)
        if not 1 <= every <= _MOST_EVERY:
            raise InputError(f"One of {every} frames cannot be taken; allowed: 1 to {_MOST_EVERY}.")
        result = self._new_result(session, sent)
        request = ClipRequest(
            path=sent.path, name=sent.name, models=choices, folder=result.folder, limits=self.limits, every=every
        )
        return self._submit(self.clips, Work(Job(sent.owner or session.key, request), session, result, sent))

    def make_room(self, session: Session, coming: int = 0, *, keep: Collection[str] = ()) -> None:
        """Make room for a session's next file.

        Args:
            session: whose.
            coming: bytes of the file, 0 where that is unknown.
            keep: tokens of uploads that stay, beside what jobs use.

        Raises:
            FullError: there is none.
        """
        used = {*keep}
        for work in list(self._works.values()):
            if work.session is session and not work.job.over:
                used |= {work.result.id, *([work.sent.token] if work.sent.token else [])}
        session.make_room(self.limits.session_bytes - coming, keep=used)
        if shutil.disk_usage(self.sessions.root).free < self.limits.free_bytes + coming:
            raise FullError("The server has no room for files at the moment. Try again later.")

    async def confidence(self, session: Session, result: Result, layer: int) -> Path:
        """Return the confidence map of a picture, a grey PNG; it is computed when it is first asked for.

        Raises:
            InputError: the result is no longer there.
            BusyError: the queue is full.
        """
        path = result.folder / f"{layer}_confidence.png"
        if not path.is_file():
            job = Job(session.key, ConfidenceRequest(folder=result.folder, layer=layer))
            self.stills.submit(job)
            await job.over_soon()
            if job.result is None:
                raise InputError(job.error or "The confidence was not computed. Ask again.")
        return path

    async def frame(self, session: Session, data: bytes, model: str) -> dict[str, Any]:
        """Segment one frame of a camera and wait for it.

        Raises:
            InputError: the model is not on offer, or the frame cannot be segmented.
            BusyError: the queue is full.
        """
        request = FrameRequest(data=data, model=self.catalogue.choice(model), limits=self.limits)
        job = Job(session.key, request)
        self.stills.submit(job)
        await job.over_soon()
        if job.result is None:
            raise InputError(job.error or "The frame was cancelled.")
        return job.result

    def work(self, session: Session, job: str) -> Work | None:
        """Return a session's job, None for any other."""
        work = self._works.get(job)
        return work if work is not None and work.session is session else None

    def cancel(self, work: Work) -> None:
        """Stop a job; its files go."""
        for lane in (self.stills, self.clips):
            lane.cancel(work.job)

    def end(self, work: Work) -> None:
        """Note that nobody looks at a job any more: it is stopped unless it is done, and what is not whole goes."""
        if not work.job.over:
            self.cancel(work)
        work.job.when_over(lambda: self._clear(work))  # not before: a process that still writes would leave files

    def _clear(self, work: Work) -> None:
        self._works.pop(work.job.id, None)
        if work.job.state != "done":
            work.session.drop_result(work.result.id)

    def growing(self, work: Work) -> Path | None:
        """Return the video of a job that still runs, None while there is nothing to be played."""
        return growing_video(work.result.folder)

    def viewer(self, work: Work) -> dict[str, Any]:
        """Return what `<lsr-viewer>` shows of a picture's job."""
        job = work.job
        if job.state == "failed":
            return {"state": "error", "text": job.error}
        if job.state == "cancelled":
            return {"state": "empty", "text": "Cancelled."}
        if job.result is None:
            return {"state": "busy", "text": self._waiting(self.stills, job) or "Looking at the picture …"}
        base = f"/lsr/results/{work.result.id}"
        layers = [
            {
                **{key: layer[key] for key in ("title", "model", "classes", "shares", "milliseconds", "device")},
                "key": str(number),
                "mask": f"{base}/{number}_mask.png",
                "confidence": f"{base}/confidence/{number}" if layer["has_confidence"] else None,
                "probe": f"{base}/probe/{number}" if layer["has_confidence"] else None,
            }
            for number, layer in enumerate(job.result["layers"])
        ]
        self._publish_image(work)
        return {
            "state": "done",
            "id": work.result.id,
            "name": work.name,
            "width": job.result["width"],
            "height": job.result["height"],
            "picture": f"{base}/picture.jpg",
            "layers": layers,
            "agreement": job.result["agreement"],
            "downloads": [
                {"title": title, "url": f"{base}/{file}", "name": name}
                for file, title, name in _image_downloads(work.name, job.result["layers"])
            ],
        }

    def player(self, work: Work) -> dict[str, Any]:
        """Return what `<lsr-player>` shows of a video's job."""
        job, cancel = work.job, f"/lsr/jobs/{work.job.id}/cancel"
        if job.state == "failed":
            return {"state": "error", "text": job.error}
        if job.state == "cancelled":
            return {"state": "cancelled", "text": "Cancelled. Nothing of it was kept."}
        if job.state == "waiting":
            text = self._waiting(self.clips, job) or "Next in line …"
            return {"state": "waiting", "position": self.clips.position(job), "text": text, "cancel": cancel}
        if job.result is None:
            return {"state": "busy", "cancel": cancel, **self._progress(work)}
        base, stem = f"/lsr/results/{work.result.id}", Path(work.name).stem
        names = {
            "video.mp4": f"{stem}_segmented.mp4",
            "masks.zip": f"{stem}_masks.zip",
            "shares.csv": f"{stem}_classes.csv",
            "shares.json": f"{stem}_classes.json",
        }
        work.session.publish(work.result, names)
        kept = ("width", "height", "gap", "titles", "fps", "duration", "frames", "seconds", "note")
        masks = f"Masks of {job.result['titles'][1]} (ZIP)"
        downloads = (("video.mp4", "Video (MP4)"), ("masks.zip", masks), ("shares.csv", "Class shares (CSV)"))
        return {
            "state": "done",
            "id": work.result.id,
            "name": work.name,
            "video": f"{base}/video.mp4",
            "shares": f"{base}/shares.json",
            "downloads": [{"title": title, "url": f"{base}/{file}", "name": names[file]} for file, title in downloads],
            **{key: job.result[key] for key in kept},
        }

    def _progress(self, work: Work) -> dict[str, Any]:
        """Return how far a video is, and how long the rest will take at the rate so far."""
        progress = work.job.progress
        frames, total = progress.get("frames", 0), progress.get("total")
        fps = frames / progress["seconds"] if progress.get("seconds") else 0.0
        known = frames >= _LEAST_RATE_FRAMES and total is not None and fps > 0
        return {
            "frames": frames,
            "total": total,
            "fps": round(fps, 2),
            "eta": round(max(0, total - frames) / fps, 1) if known else None,
            "live": f"/lsr/jobs/{work.job.id}/video.mp4" if frames and self.growing(work) else None,
            **{key: progress.get(key) for key in ("width", "height", "gap", "titles")},
        }

    @staticmethod
    def _waiting(lane: Lane, job: Job) -> str:
        """Say how long the queue is before a job that waits."""
        ahead = lane.position(job) if job.state == "waiting" else 0
        return "" if not ahead else "One job is before yours." if ahead == 1 else f"{ahead} jobs are before yours."

    def _publish_image(self, work: Work) -> None:
        assert work.job.result is not None
        layers = work.job.result["layers"]
        names = {"picture.jpg": f"{Path(work.name).stem}.jpg"}
        names |= {f"{number}_mask.png": f"{number}_mask.png" for number in range(len(layers))}
        names |= {file: name for file, _, name in _image_downloads(work.name, layers)}
        work.session.publish(work.result, names)

    def _choices(self, models: Sequence[str]) -> tuple[ModelChoice, ...]:
        if not 1 <= len(models) <= 2:
            raise InputError("Choose one model, or two.")
        return tuple(self.catalogue.choice(key) for key in models)

    def _new_result(self, session: Session, sent: Sent) -> Result:
        self.make_room(session, keep=(sent.token,) if sent.token else ())
        try:
            return session.new_result()
        except OSError as error:
            raise FullError("The server has no room for results at the moment. Try again later.") from error

    def _submit(self, lane: Lane, work: Work) -> Work:
        self._works[work.job.id] = work
        try:
            lane.submit(work.job, None if work.session.cookie else max(1, self.limits.queue // 2))
        except BusyError:
            self._works.pop(work.job.id, None)
            work.session.drop_result(work.result.id)
            raise
        if work.session.ended:  # meanwhile, so that nobody has cancelled it
            self._forget(work.session)
        return work

    def _has_jobs(self, session: Session) -> bool:
        return any(work.session is session and not work.job.over for work in list(self._works.values()))

    def _forget(self, session: Session) -> None:
        """Stop what is under way for a session that ends; what is written meanwhile goes, too."""
        for work in list(self._works.values()):
            if work.session is session:
                self.end(work)
                work.job.when_over(session.end)
        for lane in (self.stills, self.clips):
            for job in lane.cancel_all(session.key):
                job.when_over(session.end)

    def _opened(self, choice: ModelChoice) -> dict[str, str]:
        """Open a model where a crash does no harm."""
        job = Job(_OWN, OpenRequest(model=replace(choice)))
        self.stills.submit(job)
        asyncio.run(job.over_soon())
        if job.result is None:
            raise InputError(job.error)
        return job.result


def _image_downloads(name: str, layers: Sequence[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """Return the files of a picture that can be saved, as (file, title, name when saved)."""
    stem, found = Path(name).stem, []
    for number, layer in enumerate(layers):
        of, suffix = ("", "") if len(layers) == 1 else (f", {layer['title']}", f"_{Path(layer['model']).stem}")
        found.append((f"{number}_overlay.png", f"Overlay (PNG){of}", f"{stem}{suffix}_overlay.png"))
        found.append((f"{number}_palette.png", f"Mask (PNG){of}", f"{stem}{suffix}_mask.png"))
    return [*found, ("result.json", "Figures (JSON)", f"{stem}.json")]


def attachment(name: str) -> str:
    """Return the header that saves a file under a name."""
    return f"attachment; filename*=UTF-8''{quote(name)}"
