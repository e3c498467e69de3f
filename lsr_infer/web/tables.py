"""What is known of models, as tables for the page. Every text in them comes from a file and is escaped."""

from collections.abc import Callable, Sequence
from html import escape

from lsr_infer.manifest import Manifest
from lsr_infer.web.limits import file_size
from lsr_infer.web.models import Entry

__all__ = ["comparison_table", "model_table"]

_UNKNOWN = "not stated"
_WORDS = (
    '<p class="lsr-note">Parity: what the exported file says, against the trained network (its checkpoint) on the same '
    "frames. A pixel is clear where the checkpoint prefers its best class to the next one by a margin.</p>"
)


def model_table(entries: Sequence[Entry]) -> str:
    """List the models on offer, and those that cannot be chosen with the reason."""
    if not entries:
        return '<p class="lsr-note">There is no model here. Export one with export/to_onnx.py into the folder.</p>'
    return f'<div class="lsr-cards">{"".join(map(_card, entries))}</div>{_WORDS}'


def comparison_table(entries: Sequence[Entry]) -> str:
    """Put what is known of models side by side: scores, parity, where they run."""
    known = [entry for entry in entries if entry.manifest is not None]
    if not known:
        return ""
    manifests = [entry.manifest for entry in known if entry.manifest is not None]
    rows: list[tuple[str, list[str]]] = [(label, [show(manifest) for manifest in manifests]) for label, show in _FACTS]
    names = sorted({name for manifest in manifests for name in manifest.scores})
    rows += [(_score_title(name), [_score(manifest, name) for manifest in manifests]) for name in names]
    rows += [("Runs on", [f"{entry.device}, {entry.backend}" for entry in known])]
    head = "".join(f'<th scope="col">{escape(entry.title)}</th>' for entry in known)
    body = "".join(
        f'<tr><th scope="row">{escape(label)}</th>{"".join(f"<td>{escape(value)}</td>" for value in values)}</tr>'
        for label, values in rows
    )
    return (
        '<div class="lsr-table-scroll" tabindex="0" role="region" aria-label="What is known of both models">'
        f'<table class="lsr-table"><caption class="lsr-visually-hidden">What is known of both models</caption>'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{body}</tbody></table></div>{_WORDS}"
    )


def _card(entry: Entry) -> str:
    """Return one model of the list."""
    badge = '<span class="lsr-badge">comes with the package</span>' if entry.shipped else ""
    head = f'<h3>{escape(entry.title)} {badge}</h3><p class="lsr-note">{escape(entry.path.name)}</p>'
    if entry.problem:
        text = f'<p class="lsr-problem"><strong>Cannot be chosen.</strong> {escape(entry.problem)}</p>'
        return f'<article class="lsr-card lsr-card-bad">{head}{text}</article>'
    assert entry.manifest is not None
    facts = [
        ("Runs on", f"{entry.device}, {entry.backend}, {entry.precision}"),
        ("Size", file_size(entry.size)),
        *((label, show(entry.manifest)) for label, show in _FACTS),
        *((_score_title(name), _score(entry.manifest, name)) for name in sorted(entry.manifest.scores)),
    ]
    body = "".join(f"<div><dt>{escape(label)}</dt><dd>{escape(value)}</dd></div>" for label, value in facts)
    use = f'<p class="lsr-note">{escape(entry.manifest.intended_use)}</p>' if entry.manifest.intended_use else ""
    return f'<article class="lsr-card">{head}<dl class="lsr-facts">{body}</dl>{use}</article>'


def _parity(manifest: Manifest) -> str:
    """Say how the file compares with the checkpoint it was made from."""
    parity = manifest.parity
    if parity is None:
        return "not compared"
    text = f"the same class at {100 * parity.agreement:.2f} % of the pixels of {parity.frames} frames"
    if parity.clear_agreement is None:
        return text
    return f"{text}, {100 * parity.clear_agreement:.2f} % of the clear ones"


def _parity_miou(manifest: Manifest) -> str:
    """Say what the file and its checkpoint score on the labelled frames of that comparison."""
    parity = manifest.parity
    if parity is None or parity.miou is None or parity.miou_reference is None:
        return _UNKNOWN
    return f"{100 * parity.miou:.1f} % (checkpoint {100 * parity.miou_reference:.1f} %), {parity.frames_from}"


def _teacher(manifest: Manifest) -> str:
    """Say whose student a network is."""
    teacher = manifest.teacher
    return "none" if teacher is None else f"{teacher.method}, SHA-256 {teacher.sha256[:12]} …"


_FACTS: tuple[tuple[str, Callable[[Manifest], str]], ...] = (
    ("Method", lambda manifest: manifest.method or _UNKNOWN),
    ("Classes", lambda manifest: f"{manifest.label_space.num_classes} ({manifest.label_space.name})"),
    ("Made for", lambda manifest: f"{manifest.width} x {manifest.height}"),
    ("Precision", lambda manifest: manifest.precision),
    ("Parity", _parity),
    ("mIoU on the parity frames", _parity_miou),
    ("Teacher", _teacher),
)
"""What a Manifest says, as label and text."""


def _score_title(name: str) -> str:
    """Say what a score is; the label-free ones rank networks and are no accuracy."""
    words = name.replace("_", " ")
    return f"{words.removeprefix('label free ')} (without labels)" if words.startswith("label free") else words


def _score(manifest: Manifest, name: str) -> str:
    value = manifest.scores.get(name)
    return _UNKNOWN if value is None else f"{value:.4g}"
