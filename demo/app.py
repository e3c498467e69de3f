"""A page in the browser: pictures, clips and a camera through a network before and after adaptation, side by side.

    python demo/app.py                       # the demonstration networks that come with the package
    python demo/app.py --models exported/    # your own ONNX files and engines

Gradio's part stands here: tabs, choices, the API. What they do is in `lsr_infer.web`; no torch is needed.
"""

import argparse
import getpass
import importlib.util
import logging
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from lsr_infer.errors import DeviceError, LsrError, UsageError, exit_status, extra, stderr_handler
from lsr_infer.web.actions import NO_MODEL, Actions
from lsr_infer.web.elements import ON_INPUT, ON_VALUE, html_of
from lsr_infer.web.limits import Limits, file_size
from lsr_infer.web.passwords import Password, hash_password
from lsr_infer.web.requests import ModelChoice
from lsr_infer.web.server import ServerOptions, bound, is_loopback, own_folder, serve
from lsr_infer.web.service import Service
from lsr_infer.web.sessions import KEY_HEADER, Session
from lsr_infer.web.tables import model_table

logger = logging.getLogger("demo")

TITLE = "Road scenes before and after adaptation"
ORIGINAL = "Nothing: show the original"
_OTHER_CALLS = 64
"""Calls that compute nothing: a page that opens, a list of models."""
EVERY = {"Every frame": 1, "Every 2nd frame": 2, "Every 5th frame": 5, "Every 10th frame": 10}
QUIET: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
HEAD = """
<link rel="stylesheet" href="/lsr/static/style.css">
<script type="module" src="/lsr/static/main.js"></script>
"""
INTRO = """
<header class="lsr-head">
<h1>What adaptation changes</h1>
<p>A network that learned on a simulator, and the same network adapted to a camera without a single label of it.
Send a street photo or a clip, and move the divider.</p>
</header>
"""
PROGRAMS = """
### The same by program

```python
{code}
```

`result` holds for each model the classes with their shares and `mask_png`, a PNG of class indices in base64; of one
model alone also the milliseconds it took.
`model=` and `before=` take a `key` of `/models`; without them the model on the right is taken, alone.
`/segment_video` takes a clip (and `every=5` for one frame in five) and gives, last, where its results are:

```python
import httpx
done = client.predict(handle_file("drive.mp4"), before="{before}", api_name="/segment_video")
video = httpx.get("{address}" + done["video"], headers={{"{header}": done["key"]}}).content
```

Where the page asks for a password, it travels in a header of every request (the client's own `auth=` is for another
kind of login):

```python
import base64
secret = base64.b64encode(b"NAME:PASSWORD").decode()
client = Client("{address}", headers={{"Authorization": "Basic " + secret}})
```
"""
CODE = """from gradio_client import Client, handle_file
client = Client("{address}")
result = client.predict(handle_file("street.jpg"), api_name="/segment_image")"""


def build_page(service: Service, address: str) -> Any:
    """Return the page as Gradio's `Blocks`.

    Args:
        service: does the work.
        address: under which the page answers, for its lines about programs.
    """
    import gradio as gr

    actions = Actions(service)
    calls, parts = _calls(service, actions), _Parts(service, actions)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        parts.html(INTRO, "head")
        with gr.Tabs():
            with gr.Tab("Picture", id="picture"):
                of_picture = parts.pair("On the left", "On the right", optional=True)
                picture = parts.drop("image", "picture-drop")
                parts.tie(calls.picture, picture, of_picture, "lsr-viewer", "picture-viewer")
            with gr.Tab("Video", id="video"):
                of_video = parts.pair("On the left", "On the right", optional=True)
                every = gr.Dropdown(list(EVERY), value="Every frame", label="Frames taken")
                clip = parts.drop("video", "video-drop")
                parts.tie(calls.video, clip, [*of_video, every], "lsr-player", "video-player")
                with gr.Accordion("Camera stream", open=False):
                    live = parts.element("lsr-live", "camera", spread=True)
            with gr.Tab("Compare", id="compare"):
                gr.Markdown("Two models on one picture: where they differ, how long each takes, what is known of both.")
                of_both = parts.pair("One model", "The other", optional=False)
                parts.tie(calls.compare, parts.drop("image", "compare-drop"), of_both, "lsr-viewer", "compare-viewer")
                table = parts.html(actions.comparison(*[one.value for one in of_both]), "compare-table")
            with gr.Tab("Models", id="models"):
                listed = parts.html(model_table(service.catalogue.entries), "model-table")
                again = gr.Button("Look into the folder again", variant="secondary", scale=0)
            with gr.Tab("API", id="api"):
                gr.Markdown(_programs(address, actions.chosen(["?", "?"])[0]))
        parts.html(_footer(service.limits), "foot")
        dropdowns = [*of_picture, *of_video, *of_both]
        again.click(parts.look, dropdowns, [listed, *dropdowns], **QUIET)
        of_video[1].change(actions.camera, of_video[1], live, **QUIET)
        for dropdown in of_both:
            dropdown.change(actions.comparison, of_both, table, **QUIET)
        page.load(calls.arrive, **QUIET)
        page.load(parts.look, dropdowns, [listed, *dropdowns], **QUIET).then(actions.camera, of_video[1], live, **QUIET)
        page.unload(calls.leave)
        for name in ("segment_image", "segment_video", "models"):
            gr.events.api(getattr(calls, name), api_name=name, concurrency_limit=None)
    # Whoever waits in our own queue, which is fair and says how long it is, holds a place in Gradio's.
    waiting = 2 * (service.limits.queue + service.limits.jobs) + _OTHER_CALLS
    page.max_threads = waiting
    page.queue(default_concurrency_limit=None, api_open=False, max_size=2 * waiting)
    return page


