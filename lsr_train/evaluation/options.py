"""Reads and checks the options of `evaluate`, without torch."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

from jsonargparse import ArgumentParser

from lsr_infer.errors import UsageError
from lsr_train.config.command_line import parse
from lsr_train.config.data import Layout, TargetLayout
from lsr_train.config.fields import check_fields, whole_numbers

__all__ = ["EvaluateOptions", "evaluate_options"]

_SWITCHES = ("flip", "overwrite", "json")


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What is scored, on what, and how.

    Args:
        model: a .safetensors or .pth file, a run folder (its selected checkpoint, else its last), or an exported
            .onnx or .engine, which is scored by the runtime that ships it.
        data: folder of the labelled data set. Toytown needs none.
        layout: how that folder is arranged.
        split: a split by the layout's own name; empty means everything there is.
        ids: what the label files hold, or `auto` for what the layout's publisher wrote.
        image_suffix: what the names of image files end in after the part that labels share, such as _leftImg8bit.
        label_suffix: what the names of label files end in, such as _labelTrainIds.
        label_space: classes to score in: a name, a YAML file, or `auto` for the checkpoint's own.
        limit: only the first so many images; 0 means all.
        ignore_mask: PNG whose non-zero pixels count as void in every image.
        on_bad: `stop` or `skip` over unusable files.
        dilations: of the classifier of a published .pth, whose names do not tell them, such as 6,12,18,24; empty takes
            6,12, which act in AdaptSegNet's code.
        protocol: `native` upsamples the logits to the labels' own size, `resized` resizes the labels to the fed size.
        height: rows fed to the network; 0 is the checkpoint's training size (512 for foreign files), and for an
            exported file its own rule.
        width: columns fed to the network; 0 likewise (1024 for foreign files).
        scales: factors of that size whose softmax is averaged, such as 0.75,1,1.25.
        flip: also predict each scale mirrored.
        supervised: result of target-supervised training (evaluate --out), for mASR.
        batch_norm: `stored` uses the checkpoint's statistics; `target` re-estimates them on unlabelled target frames.
        batch_norm_frames: how many of them.
        target: folder, glob or video of those frames.
        target_layout: how they are arranged.
        target_split: split of the target by the layout's own name; empty means everything there is.
        out: JSON file for the result; empty writes none.
        overlays: how many of the worst frames to draw.
        overlay_dir: folder for these pictures.
        overwrite: replace what is at `out` and in `overlay_dir`.
        json: print the result as JSON instead of a table.
        device: auto, cpu, cuda or cuda:N.
        precision: of the network; `auto` is bf16 where the device is faster with it, else fp32.
        threads: CPU threads; 0 leaves torch's choice.

    Raises:
        UsageError: a value or a combination is not allowed.
    """

    model: str = ""
    data: str = ""
    layout: Layout = "folder"
    split: str = ""
    ids: Literal["auto", "cityscapes-id", "cityscapes-trainid", "synthia-id", "classes"] = "auto"
    image_suffix: str = ""
    label_suffix: str = ""
    label_space: str = "auto"
    limit: int = 0
    ignore_mask: str = ""
    on_bad: Literal["stop", "skip"] = "stop"
    dilations: str = ""
    protocol: Literal["native", "resized"] = "native"
    height: int = 0
    width: int = 0
    scales: str = "1"
    flip: bool = False
    supervised: str = ""
    batch_norm: Literal["stored", "target"] = "stored"
    batch_norm_frames: int = 160
    target: str = ""
    target_layout: TargetLayout = "frames"
    target_split: str = ""
    out: str = ""
    overlays: int = 0
    overlay_dir: str = ""
    overwrite: bool = False
    json: bool = False
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    threads: int = 0

    def __post_init__(self) -> None:
        if not self.model:
            raise UsageError("no model is named. Usage: evaluate MODEL --data FOLDER [--layout LAYOUT].")
        sides = {"height": (32, 8192), "width": (32, 8192)} if self.height or self.width else {}
        check_fields(
            self, "", limit=(0, 10**9), overlays=(0, 10_000), threads=(0, 1024), batch_norm_frames=(1, 10**6), **sides
        )
        if not self.data and not self.layout.startswith("toytown"):
            raise UsageError(f"layout {self.layout} needs the folder of the labelled data set. Set --data.")
        if bool(self.overlays) != bool(self.overlay_dir):
            raise UsageError("overlays are so many pictures in a folder. Set both --overlays and --overlay_dir.")
        if self.batch_norm == "target" and not self.target and not self.target_layout.startswith("toytown"):
            raise UsageError("batch_norm target needs unlabelled target frames. Set --target.")
        _ = self.factors, self.branches

    @property
    def branches(self) -> tuple[int, ...] | None:
        """The dilations as numbers; None where none are stated."""
        return whole_numbers("dilations", self.dilations)

    @property
    def factors(self) -> tuple[float, ...]:
        """The scales as numbers."""
        try:
            factors = tuple(float(word) for word in self.scales.strip("[]() ").split(","))
        except ValueError as error:
            raise UsageError(f"scales is {self.scales!r}; numbers with commas are needed, such as 0.75,1.") from error
        if not all(math.isfinite(factor) and 0.1 <= factor <= 8 for factor in factors):
            raise UsageError(f"scales is {self.scales!r}; allowed: 0.1 to 8 each. Set --scales.")
        return factors


def evaluate_options(arguments: list[str]) -> EvaluateOptions:
    """Read a command line; raises `UsageError` where a word or a value is not allowed."""
    parser = ArgumentParser(prog="python -m lsr_train evaluate", allow_abbrev=False, exit_on_error=False)
    parser.add_argument(
        "model", type=str, nargs="?", default="", help="a .safetensors, .pth, .onnx or .engine file, or a run folder"
    )
    parser.add_class_arguments(EvaluateOptions, as_group=False, skip={"model", *_SWITCHES})
    parser.add_argument("--flip", action="store_true", help="also predict each scale mirrored")
    parser.add_argument("--overwrite", action="store_true", help="replace what is at --out and in --overlay_dir")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")
    namespace = parse(parser, arguments)
    values = {item.name: getattr(namespace, item.name) for item in dataclasses.fields(EvaluateOptions)}
    return EvaluateOptions(**values)
