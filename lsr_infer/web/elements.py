"""The page's own elements as templates for a Gradio component: what Python says reaches them, what users do comes back.

The elements themselves are plain scripts in `static/`; this only writes the lines that tie them to a component.
"""

from collections.abc import Mapping
from html import escape
from typing import Any

__all__ = ["ON_INPUT", "ON_VALUE", "html_of"]

ON_VALUE = """
const show = () => {
  const own = element.querySelector("[data-lsr]");
  if (!own) return;
  const value = props.value || null; // Gradio's empty value is ""
  Object.assign(own, own.dataset.lsr === "spread" ? (value ?? {}) : { data: value });
  const phase = ["waiting", "busy"].includes(value?.state) ? "at work" : value?.state;
  if (phase !== own.lsrShown) {
    if (phase === "done" || phase === "at work") own.scrollIntoView({ block: "start" });
    else if (phase === "error") own.scrollIntoView({ block: "nearest" });
  }
  own.lsrShown = phase;
};
show();
watch("value", show);
"""
"""The component's value becomes the element's `data`, or, for one marked `spread`, each of its properties.

What has just begun, come or failed is scrolled to, since it lies below what was asked for.
"""

ON_INPUT = """
const own = element.querySelector("[data-lsr]");
if (props.examples) own.examples = props.examples;
element.addEventListener("lsr-input", (event) => { props.value = event.detail; trigger("submit"); });
"""
"""What the element's event `lsr-input` says becomes the component's value, and its event `submit` follows."""


def html_of(tag: str, attributes: Mapping[str, Any], *, spread: bool = False) -> str:
    """Return an element as HTML, safe within Gradio's templates, which read `${…}` and `{{…}}`.

    Args:
        tag: of the element, such as `lsr-viewer`.
        attributes: of the element.
        spread: see `ON_VALUE`.
    """
    marked = {**attributes, "data-lsr": "spread" if spread else "data"}
    words = [tag, *(f'{name}="{_plain(str(value))}"' for name, value in marked.items())]
    return f"<{' '.join(words)}></{tag}>"


def _plain(text: str) -> str:
    return escape(text).replace("$", "&#36;").replace("{", "&#123;").replace("}", "&#125;")
