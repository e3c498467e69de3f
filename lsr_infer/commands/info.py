"""`lsr-infer info MODEL`: what a model file says about itself."""

import json
from collections.abc import Sequence
from pathlib import Path

from lsr_infer.arguments import ArgumentParser

__all__ = ["main"]


def main(words: Sequence[str]) -> None:
    """Run the command; raises `LsrError`."""
    parser = ArgumentParser("lsr-infer info", "Show what a model says about itself.")
    parser.add_argument("model", type=Path, metavar="MODEL")
    model = parser.parse_args(words).model
    from lsr_infer.segmenter import Segmenter

    with Segmenter(model, device="cpu", threads=1) as segmenter:
        print(json.dumps(json.loads(segmenter.manifest.to_json()), indent=2, ensure_ascii=False))  # noqa: T201 - the result
