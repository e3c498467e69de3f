"""What the page's controls and its API do, whatever the page is made of.

Each takes the session it works for, puts a job into the queue, and yields what an element shows until the job is over.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from lsr_infer.errors import InputError, LsrError
from lsr_infer.web.models import Entry
from lsr_infer.web.service import Sent, Service, Work
from lsr_infer.web.sessions import Session
from lsr_infer.web.stills import classes_document
from lsr_infer.web.tables import comparison_table

__all__ = ["NO_MODEL", "Actions"]

NO_MODEL = ""
"""What stands for the original in place of a model."""


class Actions:
    """What the page's controls and its API call.

    Args:
        service: does the work.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._shown_at: dict[tuple[str, str], Work] = {}

    async def picture(
        self, session: Session | None, place: str, sent: Any, before: str, after: str
    ) -> AsyncIterator[Any]:
        """Segment a picture with one model or two; yields what `<lsr-viewer>` shows.

        Args:
            session: whose.
            place: the element that shows it; what is asked for there later ends what is under way.
            sent: what the element for files says.
            before: key of a model, or `NO_MODEL`.
            after: key of a model.
        """
        models = [key for key in (before, after) if key]
        async for document in self._shown(session, place, sent, models, self._service.image, self._service.viewer):
            yield document

    async def compare(
        self, session: Session | None, place: str, sent: Any, before: str, after: str
    ) -> AsyncIterator[Any]:
        """Segment a picture with two models; see `picture`."""
        if sent and before == after:
            yield {"state": "error", "text": "Choose two different models, or use the tab Picture."}
            return
        start = partial(self._service.image, compared=True)
        async for document in self._shown(session, place, sent, [before, after], start, self._service.viewer):
            yield document

    async def video(
        self, session: Session | None, place: str, sent: Any, before: str, after: str, every: int
    ) -> AsyncIterator[Any]:
        """Segment a video, one of so many frames; yields what `<lsr-player>` shows; see `picture`."""
        models = [key for key in (before, after) if key]
        start = partial(self._service.clip, every=every)
        async for document in self._shown(session, place, sent, models, start, self._service.player):
            yield document

    def comparison(self, before: str, after: str) -> str:
        """Return what is known of two models, side by side."""
        return comparison_table([entry for key in (before, after) for entry in self._entries(key)])

    def camera(self, after: str) -> dict[str, Any]:
        """Return what `<lsr-live>` needs to know."""
        entries = self._entries(after)
        if not entries or entries[0].manifest is None:
            return {"state": "empty"}
        return {"classes": classes_document(entries[0].manifest.label_space), "query": f"?model={quote(after)}"}

    def chosen(self, keys: Sequence[str]) -> tuple[str, ...]:
        """Return what is chosen in pairs of (before, after), replaced by the defaults where it is no longer on offer.

        Args:
            keys: what is chosen now; "" stands for no model.
        """
        good = {entry.key for entry in self._service.catalogue.good()} | {NO_MODEL}
        first, second = self._service.catalogue.defaults()
        defaults = (first or NO_MODEL, second or NO_MODEL)
        return tuple(key if key in good else defaults[number % 2] for number, key in enumerate(keys))

    async def segment_image(self, image: Any, model: str, before: str, address: str) -> dict[str, Any]:
        """Segment a picture that a program at an address sent, with one model or two.

        Raises:
            LsrError: it cannot be segmented.
        """
        session, sent = self._sent_by_program(image, address)
        work = None
        try:
            work = await asyncio.to_thread(self._service.image, session, sent, self._named(model, before))
            await work.job.over_soon()
            return await asyncio.to_thread(_image_answer, work)
        finally:
            if work is not None:
                self._service.end(work)
                work.job.when_over(partial(session.drop_result, work.result.id))  # all of it is in the answer
            session.drop_upload(sent.token or "")
            if not session.cookie:
                self._service.sessions.end(session)

    async def segment_video(
        self, video: Any, model: str, before: str, every: int, address: str
    ) -> AsyncIterator[dict[str, Any]]:
        """Segment a video that a program sent; yields how far it is, and last the addresses of the results.

        Raises:
            LsrError: it cannot be segmented.
        """
        session, sent = self._sent_by_program(video, address)
        work = None
        try:
            start = partial(self._service.clip, every=every)
            work = await asyncio.to_thread(start, session, sent, self._named(model, before))
            async with aclosing(work.job.changes()) as changes:
                async for _ in changes:
                    document = self._service.player(work)
                    if document["state"] == "error":
                        raise InputError(document["text"])
                    yield document | {"key": session.key}
        finally:
            if work is not None:
                self._service.end(work)
            session.drop_upload(sent.token or "")
            if not session.cookie and (work is None or work.job.state != "done"):
                self._service.sessions.end(session)

    def models(self) -> list[dict[str, Any]]:
        """List the models on offer."""
        return [
            {"key": entry.key, "title": entry.title, "device": entry.device, "precision": entry.precision}
            for entry in self._service.catalogue.good()
        ]

    async def _shown(
        self,
        session: Session | None,
        place: str,
        sent: Any,
        models: Sequence[str],
        start: Callable[[Session, Sent, Sequence[str]], Work],
        document_of: Callable[[Work], dict[str, Any]],
    ) -> AsyncIterator[dict[str, Any]]:
        """Do what was asked for, and yield what is to be shown until it is over."""
        if not sent:
            return
        try:
            if session is None:
                raise InputError("This page is no longer known to the server. Load it again.")
            work = await asyncio.to_thread(start, session, self._place(session, sent), models)
        except LsrError as error:
            yield {"state": "error", "text": str(error)}
            return
        key = (session.key, place)
        earlier = self._shown_at.pop(key, None)
        self._shown_at[key] = work
        if earlier is not None:
            self._service.end(earlier)
        try:
            async with aclosing(work.job.changes()) as changes:
                async for _ in changes:
                    if self._shown_at.get(key) is not work:
                        return  # the place shows something later
                    yield document_of(work)
        finally:
            if self._shown_at.get(key) is work:
                del self._shown_at[key]
            self._service.end(work)

    def _place(self, session: Session, sent: Any) -> Sent:
        """Return the file of what the page sent: an upload's token, or an example's key."""
        if isinstance(sent, dict) and isinstance(sent.get("example"), str):
            example = self._service.examples.get(sent["example"])
            if example is None:
                raise InputError("This example is not there. Choose another one.")
            return Sent(example.path, example.path.name)
        token = sent.get("upload") if isinstance(sent, dict) else None
        upload = session.upload(token if isinstance(token, str) else "")
        return Sent(upload.path, upload.name, upload.token)

    def _sent_by_program(self, file: Any, address: str) -> tuple[Session, Sent]:
        """Return session and file of what a program sent."""
        path = file.get("path") if isinstance(file, dict) else None
        found = self._service.sessions.owning(Path(path)) if isinstance(path, str) else None
        if found is None:
            raise InputError("The file is not here. Send it with handle_file, as in the lines on the page.")
        session, upload = found
        owner = session.key if session.cookie else f"programs at {address}"
        return session, Sent(upload.path, upload.name, upload.token, owner)

    def _named(self, model: str, before: str) -> list[str]:
        """Return the models a program names, the page's own choice where it names none."""
        return [key for key in (before, model or self._service.catalogue.defaults()[1] or "") if key]

    def _entries(self, key: str) -> list[Entry]:
        return [entry for entry in self._service.catalogue.entries if entry.key == key]


def _image_answer(work: Work) -> dict[str, Any]:
    """Return a picture's result with everything in it, since a program's session ends with the answer."""
    if work.job.result is None:
        raise InputError(work.job.error or "The job was cancelled.")
    layers = []
    for number, layer in enumerate(work.job.result["layers"]):
        mask = (work.result.folder / f"{number}_palette.png").read_bytes()
        layers.append({**layer, "mask_png": base64.b64encode(mask).decode("ascii")})
    return {**work.job.result, "layers": layers}
