"""Runs `lsr-infer SOURCE…`: segments images, videos and live sources with an exported model."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lsr_infer.commands.parser import ArgumentParser, add_network_options, named, parse_size
from lsr_infer.pipeline.options import SegmentOptions, Selection, WorkingSize
from lsr_infer.shipped import DEFAULT_MODEL, shipped_models

__all__ = [
    "add_frame_options", "add_kinds", "add_looks", "add_model", "add_working_size", "main", "read_kinds",
    "read_options", "read_selection", "read_working_size",
]  # fmt: skip

_MODEL_SUFFIXES = (".onnx", ".engine")
_OUTPUT = Path("segmented")
_SELECTION = ("start", "duration", "every", "fps", "max_frames")


def main(argv: Sequence[str]) -> None:
    """Run the command; raises `LsrError`."""
    options = read_options(argv)
    from lsr_infer.pipeline.execute import segment_sources

    segment_sources(options)


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        "lsr-infer",
        "SOURCE... [options]",
        "Segment road scenes: images, videos and live streams in, overlays and masks out.\n\n"
        "Other commands: lsr-infer info MODEL shows what a model file says about itself, bench MODEL\n"
        "how fast it is here, serve-config MODEL writes a Triton model repository, archive SOURCE... does\n"
        "many clips on a cluster.",
        examples=(
            "lsr-infer drive.mp4 --model model.onnx --output results",
            "lsr-infer rtsp://camera/front -m model.onnx -o results --save overlay,json --duration 60",
        ),
        notes="Exit codes: 0 done, 2 usage, 3 device, 4 input, model or place unusable, 6 partly done, "
        "130 interrupted.",
    )
    add = parser.section("input")
    add("sources", nargs="*", metavar="SOURCE", common=True, help="image, video, folder, pattern (of "
        "s3://, gs://, az:// too), rtsp:// or http:// stream, camera (0 or camera:0); several at once")  # fmt: skip
    add_model(add)
    add("--timeout", type=float, default=10.0, metavar="S", help="an address or camera that is silent for S seconds "
        "is lost (10)")  # fmt: skip
    add("--reconnects", type=int, default=5, metavar="N", help="attempts in a row to get a stream back (5)")
    add = parser.section("results")
    add("-o", "--output", type=named, metavar="DIR", common=True, help=f"folder of the results, of a store too "
        f"({_OUTPUT}; none with --show)")  # fmt: skip
    add_kinds(add)
    add("--side-by-side", nargs="?", const="", metavar="OTHER.onnx", common=True,
        help="on the left: the frame, or another model's overlay")  # fmt: skip
    add_looks(add)
    add("--overwrite", action="store_true", common=True, help="replace existing results")
    add("--show", action="store_true", common=True, help="open a window; q ends")
    add("--json", action="store_true", common=True, help="put one JSON document on stdout")
    add_frame_options(parser.section("frames"))
    add_working_size(parser.section("network"))
    return parser


def add_model(add: Callable[..., None]) -> None:
    """Add the option that names the network."""
    add("-m", "--model", type=named, metavar="MODEL", common=True, help="exported model, or a shipped one by name: "
        f"{', '.join(shipped_models())} ({DEFAULT_MODEL})")  # fmt: skip


def add_kinds(add: Callable[..., None]) -> None:
    """Add the option that says what is kept."""
    add("--save", default="overlay", metavar="KINDS", common=True, help="overlay (JPEG or H.264), mask (PNG), "
        "confidence (PNG, probability x 255), json (class shares), with commas (overlay)")  # fmt: skip


def add_looks(add: Callable[..., None]) -> None:
    """Add the options that say what results look like."""
    add("--alpha", type=float, default=0.5, metavar="SHARE", help="share of the colour, 0 to 1 (0.5)")
    add("--legend", choices=("auto", "on", "off"), default="auto", help="the classes' names below: on, off, or below "
        "pictures and videos side by side (auto)")  # fmt: skip
    add("--lossless", action="store_true", help="masks of a video as one FFV1 .mkv instead of PNGs")
    add("--mask-ids", default="train", metavar="IDS", help="numbers in masks: train, or cityscapes label ids (train)")
    add("--ignore-mask", type=named, metavar="PNG", help="show nothing where this image is not black")


def add_frame_options(add: Callable[..., None]) -> None:
    """Add the options that say which frames are taken; `read_selection` reads them."""
    add("--start", type=float, metavar="S", common=True, help="skip the first S seconds; results begin at 0")
    add("--duration", type=float, metavar="S", common=True, help="take S seconds")
    add("--every", type=int, default=1, metavar="N", help="take one of N frames (1)")
    add("--fps", type=float, metavar="F", help="take at most F frames a second")
    add("--max-frames", type=int, metavar="N", common=True, help="take at most N frames of each video and stream")


def add_working_size(add: Callable[..., None]) -> None:
    """Add the options that say on what a model runs, and at which size; `read_working_size` reads the latter."""
    add_network_options(add)
    add("--stride", type=int, metavar="N", help="work at 1/N of each frame's own size")
    add("--tile", metavar="WxH", help="work at the frame's own resolution in overlapping tiles, blended; auto takes "
        "tiles of the model's size")  # fmt: skip


def read_selection(values: dict[str, Any]) -> Selection:
    """Take which frames are meant out of the values of a command line."""
    return Selection(**{name: values.pop(name) for name in _SELECTION})


def read_working_size(values: dict[str, Any]) -> WorkingSize:
    """Take the size at which frames enter the network out of the values of a command line."""
    size, tile = values.pop("size"), values.pop("tile")
    return WorkingSize(
        size=None if size is None else parse_size(size),
        stride=values.pop("stride"),
        tile=tile if tile in (None, "auto") else parse_size(tile),
    )


def read_kinds(values: dict[str, Any]) -> frozenset[str]:
    """Take what is kept out of the values of a command line."""
    return frozenset(word for word in values.pop("save").split(",") if word)


def read_options(argv: Sequence[str]) -> SegmentOptions:
    """Turn the command line into `SegmentOptions`."""
    parser = _parser()
    values = vars(parser.parse_args(argv))
    sources = list(values.pop("sources"))
    beside = values.pop("side_by_side")
    is_model = Path(beside or "").suffix.lower() in _MODEL_SUFFIXES or beside in shipped_models()
    other = named(beside) if beside and is_model and (Path(beside).suffix or not Path(beside).exists()) else None
    if beside and other is None:  # the argument after a bare --side-by-side is the first source
        sources.insert(0, beside)
    if not sources:
        parser.error("name at least one image, video, folder, pattern, stream or camera")
    if values["output"] is None and not values["show"]:
        values["output"] = _OUTPUT
    return SegmentOptions(
        sources=tuple(sources),
        compare=beside is not None,
        other=other,
        save=read_kinds(values),
        selection=read_selection(values),
        working=read_working_size(values),
        **values,
    )
