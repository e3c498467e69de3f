"""One HTML page that needs nothing but itself: text, tables, figures and pictures are in it.

Its Content-Security-Policy forbids the browser every request, so that a mistake here would show instead of leaking.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import resources

from lsr_train.evaluation.result import Table

__all__ = ["Fold", "Frame", "Page", "Picture", "Section", "data_uri", "render"]


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture in the page.

    Args:
        title: its name.
        uri: the picture itself, as `data_uri` makes it.
        caption: below it.
    """

    title: str
    uri: str
    caption: str = ""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """A frame as layers of one size, two of which are shown on either side of a slider.

    Args:
        title: below it.
        layers: what can be shown.
        left: which one is on the left at first.
        right: on the right.
    """

    title: str
    layers: Sequence[Picture]
    left: int
    right: int


@dataclass(frozen=True, kw_only=True)
class Fold:
    """A long text that is folded away.

    Args:
        title: always shown.
        text: as it is.
    """

    title: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page, in the order of its fields.

    Args:
        key: its address within the page.
        title: above it.
        text: paragraphs.
        tables: with the best and second cells marked.
        figures: beside each other where there is room.
        frames: with sliders.
        folds: long texts.
    """

    key: str
    title: str
    text: Sequence[str] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Picture] = ()
    frames: Sequence[Frame] = ()
    folds: Sequence[Fold] = ()


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page.

    Args:
        title: of it.
        subtitle: below.
        left_out: one line for each thing that is not in it.
        sections: its parts.
    """

    title: str
    subtitle: str
    left_out: Sequence[str] = ()
    sections: Sequence[Section] = field(default_factory=tuple)


def data_uri(data: bytes, kind: str) -> str:
    """Return a file as an address that holds it.

    Args:
        data: the file.
        kind: its media type, such as image/png.
    """
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


def render(page: Page) -> str:
    """Return the page as HTML; every text in it is escaped."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    text = (resources.files("lsr_train.report") / "page.html").read_text(encoding="utf-8")
    return environment.from_string(text).render(page=page)
