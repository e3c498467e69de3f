"""Builds the page out of Gradio's components: tabs, selectors, examples, and which action each control calls."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from gradio import themes
from gradio.themes.utils import fonts

import lsr_infer
from actions import (
    CANCELLED,
    COMPARES,
    EVERY,
    MODEL_HEADERS,
    NO_CLIP_YET,
    NOTHING_YET,
    ORIGINAL,
    SHARE_HEADERS,
    VIEWS,
    Actions,
)
from gate import refusal
from settings import Catalogue, Limits, file_size

__all__ = ["TITLE", "Page", "build_page", "theme"]

TITLE = "Road scenes before and after adaptation"
_HEAD = (
    "<h1>What adaptation changes</h1><p>A network trained on a simulator, and adapted to a camera without labels.</p>"
)
_PICTURE: dict[str, Any] = {"type": "filepath", "sources": ["upload", "webcam", "clipboard"], "height": 200}
_EXAMPLES = Path(lsr_infer.__file__).parent / "models"
_API = """
Every function of this page can be called from a program. On a wide screen, **Use via API** at the foot of the page
lists them with their arguments, for Python, JavaScript and curl.

```python
from gradio_client import Client, handle_file

client = Client("http://127.0.0.1:7860")  # the address of this page; auth=("name", "password") where it asks for one
result = client.predict(handle_file("street.jpg"), api_name="/segment_image")
```
"""
# preprocess=False: a worker process opens the files, and models that were added later are on none of Gradio's lists.
_QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "preprocess": False}


class Page(gr.Blocks):
    """Blocks that accept files of the cache alone: no address, which the server would fetch, and no other path."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *rest: Any, **options: Any) -> Any:
        """Refuse a request that names another file, or has wrong values, before Gradio opens or fetches anything."""
        if not all(self._holds(path) for path in _paths(inputs)):
            raise gr.Error("Upload the file: addresses and paths are not accepted.", print_exception=False)
        if why := refusal(block_fn, inputs):
            raise gr.Error(why, print_exception=False)
        return await super().preprocess_data(block_fn, inputs, *rest, **options)

    def _holds(self, path: str) -> bool:
        """Whether a path leads into the cache."""
        try:
            return Path(path).resolve().is_relative_to(self.GRADIO_CACHE)
        except (OSError, ValueError):  # no path at all
            return False

    def folders_in_use(self) -> set[Path]:
        """Return the folders of the files that waiting and running requests name."""
        return {Path(path).parent for event in self.requests() if event.data for path in _paths(event.data.data)}

    def requests(self) -> list[Any]:
        """Return the requests that wait or run."""
        waiting = [list(one.queue) for one in list(self._queue.event_queue_per_concurrency_id.values())]
        return [event for some in (*waiting, *self._queue.active_jobs) for event in some or ()]


def _paths(value: Any) -> Iterator[str]:
    """Find the files in the arguments of a request, however deep."""
    rest = [value]
    while rest:
        part = rest.pop()
        if isinstance(part, dict) and isinstance(part.get("path"), str):
            yield part["path"]
        rest.extend(part.values() if isinstance(part, dict) else part if isinstance(part, list) else ())


