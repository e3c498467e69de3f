"""Writes the results of `make gpu-check` into docs/gpu.md.

    python docs/gpu_page.py runs/gpu-check/gpu-check.json

A dry run is refused: it says nothing about a GPU.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

PAGE = Path(__file__).with_name("gpu.md")
BEGIN, END = "<!-- results: written by docs/gpu_page.py -->", "<!-- end of results -->"
OF_MACHINE = {
    "gpu": "card", "compute_capability": "compute capability", "memory_gib": "memory, GiB", "driver": "driver",
    "cuda": "CUDA of torch", "cudnn": "cuDNN of torch", "cores": "CPU cores",
}  # fmt: skip
TITLES = {
    "train bf16": "Training in bf16", "train fp16": "Training in fp16", "memory bf16": "A step of GTA5's size in bf16",
    "memory fp32": "A step of GTA5's size in fp32", "two processes": "Two processes on the card",
    "parity": "ONNX Runtime on CUDA against the CPU", "latency": "Latency at 1024x512", "tensorrt": "TensorRT",
}  # fmt: skip


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(header: list[str], rows: list[list[object]]) -> Iterator[str]:
    yield ""
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    yield from (f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _figures(result: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of a step's figures: a row for each part, or one in all; what is no table stands before it."""
    parts = {name: part for name, part in result.items() if isinstance(part, dict) and part}
    rest = {name: value for name, value in result.items() if not isinstance(value, dict | list)}
    if parts:
        if rest:
            yield ""
            yield ", ".join(f"{name}: {_cell(value)}" for name, value in rest.items())
        names = list(dict.fromkeys(key.replace("_", " ") for part in parts.values() for key in part))
        shown = [{key.replace("_", " "): value for key, value in part.items()} for part in parts.values()]
        rows = [[name, *(part.get(key, "") for key in names)] for name, part in zip(parts, shown, strict=True)]
        yield from _table(["", *names], rows)
    elif rest:
        yield from _table([name.replace("_", " ") for name in rest], [list(rest.values())])


def lines(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield the Markdown of a check's results."""
    machine, steps = document["machine"], document["steps"]
    yield f"Run on {document['started']}, {document['seconds']:.0f} seconds in all."
    rows = [[title, machine[name]] for name, title in OF_MACHINE.items() if machine.get(name)]
    rows += [[name, value] for name, value in machine.items() if name not in OF_MACHINE]
    yield from _table(["", ""], rows)
    told = [[step["name"], step["state"], step.get("seconds", ""), step.get("reason", step["about"])] for step in steps]
    yield from _table(["step", "state", "seconds", ""], told)
    for step in steps:
        if step["name"] in TITLES and step.get("result"):
            yield ""
            yield f"### {TITLES[step['name']]}"
            yield from _figures(step["result"])


def fill(page: str, document: Mapping[str, Any]) -> str:
    """Return the page with results in the place between its marks; raises `ValueError` for those of a dry run."""
    if document.get("kind") != "gpu-check" or document["dry"]:
        raise ValueError(
            "these are no results of a GPU. Run `make gpu-check` on a machine that has one, without DRY=1."
        )
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join((f"{before}{BEGIN}", "", *lines(document), "", f"{END}{after}"))


def main() -> None:
    """Fill the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="gpu-check.json")
    options = parser.parse_args()
    try:
        document = json.loads(options.results.read_text(encoding="utf-8"))
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), document), encoding="utf-8")
    except (OSError, ValueError) as error:
        sys.exit(f"error: {options.results}: {error}")


if __name__ == "__main__":
    main()