@dataclass(frozen=True, kw_only=True)
class _Calls:
    """What Gradio calls: for the elements of the page, as pages come and go, and for programs by the same names."""

    picture: Callable[..., AsyncIterator[Any]]
    compare: Callable[..., AsyncIterator[Any]]
    video: Callable[..., AsyncIterator[Any]]
    arrive: Callable[..., None]
    leave: Callable[..., None]
    segment_image: Callable[..., Awaitable[dict[str, Any]]]
    segment_video: Callable[..., AsyncIterator[dict[str, Any]]]
    models: Callable[[], list[dict[str, Any]]]


def _calls(service: Service, actions: Actions) -> _Calls:
    """Return what Gradio calls with its request, which it gives to parameters annotated with its type."""
    import gradio as gr

    def session_of(request: gr.Request) -> Session | None:
        session = request.request.scope.get("lsr_session") if request.request is not None else None
        return session if isinstance(session, Session) else None

    def address_of(request: gr.Request) -> str:
        client = None if request.request is None else request.request.client
        return "" if client is None else str(client.host)

    async def picture(sent: Any, before: str, after: str, request: gr.Request) -> AsyncIterator[Any]:
        place = f"{request.session_hash} picture"
        async for document in actions.picture(session_of(request), place, sent, before, after):
            yield document

    async def compare(sent: Any, before: str, after: str, request: gr.Request) -> AsyncIterator[Any]:
        place = f"{request.session_hash} compare"
        async for document in actions.compare(session_of(request), place, sent, before, after):
            yield document

    async def video(sent: Any, before: str, after: str, every: str, request: gr.Request) -> AsyncIterator[Any]:
        place, step = f"{request.session_hash} video", EVERY.get(every, 1)
        async for document in actions.video(session_of(request), place, sent, before, after, step):
            yield document

    def arrive(request: gr.Request) -> None:
        session = session_of(request)
        if session is not None:
            session.enter(str(request.session_hash))

    def leave(request: gr.Request) -> None:
        session = session_of(request)
        if session is not None:
            service.sessions.leave(session, str(request.session_hash))

    async def segment_image(
        request: gr.Request, image: dict[str, Any], model: str = "", before: str = ""
    ) -> dict[str, Any]:
        """Segment a picture with one model, or with two."""
        try:
            return await actions.segment_image(image, model, before, address_of(request))
        except LsrError as error:
            raise gr.Error(str(error), print_exception=False) from error

    async def segment_video(
        request: gr.Request, video: dict[str, Any], model: str = "", before: str = "", every: int = 1
    ) -> AsyncIterator[dict[str, Any]]:
        """Segment a video with one model, or with two; gives how far it is, and last where the results are."""
        try:
            async for document in actions.segment_video(video, model, before, every, address_of(request)):
                yield document
        except LsrError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def models() -> list[dict[str, Any]]:
        """List the models that can be named."""
        return actions.models()

    return _Calls(
        picture=picture, compare=compare, video=video, arrive=arrive, leave=leave, segment_image=segment_image,
        segment_video=segment_video, models=models,
    )  # fmt: skip


