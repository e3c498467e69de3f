"""Where the results of sources go: one plan for all of them, in which no result meets another one or what is read."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from lsr_infer.errors import UsageError
from lsr_infer.io.sources import Source
from lsr_infer.render.draw import Drawing

__all__ = ["Outputs", "plan_all", "plan_outputs"]

Outputs = Mapping[str, Path]
"""Where the results of one source go, by kind."""


def plan_outputs(source: Source, folder: Path | None, drawing: Drawing) -> Outputs:
    """Name the results of a source; without a folder there are none."""
    if folder is None:
        return {}
    base = folder / source.name
    image = source.kind == "image"
    endings = {
        "overlay": f"_{'side_by_side' if drawing.captions else 'overlay'}{'.jpg' if image else '.mp4'}",
        "mask": "_mask.png" if image else "_mask.mkv" if drawing.lossless else "_mask",
        "confidence": "_confidence.png" if image else "_confidence",
        "json": "_classes.jsonl",
    }
    return {kind: base.with_name(f"{base.name}{endings[kind]}") for kind in endings if kind in drawing.save}


def plan_all(
    sources: Sequence[Source], folder: Path | None, drawing: Drawing, *, inputs: Sequence[Path] = ()
) -> dict[Source, Outputs]:
    """Name the results of all sources; none equals another or lies inside it.

    A video's folder of masks may bear the name of a folder in which other results lie, `clip_mask/` for instance. The
    video is then numbered: `clip_2_mask/`. The same sources always get the same names.

    Args:
        sources: all of them, in order.
        folder: where the results go, None for nowhere.
        drawing: which results there are.
        inputs: what is read besides the sources, such as the models.

    Raises:
        UsageError: a result would take the place of a source or of one of `inputs`, or of a folder that holds it.
    """
    if folder is None:
        return {source: {} for source in sources}
    # Every result lies directly in one of these; as long as none bears the name of one, none lies inside another.
    taken = {folder / parent for source in sources for parent in source.name.parents}
    plans: dict[Source, Outputs] = {}
    for source in sources:
        outputs, number = plan_outputs(source, folder, drawing), 1
        while not taken.isdisjoint(outputs.values()):
            number += 1
            name = source.name.with_name(f"{source.name.name}_{number}")
            outputs = plan_outputs(replace(source, name=name), folder, drawing)
        taken.update(outputs.values())
        plans[source] = outputs
    _keep_inputs(plans, inputs)
    return plans


def _keep_inputs(plans: Mapping[Source, Outputs], inputs: Sequence[Path]) -> None:
    """Raise where a result bears the name of what is read, or of a folder that holds it, links followed or not."""
    real = cache(os.path.realpath)

    def names(path: Path) -> set[str]:
        """Return a path as it is written, and where it leads if it is a link."""
        return {os.path.join(real(path.parent), path.name), *([real(path)] if os.path.islink(path) else [])}

    owners: dict[str, str] = {}
    read = [(source.place, f"the source {source.label}") for source in plans if isinstance(source.place, Path)]
    for path, what in read + [(path, str(path)) for path in inputs]:
        for place in names(path):
            while place not in owners and place != os.path.dirname(place):
                owners[place] = what
                place = os.path.dirname(place)
    for source, outputs in plans.items():
        for path in outputs.values():
            for place in names(path):
                if place in owners:
                    raise UsageError(
                        f"{path} would be a result of {source.label} and is, or holds, {owners[place]}, which is read. "
                        "Choose another --output."
                    )
