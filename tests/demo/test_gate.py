"""Requests that no control of the page sends: each is refused with a sentence, and leaves no traceback in the log."""

import asyncio
import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.demo.conftest import STREET, Page

pytest.importorskip("gradio", reason="the extra demo is not installed")
client_errors = pytest.importorskip("gradio_client.exceptions")

NOWHERE = {"path": "/nowhere.jpg", "meta": {"_type": "gradio.FileData"}}


def asked(page: Page, path: str, body: Any = None) -> tuple[int, str]:
    """Return status and content of one request; a stream is read to the end of its first answer."""
    connection = http.client.HTTPConnection(page.address.removeprefix("http://"), timeout=30)
    content = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request("GET" if body is None else "POST", path, content, {"content-type": "application/json"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def called(page: Page, name: str, data: list[Any]) -> str:
    """Call a function as curl does, and return what it answers."""
    status, text = asked(page, f"/gradio_api/call/{name}", {"data": data})
    assert status == 200, text
    status, text = asked(page, f"/gradio_api/call/{name}/{json.loads(text)['event_id']}")
    assert status == 200
    return text


@pytest.mark.parametrize("query", ["__theme=dark&__theme=light", "view=api&view=x", "session_hash=a&session_hash=b"])
def test_a_key_of_a_query_may_be_repeated(page: Page, query: str) -> None:
    assert asked(page, f"/?{query}")[0] == 200
    assert asked(page, f"/config?{query}")[0] == 200
    status, text = asked(page, f"/gradio_api/call/segment_image?{query}", {"data": [None, "", "", "classes"]})
    assert status == 200, text
    assert asked(page, f"/gradio_api/queue/join?{query}", {"fn_index": 999, "data": [], "session_hash": "a"})[0] == 404


def test_what_is_no_function_is_not_called(page: Page) -> None:
    for index in (999, -1, 1 << 70):
        body = {"fn_index": index, "data": [], "session_hash": "a"}
        for path in ("queue/join", "run/predict", "api/predict"):
            status, text = asked(page, f"/gradio_api/{path}", body)
            assert (status, json.loads(text)["detail"][:26]) == (404, "There is no such function;"), path
    for path in ("call/none", "call/v2/none", "run/none", "api/none", "component_server", "vibe-edit", "file=%00"):
        assert asked(page, f"/gradio_api/{path}", {"data": []})[0] == 404, path
    for body in (b"{", b"", b"\xff", b"[]", b'"x"', b"[" * 100_000, {"fn_index": "x", "data": []}):
        assert asked(page, "/gradio_api/queue/join", body)[0] == 422, body[:9]
    assert asked(page, "/gradio_api/queue/join", {"data": ["x" * (1 << 20)]})[0] == 413
    assert asked(page, "/gradio_api/upload_progress?upload_id=none")[0] in (200, 404)


def test_functions_are_called_through_the_queue_alone(page: Page) -> None:
    assert asked(page, "/gradio_api/run/segment_image", {"data": [None, "", "", "classes"]})[0] == 404


@pytest.mark.parametrize(
    ("name", "data", "sentence"),
    [
        ("segment_image", [], "4 values are needed"),
        ("segment_image", [None], "4 values are needed"),
        ("segment_image", [None, None, None, "depth"], "View: this cannot be chosen or sent"),
        ("segment_image", [None, "", ["x"], "classes"], "After: this cannot be chosen or sent"),
        ("segment_image", [1, "", "", "classes"], "Your picture: this cannot be chosen or sent"),
        ("segment_image", [{"path": None}, "", "", "classes"], "Your picture: this cannot be chosen or sent"),
        ("segment_image", [{"path": "a\0b"}, "", "", "classes"], "addresses and paths are not accepted"),
        ("segment_image", [NOWHERE, "", "", "classes"], "addresses and paths are not accepted"),
        ("segment_video", [[NOWHERE], "", "", "every frame"], "addresses and paths are not accepted"),
        ("segment_video", [{"path": 3}, "", "", "every frame"], "Your clip: this cannot be chosen or sent"),
        ("compare", [], "3 values are needed"),
        ("models", [1, 2, 3], "event: complete"),
    ],
)
def test_wrong_values_get_a_sentence(page: Page, name: str, data: list[Any], sentence: str) -> None:
    assert sentence in called(page, name, data)


def test_a_choice_that_is_not_there_gets_a_sentence(page: Page, clip_of: Callable[[int], Path]) -> None:
    from gradio_client import handle_file

    client = page.client()
    for name, values, sentence in (
        ("/segment_image", {"image": STREET, "after": "<b>none</b>"}, "The model &lt;b&gt;none&lt;/b&gt; is not"),
        ("/segment_video", {"video": clip_of(12), "every": "every 3rd"}, "Frames: there is no choice every 3rd"),
    ):
        with pytest.raises(client_errors.AppError, match=sentence):
            client.predict(
                **{key: handle_file(value) if isinstance(value, Path) else value for key, value in values.items()},
                api_name=name,
            )


def test_a_point_outside_the_picture_is_none(page: Page) -> None:
    functions = json.loads(asked(page, "/config")[1])["dependencies"]
    (point,) = [one["id"] for one in functions if any(target[1] == "select" for target in one["targets"])]
    for place in (None, {}, {"index": "x"}, {"index": [1 << 40, -1]}, {"index": [None, 2]}):
        body = {"fn_index": point, "data": [None], "session_hash": "point", "event_data": place}
        assert asked(page, "/gradio_api/queue/join", body)[0] == 200
    status, text = asked(page, "/gradio_api/queue/data?session_hash=point")
    assert (status, text.count("process_completed"), text.count('"success":true')) == (200, 5, 5)


@pytest.fixture
def crowd(tmp_path: Path) -> Iterator[Callable[[str], int]]:
    """A gate whose page has a function and three requests of one address; called with an address, gives the status."""
    from gate import Gate
    from settings import Limits

    def request(host: str) -> Any:
        return SimpleNamespace(request=SimpleNamespace(scope={"client": (host, 1)}))

    waiting = [request("10.0.0.1"), request("10.0.0.1"), request("2001:db8::1")]
    function = SimpleNamespace(api_name="work", fn=print, queue=True, inputs=[])
    page = SimpleNamespace(fns={0: function}, requests=lambda: waiting)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    gate = Gate(app, page, tmp_path, Limits(client_queue=2))

    def ask(host: str) -> int:
        statuses: list[int] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": b'{"data": []}'}

        async def send(message: Any) -> None:
            statuses.extend([message["status"]] if "status" in message else [])

        scope = {"type": "http", "method": "POST", "path": "/gradio_api/call/work", "client": (host, 5), "headers": []}
        asyncio.run(gate(scope, receive, send))
        return statuses[0]

    yield ask
    assert not gate._arriving


def test_one_client_cannot_fill_the_queue_for_all(crowd: Callable[[str], int]) -> None:
    assert [crowd(host) for host in ("10.0.0.1", "10.0.0.2", "10.0.0.1")] == [503, 200, 503]
    assert crowd("2001:db8::ffff") == 200  # the second of its network
    assert crowd("") == 200