class _Parts:
    """What the page is put together from, as Gradio's components; to be used within its `Blocks`."""

    def __init__(self, service: Service, actions: Actions) -> None:
        import gradio

        self._gradio = gradio
        self._service = service
        self._actions = actions
        self._optional: list[bool] = []  # of each dropdown of `pair`, whether it may stand for the original

    def html(self, html: str, name: str) -> Any:
        """Return HTML of our own, in our own style."""
        return self._gradio.HTML(html, apply_default_css=False, elem_id=name)

    def element(self, tag: str, name: str, *, spread: bool = False) -> Any:
        """Return an element that shows the component's value."""
        template = html_of(tag, {}, spread=spread)
        return self._gradio.HTML(html_template=template, js_on_load=ON_VALUE, apply_default_css=False, elem_id=name)

    def drop(self, kind: str, name: str) -> Any:
        """Return what takes a file, with the frames or clips of the package to try."""
        accept = "image/*" if kind == "image" else "video/*,.mkv,.avi,.ts,image/gif"
        attributes = {"kind": kind, "max-bytes": self._service.limits.upload_bytes, "accept": accept}
        tried = [one for one in self._service.examples.values() if one.kind == kind]
        return self._gradio.HTML(
            html_template=html_of("lsr-drop", attributes), js_on_load=ON_INPUT, apply_default_css=False, elem_id=name,
            examples=[{"key": one.key, "title": one.title, "url": f"/lsr/examples/{one.key}"} for one in tried],
        )  # fmt: skip

    def pair(self, left: str, right: str, *, optional: bool) -> list[Any]:
        """Return two dropdowns of models; where `optional`, the left one may stand for the original."""
        before, after = self._actions.chosen(["?", "?"])
        with self._gradio.Row():
            pair = [
                self._gradio.Dropdown(self._choices(optional=may_be_none), value=value, label=label, min_width=240)
                for label, value, may_be_none in (
                    (left, before if optional else before or after, optional),
                    (right, after, False),
                )
            ]
        self._optional += (optional, False)
        return pair

    def tie(self, function: Callable[..., Any], sent: Any, chosen: Sequence[Any], tag: str, name: str) -> None:
        """Let an element show what a function says of a file, once it comes and whenever something else is chosen."""
        inputs, shown = [sent, *chosen], self.element(tag, name)
        sent.submit(function, inputs, shown, trigger_mode="multiple", **QUIET)
        for dropdown in chosen:
            dropdown.input(function, inputs, shown, trigger_mode="multiple", **QUIET)

    def look(self, *keys: str) -> tuple[Any, ...]:
        """Look at the models again: the list of them, and every dropdown of `pair`, in order."""
        self._service.catalogue.refresh()
        updates = [
            self._gradio.Dropdown(choices=self._choices(optional=optional), value=key)
            for optional, key in zip(self._optional, self._actions.chosen(keys), strict=True)
        ]
        return model_table(self._service.catalogue.entries), *updates

    def _choices(self, *, optional: bool) -> list[tuple[str, str]]:
        good = [(entry.title, entry.key) for entry in self._service.catalogue.good()]
        return [(ORIGINAL, NO_MODEL), *good] if optional else good


def _programs(address: str, before: str) -> str:
    """Return what the page says about programs."""
    code = CODE.format(address=address)
    return PROGRAMS.format(code=code, address=address, before=before, header=KEY_HEADER)


def page_app(service: Service, address: str) -> Any:
    """Return the page with its own addresses as one application."""
    import gradio as gr
    from fastapi import FastAPI

    from lsr_infer.web.routes import page_routes

    app = FastAPI(routes=[*page_routes(service)], docs_url=None, redoc_url=None, openapi_url=None)
    return gr.mount_gradio_app(
        app, build_page(service, address), path="/", theme=_theme(), head=HEAD, footer_links=[], run_history=False,
        ssr_mode=False, enable_monitoring=False, pwa=False, mcp_server=False, show_error=True, allowed_paths=[],
    )  # fmt: skip


