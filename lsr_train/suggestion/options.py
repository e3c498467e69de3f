"""Reads and checks the options of `suggest`, without torch."""

import dataclasses
from dataclasses import dataclass
from math import inf
from typing import Literal

from jsonargparse import ArgumentParser

from lsr_infer.errors import UsageError
from lsr_train.config.command_line import parse
from lsr_train.config.data import TargetConfig, TargetLayout
from lsr_train.config.fields import check_fields, whole_numbers

__all__ = ["SuggestOptions", "suggest_options"]


@dataclass(frozen=True, kw_only=True)
class SuggestOptions:
    """Which network is asked, about which footage, and what is written.

    Args:
        model: a run folder (its selected checkpoint, else its last), or a .safetensors or .pth file.
        target: folder, glob or video of the camera. Toytown needs none.
        count: how many frames are suggested.
        out: the folder to make.
        format: `folder` has images/ and labels/, `cvat` the layout of its "Segmentation mask 1.1".
        apart: seconds by which two frames of one video lie apart at least.
        frames: how many frames are looked at, evenly spread; 0 means all.
        target_layout: how the footage is arranged.
        target_split: a split of it by the layout's own name; empty means everything there is.
        target_seconds: spacing of the frames that are looked at in a video, in seconds.
        target_static: frames that differ from the one before by less, in levels of 255, are left out.
        target_ignore_top: share of a frame's rows at the upper border that is not looked at.
        target_ignore_bottom: the same at the lower border, such as the car's own hood.
        ignore_mask: PNG whose non-zero pixels are not looked at, and void in the labels.
        on_bad: `stop` or `skip` over unusable files.
        label_space: the classes, where a checkpoint names none: a name or a YAML file; `auto` is the checkpoint's own.
        dilations: of the classifier of a published .pth, whose names do not tell them, such as 6,12,18,24; empty takes
            6,12, which act in AdaptSegNet's code.
        height: rows fed to the network; 0 is the checkpoint's training size.
        width: columns fed to the network; 0 likewise.
        device: auto, cpu, cuda or cuda:N.
        precision: of the network; `auto` is bf16 where the device computes it itself, else fp32.
        threads: CPU threads; 0 leaves torch's choice.

    Raises:
        UsageError: a value is not allowed.
    """

    model: str = ""
    target: str = ""
    count: int = 20
    out: str = ""
    format: Literal["folder", "cvat"] = "folder"
    apart: float = 2.0
    frames: int = 1000
    target_layout: TargetLayout = "frames"
    target_split: str = ""
    target_seconds: float = 0.5
    target_static: float = 2.0
    target_ignore_top: float = 0.0
    target_ignore_bottom: float = 0.0
    ignore_mask: str = ""
    on_bad: Literal["stop", "skip"] = "stop"
    label_space: str = "auto"
    dilations: str = ""
    height: int = 0
    width: int = 0
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    threads: int = 0

    def __post_init__(self) -> None:
        usage = "Usage: suggest RUN --target FOOTAGE -n 20 --out FOLDER."
        if not self.model:
            raise UsageError(f"no network is named. {usage}")
        if not self.out:
            raise UsageError(f"no folder is named for the suggestions. {usage}")
        if not self.target and not self.target_layout.startswith("toytown"):
            raise UsageError(f"no footage is named. {usage}")
        sides = {"height": (32, 8192), "width": (32, 8192)} if self.height or self.width else {}
        check_fields(self, "", count=(1, 10_000), apart=(0, inf), frames=(0, 10**6), threads=(0, 1024), **sides)
        _ = self.branches, self.footage(512, 1024)

    @property
    def branches(self) -> tuple[int, ...] | None:
        """The dilations as numbers; None where none are stated."""
        return whole_numbers("dilations", self.dilations)

    def footage(self, height: int, width: int) -> TargetConfig:
        """Return the footage as a configuration names it, at the size that is fed."""
        mine = {item.name: getattr(self, f"target_{item.name}", None) for item in dataclasses.fields(TargetConfig)}
        stated = {name: value for name, value in mine.items() if value is not None}
        return TargetConfig(**stated, root=self.target, height=height, width=width, limit=self.frames)


def suggest_options(argv: list[str]) -> SuggestOptions:
    """Read the command line of `suggest`; raises `UsageError`."""
    parser = ArgumentParser(prog="python -m lsr_train suggest", allow_abbrev=False, exit_on_error=False)
    parser.add_argument("model", nargs="?", default="", help="a run folder, or a .safetensors or .pth file")
    parser.add_argument("-n", "--count", type=int, default=SuggestOptions.count, help="how many frames are suggested")
    parser.add_class_arguments(SuggestOptions, as_group=False, skip={"model", "count"})
    namespace = parse(parser, argv)
    names = [item.name for item in dataclasses.fields(SuggestOptions)]
    return SuggestOptions(**{name: getattr(namespace, name) for name in names})
