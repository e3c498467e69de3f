"""Refuses requests that no control of the page sends, and more of them than one visitor may have waiting."""

import ipaddress
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import gradio as gr

from lsr_infer import InputError
from settings import Limits

__all__ = ["Gate", "refusal"]

_CALL = re.compile(r"/gradio_api/(queue/join|(?:run|api|call/v2|call)/([^/]+))/?")
_UPLOADS = ("/gradio_api/upload", "/gradio_api/process_recording")
_CLOSED = re.compile(r"/gradio_api/(component_server|dev/|proxy=|(undo-)?vibe|profiling|run-history)")
"""Functions of Gradio that this page has no control for."""
_LARGEST_CALL = 1 << 20


def refusal(function: Any, data: Any) -> str | None:
    """Say why a function of the page does not take these values; None where it does."""
    if not isinstance(data, list) or len(data) < len(function.inputs):
        return f"{len(function.inputs)} values are needed; see the page's list of functions."
    wrong = [one for one, value in zip(function.inputs, data, strict=False) if not _fits(one, value)]
    return f"{wrong[0].label}: this cannot be chosen or sent. Use what the page offers." if wrong else None


def _fits(component: Any, value: Any) -> bool:
    """Whether a value is of a component's kind; which models there are, the actions know."""
    if isinstance(component, gr.Dataset):
        return type(value) is int and 0 <= value < len(component.raw_samples or ())
    if isinstance(component, gr.Radio):
        return isinstance(value, str) and value in [name for _, name in component.choices]
    if isinstance(component, gr.Dropdown):
        return value is None or isinstance(value, str)
    if isinstance(component, gr.Image | gr.Video) and value is not None:
        if not isinstance(value, dict) or not isinstance(value.get("path"), str) or "\0" in value["path"]:
            return False
        try:
            component.data_model(**value)
        except (TypeError, ValueError):
            return False
    return True


class Gate:
    """An ASGI middleware in front of Gradio."""

    def __init__(self, app: Any, page: Any, root: Path, limits: Limits) -> None:
        self._app, self._page, self._root, self._limits = app, page, root, limits
        self._arriving: Counter[str] = Counter()  # requests that are not in the queue yet, by client

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or hand it on."""
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refused, call = self._refused(scope["path"]), _CALL.fullmatch(scope["path"])
        client = _client(scope)
        self._arriving[client] += call is not None
        try:
            if refused is None and call is not None and scope["method"] == "POST":
                body, receive = await _read(receive)
                refused = self._call_refused(call, body) or self._crowded(client)
            if refused is not None:
                shown = PlainTextResponse if call is None else _as_json
                await shown(refused[1], refused[0])(scope, receive, send)
                return
            await self._handed_on(scope, receive, send)
        finally:
            self._arriving[client] -= call is not None
            if not self._arriving[client]:
                del self._arriving[client]

    async def _handed_on(self, scope: Any, receive: Any, send: Any) -> None:
        """Let Gradio answer; where it refuses after it has begun to answer, the answer ends there."""
        from starlette.exceptions import HTTPException

        try:
            await self._app(scope, receive, send)
        except RuntimeError as error:
            if not isinstance(error.__cause__, HTTPException):
                raise
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _refused(self, path: str) -> tuple[int, str] | None:
        """Return status and sentence for an address that is not served."""
        if "\0" in path or _CLOSED.match(path):
            return 404, "There is nothing at this address."
        if re.search("/file[=/]https?:", path):  # Gradio has two forms of the address
            return 403, "Files of other hosts are not handed on."
        if path in _UPLOADS:
            try:
                self._limits.check_room(self._root)
            except InputError as error:
                return 507, str(error)
        return None

    def _call_refused(self, call: re.Match[str], body: bytes | None) -> tuple[int, str] | None:
        """Return status and sentence for a call of a function that is not there, or by values that it does not take."""
        if body is None:
            return 413, "This request is too large. Upload files first."
        try:
            asked = json.loads(body)
            index = asked.get("fn_index")
            index = None if index is None else int(index)
        except (ValueError, TypeError, AttributeError, RecursionError):
            return 422, "This is no call of a function; see the page's list of functions."
        named = (one for one in self._page.fns.values() if one.api_name == call[2])
        function = next(named, None) if index is None else self._page.fns.get(index)
        if function is None or function.fn is None:
            return 404, "There is no such function; see the page's list of functions."
        direct = call[1].startswith(("run/", "api/")) and not function.queue
        why = refusal(function, asked.get("data")) if direct else None
        return None if why is None else (422, why)

    def _crowded(self, client: str) -> tuple[int, str] | None:
        """Return status and sentence where a client has as many requests as it may."""
        waiting = sum(_client_of(event.request) == client for event in self._page.requests())
        if waiting + self._arriving[client] <= self._limits.of_one_address:
            return None
        return 503, f"At most {self._limits.of_one_address} requests of one address may wait. Try again later."


def _as_json(sentence: str, status: int) -> Any:
    from starlette.responses import JSONResponse

    return JSONResponse({"detail": sentence, "error": sentence}, status)


async def _read(receive: Any) -> tuple[bytes | None, Any]:
    """Return the body of a request, None where it is too large or breaks off, and what gives it to the next one."""
    parts: list[bytes] = []
    more = True
    while more and sum(map(len, parts)) <= _LARGEST_CALL:
        message = await receive()
        more = bool(message.get("more_body"))
        parts.append(message.get("body", b""))
        if message["type"] != "http.request":
            more = True
            break
    body = b"".join(parts)
    kept = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Any:
        return kept.pop() if kept else await receive()

    return (None if more or len(body) > _LARGEST_CALL else body), again


def _client(scope: Any) -> str:
    """Return the address that a request comes from; of IPv6, where one visitor has many, the first half."""
    host = (scope.get("client") or ("",))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return str(host)
    return str(ipaddress.ip_network((host, 64), strict=False)) if address.version == 6 else str(address)


def _client_of(request: Any) -> str:
    return _client(request.scope)