def _theme() -> Any:
    """Return quiet colours, and the fonts of the system alone."""
    from gradio import themes
    from gradio.themes.utils import fonts

    text = [fonts.Font(name) for name in ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")]
    code = [fonts.Font(name) for name in ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")]
    theme = themes.Default(primary_hue="teal", neutral_hue="slate", font=text, font_mono=code)
    # The theme's own button has white on it at a contrast of 2.5, its quiet text one of 2.6; WCAG AA wants 4.5.
    return theme.set(
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_600",
        block_label_text_color_dark="*neutral_300",
        block_title_text_color="*neutral_600",
        block_title_text_color_dark="*neutral_300",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
    )


def _footer(limits: Limits) -> str:
    return (
        f'<footer class="lsr-foot"><p>At most {file_size(limits.upload_bytes)}, {limits.seconds:g} s of video and '
        f"{limits.pixels / 1e6:.0f} million pixels a picture. Files stay on this server, only you can fetch them, and "
        f"they are removed when you close the page or after {limits.session_seconds / 60:g} minutes.</p></footer>"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo/app.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--models", type=Path, metavar="DIR", help="folder of exported models (.onnx, .engine)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; the default is this machine alone")
    parser.add_argument("--port", type=int, default=7860, help="port to listen at; 0 takes a free one")
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="the only names it may be asked for under"
    )
    parser.add_argument("--share", action="store_true", help="also open a public address through Gradio's servers")
    parser.add_argument("--auth", metavar="USER:FILE", help="ask for a name and a password; see --hash-password")
    parser.add_argument("--hash-password", action="store_true", help="ask for a password, print the line for FILE, end")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda:N")
    parser.add_argument("--backend", help="onnxruntime, openvino, tensorrt or tensorrt-rtx; the file's ending decides")
    parser.add_argument("--precision", help="arithmetic, where the backend lets one choose")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads of a network; 0: one a physical core")
    limits = parser.add_argument_group("limits, each refused with a sentence")
    for field in fields(Limits):
        kind = int if isinstance(field.default, int) else float
        limits.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default, metavar="N",
                            help=f"{_meaning(field.name)} ({field.default})")  # fmt: skip
    return parser


def _meaning(name: str) -> str:
    """Return what a limit is, from the docstring of `Limits`."""
    lines = (Limits.__doc__ or "").splitlines()
    found = next(line.split(":", 1)[1] for line in lines if line.strip().startswith(f"{name}:"))
    return found.strip().rstrip(".").replace("%", "%%")


def run(arguments: Sequence[str]) -> None:
    """Serve the page as the command line says.

    Raises:
        LsrError: the page cannot be started.
    """
    options = vars(_parser().parse_args(arguments))
    if options["hash_password"]:
        password = getpass.getpass("Password: ")
        if getpass.getpass("Once more: ") != password:
            raise UsageError("the two are not the same. Try again.")
        print(hash_password(password))  # noqa: T201 - what it is asked for
        return
    logging.basicConfig(level=logging.INFO, handlers=[stderr_handler()])
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a shell's background is not to be interrupted
        signal.signal(signal.SIGINT, _interrupt_once)
    signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))  # a closed terminal clears up, too
    logging.getLogger("httpx").setLevel(logging.WARNING)
    server = ServerOptions(
        models=options["models"],
        host=options["host"],
        port=options["port"],
        password=None if options["auth"] is None else Password.read(options["auth"]),
        hosts=tuple(options["allow_host"]),
        public=partial(_public_address, options["host"]) if options["share"] else None,
        model_options=ModelChoice(
            path=Path(), title="", device=options["device"], backend=options["backend"],
            precision=options["precision"], threads=options["threads"],
        ),
        limits=Limits(**{field.name: options[field.name] for field in fields(Limits)}),
    )  # fmt: skip
    if importlib.util.find_spec("gradio") is None:
        raise DeviceError(f"the page needs Gradio, which is not installed. {extra('demo')}")
    with bound(server.host, server.port) as listening, own_folder() as root:
        # Read by Gradio when it is imported: nobody is told that it runs, and it takes our files where they lie.
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "GRADIO_TEMP_DIR": str(root)}
        if not is_loopback(server.host):
            who = "with the password" if server.password else "WITHOUT a password"
            logger.warning(
                "everybody who reaches %s, port %d can use this page %s", server.host, listening.getsockname()[1], who
            )
        serve(server, listening, root, page_app)


def _interrupt_once(number: int, frame: FrameType | None) -> NoReturn:
    """Obey the first Ctrl-C alone: a second one would interrupt the clearing up, and take no time off it."""
    signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _public_address(host: str, port: int) -> str:
    """Let Gradio's servers lead a public address to a port here.

    Raises:
        DeviceError: they cannot be reached.
    """
    from gradio.networking import setup_tunnel

    try:
        return str(
            setup_tunnel("127.0.0.1" if host == "0.0.0.0" else host, port, secrets.token_urlsafe(32), None, None)
        )
    except Exception as error:
        raise DeviceError(f"--share: no public address could be opened ({error}). Start without it.") from error


def main() -> int:
    """Run the command line."""
    return exit_status(lambda: run(sys.argv[1:]))


if __name__ == "__main__":
    sys.exit(main())
