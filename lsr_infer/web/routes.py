"""The page's own addresses: uploads in, results out, a camera's frames through; each for the session that asks alone.

Errors are answered as `{"error": sentence}`. `lsr_infer.web.guard` has found the session by then.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from lsr_infer.errors import InputError, LsrError
from lsr_infer.render.masks import interpolate_at
from lsr_infer.web.lanes import BusyError
from lsr_infer.web.limits import Limits
from lsr_infer.web.service import Service, Work, attachment
from lsr_infer.web.sessions import KEY_HEADER, FullError, Result, Session, clean_name

__all__ = ["page_routes"]

_INLINE = {".png": "image/png", ".jpg": "image/jpeg", ".mp4": "video/mp4", ".json": "application/json"}
_TYPES = {**_INLINE, ".zip": "application/zip", ".csv": "text/csv; charset=utf-8"}
_FOUND_NOTHING = "There is nothing here, or it is not yours. Results are removed after a while."
_FRAME_BYTES = 8 << 20
_CHUNK = 1 << 16
_LOOK_SECONDS = 0.1
_PROBED = 3

Handler = Callable[[Request], Awaitable[Response]]


def page_routes(service: Service) -> list[Route | Mount]:
    """Return the routes of a page's own addresses."""
    here = _Routes(service)
    static = Path(__file__).resolve().parent / "static"
    return [
        Route("/lsr/uploads", _answering(here.upload), methods=["POST"]),
        Route("/gradio_api/upload", _answering(here.form_upload), methods=["POST"]),
        Route("/lsr/results/{result}/confidence/{layer}", _answering(here.confidence)),
        Route("/lsr/results/{result}/probe/{layer}", _answering(here.probe)),
        Route("/lsr/results/{result}/{file}", _answering(here.file)),
        Route("/lsr/jobs/{job}/video.mp4", _answering(here.growing)),
        Route("/lsr/jobs/{job}/cancel", _answering(here.cancel), methods=["POST"]),
        Route("/lsr/live", _answering(here.live), methods=["POST"]),
        Route("/lsr/examples/{key}", _answering(here.example)),
        Route("/lsr/health", _answering(here.health)),
        Mount("/lsr/static", StaticFiles(directory=static)),
    ]


def _answering(handler: Handler) -> Handler:
    """Turn the errors of a route into answers."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except _NotFoundError:
            return _error(404, _FOUND_NOTHING)
        except _TooLargeError as error:
            return _error(413, str(error))
        except (BusyError, FullError) as error:
            return _error(429, str(error))
        except LsrError as error:
            return _error(422, str(error))
        except ClientDisconnect:
            cut = request.scope.get("lsr_cut")  # from the guard; None where the sender has left
            return Response(status_code=400) if cut is None else _error(*cut)
        except OSError:
            return _error(507, "The server has no room for files at the moment. Try again later.")

    return answer


class _NotFoundError(LookupError):
    """What is asked for is not there for this session."""


class _TooLargeError(InputError):
    """More was sent than is taken."""


class _Routes:
    def __init__(self, service: Service) -> None:
        self._service = service

    async def upload(self, request: Request) -> Response:
        """Take a file as the body of a request."""
        session = _session(request)
        length = request.headers.get("content-length", "")
        coming = int(length) if length.isdecimal() else self._service.limits.upload_bytes
        await asyncio.to_thread(self._service.make_room, session, coming)
        upload = session.new_upload(_name(request))
        try:
            size = await self._receive(request, upload.path, upload.name)
        except BaseException:
            session.drop_upload(upload.token)
            raise
        return JSONResponse({"upload": upload.token, "name": upload.name, "bytes": size}, status_code=201)

    async def form_upload(self, request: Request) -> Response:
        """Take a file as Gradio's clients send it; a program without cookies gets a session for this file alone."""
        limits = self._service.limits
        async with request.form(max_files=1, max_fields=1) as form:
            file = form.get("files")
            if file is None or isinstance(file, str):
                return _error(400, "No file was sent.")
            name = clean_name(file.filename or "")
            _fits(limits, name, file.size or 0)
            session = request.scope.get("lsr_session") or self._service.sessions.open(cookie=False)
            await asyncio.to_thread(self._service.make_room, session, file.size or 0)
            upload = session.new_upload(name)
            try:
                await asyncio.to_thread(_copy, file.file, upload.path)
            except BaseException:
                session.drop_upload(upload.token)
                raise
        return JSONResponse([str(upload.path)])

    async def file(self, request: Request) -> Response:
        """Hand out a file of a result."""
        result = self._result(request)
        name = result.names.get(request.path_params["file"])
        path = result.folder / request.path_params["file"]
        if name is None or not path.is_file():
            raise _NotFoundError
        headers = {"Content-Disposition": attachment(name)} if "save" in request.query_params else {}
        return FileResponse(path, media_type=_TYPES[path.suffix], headers={"Cache-Control": "private", **headers})

    async def confidence(self, request: Request) -> Response:
        """Compute the confidence of every pixel, a grey PNG of the probability times 255."""
        result, layer = self._result(request), _number_of_layer(request)
        path = await self._service.confidence(_session(request), result, layer)
        return FileResponse(path, media_type="image/png", headers={"Cache-Control": "private"})

    async def probe(self, request: Request) -> Response:
        """Say which classes a pixel has, the most probable first."""
        found = await asyncio.to_thread(_Layer.read, self._result(request).folder, _number_of_layer(request))
        x, y = (_whole(request.query_params.get(axis)) for axis in ("x", "y"))
        height, width = found.size
        if not (0 <= x < width and 0 <= y < height):
            raise InputError(f"The picture has {width} x {height} pixels; {x}, {y} lies outside.")
        scores = interpolate_at(found.logits, height, width, y, x)
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        best = np.argsort(-weights, kind="stable")[:_PROBED].tolist()
        return JSONResponse(
            {"classes": [{**found.classes[c], "probability": round(float(weights[c]), 5)} for c in best]}
        )

    async def growing(self, request: Request) -> Response:
        """Hand out a video that is still being written, from its beginning to wherever it will end."""
        work = self._work(request)
        path = self._service.growing(work)
        if path is None:
            raise _NotFoundError
        return StreamingResponse(_tail(path, work), media_type="video/mp4", headers={"Cache-Control": "no-store"})

    async def cancel(self, request: Request) -> Response:
        """Stop a job."""
        self._service.cancel(self._work(request))
        return JSONResponse({"cancelled": True})

    async def live(self, request: Request) -> Response:
        """Segment a camera's frame."""
        session = _session(request)
        data = bytearray()
        async for chunk in request.stream():
            data += chunk
            if len(data) > _FRAME_BYTES:
                raise _TooLargeError("The camera's frame is too large. Use a smaller one.")
        result = await self._service.frame(session, bytes(data), request.query_params.get("model", ""))
        headers = {"X-Milliseconds": f"{result['milliseconds']:.1f}", "Cache-Control": "no-store"}
        return Response(result["mask"], media_type="image/png", headers=headers)

    async def example(self, request: Request) -> Response:
        """Hand out a frame or a clip that comes with the package."""
        example = self._service.examples.get(request.path_params["key"])
        if example is None:
            raise _NotFoundError
        kind = _INLINE[example.path.suffix]
        return FileResponse(example.path, media_type=kind, headers={"Cache-Control": "max-age=86400"})

    async def health(self, request: Request) -> Response:
        """Say whether the server can do its work, and which run of it this is."""
        if not self._service.alive:
            return _error(503, "A worker is missing. Start the page again.")
        return JSONResponse({"status": "ok", "sessions": len(self._service.sessions), "run": self._service.run})

    async def _receive(self, request: Request, path: Path, name: str) -> int:
        """Write the body of a request to a file; return its size."""
        limits, size = self._service.limits, 0
        with path.open("wb") as file:
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limits.upload_bytes:
                    await asyncio.to_thread(file.write, chunk)
        _fits(limits, name, size)
        if not size:
            raise InputError(f"{name} is empty. Send another file.")
        return size

    def _result(self, request: Request) -> Result:
        """Return the result a request names, if it is its session's."""
        session = self._whose(request)
        result = None if session is None else session.result(request.path_params["result"])
        if result is None:
            raise _NotFoundError
        return result

    def _work(self, request: Request) -> Work:
        session = self._whose(request)
        work = None if session is None else self._service.work(session, request.path_params["job"])
        if work is None:
            raise _NotFoundError
        return work

    def _whose(self, request: Request) -> Session | None:
        """Return the session of a browser, or of a program that shows its key."""
        found: Session | None = request.scope.get("lsr_session")
        return found or self._service.sessions.get(request.headers.get(KEY_HEADER))