def theme() -> Any:
    """Return quiet colours and the fonts of the system alone."""
    text = [fonts.Font(name) for name in ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")]
    code = [fonts.Font(name) for name in ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")]
    sizes: dict[str, Any] = {"spacing_size": themes.sizes.spacing_sm, "text_size": themes.sizes.text_sm}
    return themes.Default(primary_hue="teal", neutral_hue="slate", font=text, font_mono=code, **sizes)


def build_page(actions: Actions, catalogue: Catalogue, limits: Limits) -> Page:
    """Return the page."""
    with Page(title=TITLE, analytics_enabled=False) as page:
        with gr.Row(elem_id="top"):
            gr.HTML(_HEAD, elem_id="head")
            models = _selectors(actions, catalogue)
        with gr.Tabs():
            with gr.Tab("Picture", id="picture"):
                _picture_tab(actions, models)
            with gr.Tab("Video", id="video"):
                _video_tab(actions, models, limits)
            with gr.Tab("Compare", id="compare"):
                _compare_tab(actions, models)
            with gr.Tab("Models", id="models"):
                listed = gr.Dataframe(
                    actions.model_rows(), headers=MODEL_HEADERS, interactive=False, wrap=True, show_label=False,
                    column_widths=["14%", "15%", "24%", "9%", "11%", "9%", "12%", "6%"], buttons=[],
                    elem_id="model-table",
                )  # fmt: skip
                again = gr.Button("Refresh the list", size="md", scale=0)
            with gr.Tab("API", id="api"):
                gr.Markdown(_API)
        gr.Markdown(_footer(limits), elem_id="foot")
        before, after, banner = models
        gr.on([page.load, again.click], actions.refresh, [before, after], [before, after, banner, listed], **_QUIET)
        page.unload(actions.leave)
        gr.events.api(actions.model_rows, api_name="models")
    page.queue(max_size=limits.queue, default_concurrency_limit=8, api_open=False)
    return page  # type: ignore[no-any-return]


def _selectors(actions: Actions, catalogue: Catalogue) -> list[Any]:
    """Add the banner and the pair of models that all tabs use."""
    before, after = catalogue.defaults()
    choices = [(entry.choice.title, entry.key) for entry in catalogue.usable()]
    left = gr.Dropdown([("the original picture", ORIGINAL), *choices], value=before, label="Before", min_width=140,
                       elem_id="before")  # fmt: skip
    right = gr.Dropdown(choices, value=after, label="After", min_width=140, elem_id="after")
    banner = gr.HTML(actions.banner(before, after), elem_id="banner")
    gr.on([left.input, right.input], actions.banner, [left, right], banner, **_QUIET)
    return [left, right, banner]


def _picture_tab(actions: Actions, models: list[Any]) -> None:
    result = gr.State()
    with gr.Row(elem_classes="viewer"):
        with gr.Column(scale=4, min_width=300, elem_classes="side"):
            image = gr.Image(**_PICTURE, label="Your picture", buttons=["fullscreen"], elem_id="picture-input")
            point = gr.Markdown("", elem_id="point", latex_delimiters=[])
            _examples(image, "street/images/*.jpg", "toytown/images/camera_*.jpg")
            shares = gr.Dataframe(
                headers=SHARE_HEADERS, datatype=["html", "str", "str", "str"], interactive=False, elem_id="shares",
                column_widths=["34px", "45%", "25%", "25%"], buttons=[], show_label=False, max_height=292,
            )  # fmt: skip
        with gr.Column(scale=10, min_width=340, elem_classes="result"):
            slider = gr.ImageSlider(label="Before | after", interactive=False, max_height=480, elem_id="slider",
                                    buttons=["fullscreen"])  # fmt: skip
            facts = gr.Markdown(NOTHING_YET, elem_id="facts", latex_delimiters=[])
            view = gr.Radio(VIEWS, value="classes", label="View", container=False, elem_id="view")
            downloads = _downloads("Overlay", "Mask", "Shares", "All (ZIP)")
    inputs, outputs = [image, *models[:2], view], [slider, facts, shares, *downloads, result, point]
    running = gr.on([image.change, models[0].input, models[1].input], actions.picture, inputs, outputs,
                    api_name="segment_image", concurrency_limit=1, concurrency_id="picture", trigger_mode="always_last",
                    show_progress_on=slider, preprocess=False)  # fmt: skip
    _enable(running.then, result, downloads)
    view.input(actions.view, [result, view], [slider, facts], api_visibility="private", concurrency_id="picture",
               trigger_mode="always_last", show_progress="minimal")  # fmt: skip
    image.select(actions.point, result, point, **_QUIET)


def _video_tab(actions: Actions, models: list[Any], limits: Limits) -> None:
    with gr.Row(elem_classes="viewer"):
        with gr.Column(scale=4, min_width=300, elem_classes="side"):
            video = gr.Video(sources=["upload"], label="Your clip", height=210, elem_id="video-input")
            every = gr.Dropdown(list(EVERY), value="every frame", label="Frames", elem_id="every")
            with gr.Row():
                run = gr.Button("Segment", variant="primary", size="md", min_width=120, interactive=False)
                cancel = gr.Button("Cancel", size="md", min_width=120, interactive=False)
            _examples(video, "street/clips/*.mp4", "toytown/clips/*.mp4")
        with gr.Column(scale=10, min_width=340, elem_classes="result"):
            shown = gr.Video(show_label=False, interactive=False, autoplay=True, elem_id="video-result")
            facts = gr.Markdown(NO_CLIP_YET, elem_id="video-facts", latex_delimiters=[])
            plot = gr.LinePlot(x="seconds", y="share", color="class", y_title="share, %",
                               x_title="seconds", height=300, show_label=False, elem_id="plot", buttons=[])  # fmt: skip
            downloads = _downloads("Clip", "Masks (ZIP)", "Shares (CSV)")
    gr.on([video.change, run.click], actions.announce, video, facts, queue=False, **_QUIET)
    running = gr.on([video.change, run.click], actions.clip, [video, *models[:2], every],
                    [shown, facts, plot, *downloads], api_name="segment_video", concurrency_limit=limits.jobs,
                    concurrency_id="video", trigger_mode="always_last", show_progress_on=shown,
                    preprocess=False)  # fmt: skip
    _enable(video.change, video, [run, cancel])
    _enable(running.then, shown, downloads)
    running.failure(actions.after_failure, [video, facts], facts, queue=False, **_QUIET)
    cancel.click(lambda: CANCELLED, None, facts, cancels=[running], queue=False, **_QUIET)


def _compare_tab(actions: Actions, models: list[Any]) -> None:
    with gr.Row(elem_classes="viewer"):
        with gr.Column(scale=4, min_width=300, elem_classes="side"):
            image = gr.Image(**_PICTURE, label="Picture", elem_id="compare-input")
            _examples(image, "street/images/*.jpg", "toytown/images/camera_*.jpg")
            run = gr.Button("Compare the two models", variant="primary", size="md", interactive=False)
        with gr.Column(scale=10, min_width=340, elem_classes="result"):
            facts = gr.Markdown(COMPARES, latex_delimiters=[])
            difference = gr.Image(label="In colour: where the two differ, as the right one says", interactive=False,
                                  height=300, buttons=["fullscreen"], elem_id="difference")  # fmt: skip
            table = gr.Dataframe(headers=["", "before", "after"], column_widths=["26%", "37%", "37%"],
                                 interactive=False, wrap=True, show_label=False, buttons=[],
                                 elem_id="comparison")  # fmt: skip
    gr.on([image.change, run.click], actions.compare, [image, *models[:2]], [facts, difference, table],
          api_name="compare", concurrency_id="picture", show_progress_on=difference, preprocess=False)  # fmt: skip
    _enable(image.change, image, [run])


def _examples(component: Any, *patterns: str) -> None:
    """Add some of the package's files to choose from."""
    files = [[str(path)] for pattern in patterns for path in sorted(_EXAMPLES.glob(pattern))[:3]]
    if files:
        name = f"{component.elem_id}-examples"
        gr.Examples(files, component, label="Examples", api_visibility="private", elem_id=name)


def _downloads(*labels: str) -> list[Any]:
    """Add a row of buttons, which can be pressed once there is a result."""
    with gr.Row(elem_classes="downloads"):
        return [gr.DownloadButton(label, size="sm", min_width=90, interactive=False) for label in labels]


def _enable(event: Any, needed: Any, buttons: list[Any]) -> None:
    """Let buttons be pressed while the component that they work on holds something."""

    def update(value: Any) -> Any:
        changed = [gr.update(interactive=bool(value)) for _ in buttons]
        return changed if len(buttons) > 1 else changed[0]

    event(update, needed, buttons, queue=False, **_QUIET)


def _footer(limits: Limits) -> str:
    return (
        f"At most {file_size(limits.upload_bytes)}, {limits.pixels / 1e6:.0f} million pixels a picture and "
        f"{limits.seconds:g} s of video. Files stay on this server and are deleted after "
        f"{limits.session_seconds / 60:g} minutes; until then, whoever knows the address of a file can open it."
    )
