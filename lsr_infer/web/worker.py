"""The process that decodes and computes for the page: it can be killed at any instant, and nothing but a job is lost.

Started by `lsr_infer.web.processes` as `python -m lsr_infer.web.worker DESCRIPTOR`, with one end of a pipe. It takes
one request after the other, keeps the models it has opened, and ends when the other end of the pipe is closed. Videos
end early where they are told to; what is faster than that is not asked.
"""

import logging
import sys
from collections import OrderedDict
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from lsr_infer.errors import LsrError, stderr_handler
from lsr_infer.segmenter import Segmenter
from lsr_infer.system.process import Trimmer, watch_parent
from lsr_infer.web.clips import segment_clip
from lsr_infer.web.requests import (
    ClipRequest,
    ConfidenceRequest,
    FrameRequest,
    ImageRequest,
    ModelChoice,
    Request,
    StopRequest,
)
from lsr_infer.web.stills import confidence_map, segment_frame, segment_image

__all__ = ["Models", "main"]

logger = logging.getLogger(__name__)


class _StoppedError(Exception):
    """Nobody wants the job any more."""


class Models:
    """Opened models, a few of them.

    Args:
        most: how many stay open; the one used longest ago is closed for another.
    """

    def __init__(self, most: int = 4) -> None:
        self._most = most
        self._open: OrderedDict[tuple[ModelChoice, int], Segmenter] = OrderedDict()

    def __call__(self, choice: ModelChoice) -> Segmenter:
        """Return the model of a choice, opened anew where its file was replaced.

        Raises:
            LsrError: it cannot be opened.
        """
        try:
            key = (choice, choice.path.stat().st_mtime_ns)
        except OSError:
            key = (choice, 0)  # opening it says what is wrong
        if key not in self._open:
            self._open[key] = Segmenter(
                choice.path, choice.device, choice.backend, threads=choice.threads, precision=choice.precision
            )
        self._open.move_to_end(key)
        while len(self._open) > self._most:
            self._open.popitem(last=False)[1].close()
        return self._open[key]


def main() -> None:
    """Serve requests until the pipe is closed."""
    watch_parent()
    logging.basicConfig(level=logging.WARNING, handlers=[stderr_handler()])
    connection = Connection(int(sys.argv[1]))
    models, trim = Models(), Trimmer(seconds=0.0)
    while True:
        try:
            request = connection.recv()
        except (EOFError, ConnectionError):
            return
        if isinstance(request, StopRequest):  # for a job that was over by then
            continue
        try:
            connection.send(_answer(request, models, connection))
        except BrokenPipeError:
            return
        if isinstance(request, ClipRequest):
            trim()


def _answer(request: Request, models: Models, connection: Connection) -> tuple[str, Any]:
    """Do what is asked for; return `done` with the result, or `failed` with a sentence."""

    def heed() -> None:
        if connection.poll():
            with suppress(EOFError, ConnectionError):
                connection.recv()  # nothing but a StopRequest comes while a job is under way
            raise _StoppedError

    try:
        if isinstance(request, ClipRequest):
            return "done", segment_clip(request, models, lambda news: connection.send(("progress", news)), heed)
        if isinstance(request, ImageRequest):
            return "done", segment_image(request, models)
        if isinstance(request, FrameRequest):
            return "done", segment_frame(request, models)
        if isinstance(request, ConfidenceRequest):
            return "done", confidence_map(request)
        model = models(request.model)
        return "done", {"device": model.device, "backend": model.backend, "precision": model.precision}
    except BrokenPipeError:
        raise
    except _StoppedError:
        return "failed", "Stopped."
    except LsrError as error:
        return "failed", _sentence(error, request)
    except MemoryError:
        return "failed", "This needs more memory than the server has. Send something smaller."
    except Exception:
        logger.exception("a job failed")
        return "failed", "Something went wrong on the server, and its log says what. Try another file."


def _sentence(error: LsrError, request: Request) -> str:
    """Return an error's text without the server's paths."""
    text = str(error)
    if not isinstance(request, ImageRequest | ClipRequest):
        return text
    for path, name in (
        (str(request.path), request.name),
        (request.path.name, request.name),
        *((str(choice.path), choice.path.name) for choice in request.models),
        (f"{request.folder}/", ""),
    ):
        text = text.replace(path, name)
    return text


if __name__ == "__main__":
    main()