@dataclass(frozen=True)
class _Layer:
    """What one model said about a picture.

    Args:
        logits: [C,h,w] float32.
        size: (rows, columns) of the picture.
        classes: names and colours.
    """

    logits: NDArray[np.float32]
    size: tuple[int, int]
    classes: list[dict[str, str]]

    @classmethod
    def read(cls, folder: Path, number: int) -> Self:
        """Read it from a result's folder."""
        try:
            document = json.loads((folder / "result.json").read_text(encoding="utf-8"))
            logits = np.load(folder / f"{number}_logits.npy", mmap_mode="r", allow_pickle=False)
            classes = document["layers"][number]["classes"]
        except (FileNotFoundError, IndexError) as error:
            raise _NotFoundError from error
        return cls(logits, (document["height"], document["width"]), classes)


def _session(request: Request) -> Session:
    """Return the session of a browser.

    Raises:
        InputError: it has none, as after a restart of the server.
    """
    session: Session | None = request.scope.get("lsr_session")
    if session is None:
        raise InputError("This page is no longer known to the server. Load it again.")
    return session


def _number_of_layer(request: Request) -> int:
    """Return which model of a picture is meant."""
    if request.path_params["layer"] not in ("0", "1"):
        raise _NotFoundError
    return int(request.path_params["layer"])


def _copy(source: BinaryIO, path: Path) -> None:
    with path.open("wb") as target:
        shutil.copyfileobj(source, target)


def _name(request: Request) -> str:
    return clean_name(unquote(request.headers.get("x-filename", "")))


def _fits(limits: Limits, name: str, count: int) -> None:
    """Raise unless a file of so many bytes is taken."""
    try:
        limits.check_bytes(name, count)
    except InputError as error:
        raise _TooLargeError(str(error)) from error


def _whole(text: str | None) -> int:
    try:
        return int(text or "")
    except ValueError as error:
        raise InputError("A place is named by whole numbers, such as x=12&y=30.") from error


async def _tail(path: Path, work: Work) -> AsyncIterator[bytes]:
    """Yield a file as it grows, until its job is over; one that is renamed or removed meanwhile is read to its end."""
    with path.open("rb") as file:
        while True:
            over = work.job.over
            while chunk := await asyncio.to_thread(file.read, _CHUNK):
                yield chunk
            if over:
                return
            await asyncio.sleep(_LOOK_SECONDS)


def _error(status: int, text: str) -> Response:
    return JSONResponse({"error": text}, status_code=status)
