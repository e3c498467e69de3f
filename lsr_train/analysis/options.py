"""Defines the options of `analyze` and `report`, figures and their captions. No torch here."""

import dataclasses
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from jsonargparse import ArgumentParser

from lsr_infer.errors import UsageError
from lsr_infer.text import printable
from lsr_train.config.command_line import parse
from lsr_train.config.data import Layout
from lsr_train.evaluation.options import EvaluateOptions

__all__ = ["CAPTIONS", "FIGURES", "FORMATS", "AnalyzeOptions", "ReportOptions", "analyze_options", "report_options"]

FIGURES = {
    "qualitative": "fig2_qualitative", "downsampling": "fig3b_downsampling", "shares": "fig4_class_shares",
    "norms": "fig5_norms_and_angles", "angles": "fig6_prototype_angles", "tsne": "fig7_tsne",
    "pseudo_labels": "pseudo_labels", "reliability": "reliability", "borders": "borders",
    "curves": "training_curves", "gradients": "gradient_norms",
}  # fmt: skip
"""Figures by the name `--figures` takes, and what their files are called."""

CAPTIONS = {
    "qualitative": "Frames, labels, and what each network predicts.",
    "downsampling": "Labels of feature cells: plain subsampling against the histogram of Sec. 3, which leaves a cell "
    "void where the second most frequent class has at least half as many of its pixels as the first.",
    "shares": "Share of each class among the labelled pixels, and among the labelled feature cells by both schemes.",
    "norms": "Norms (radius, logarithmic) and angles to the class's prototype (around the class's sector, scaled: 90° "
    "would fill four fifths of it; the side is random). Grey: median of the norms of this sample, balanced over "
    "classes, and the band that holds 95 % of them. A prototype is the mean over all labelled cells of its class.",
    "angles": "Mean angle of each prototype to all others; boxes are quartiles over classes. The feature vectors are "
    "not negative, so 90° is the most there can be.",
    "tsne": "t-SNE of the directions of feature vectors (norms taken out; 50 principal components; perplexity 30). "
    "Distances between clusters mean little.",
    "pseudo_labels": "Accuracy (of the cells that the network gave a class) and coverage (of the cells whose class it "
    "is, given any) of pseudo-labels, judged by the histogram labels of the truth.",
    "reliability": "Accuracy against confidence in 15 equal bins over all labelled pixels; ECE is the mean gap, "
    "weighted by pixels.",
    "borders": "Mean IoU of the pixels in each band of distance from the nearest place where the label changes, void "
    "included.",
    "curves": "What the run logged: loss terms, unweighted, as means over each interval of the log, and the latest "
    "value of each diagnostic.",
    "gradients": "Norm of each unweighted term's gradient on the backbone (log.gradients).",
}
"""By the name `analyze --figures` takes."""

FORMATS = ("pdf", "svg", "png")
_SWITCHES = {
    "over_training": "analyze every checkpoint that a run folder kept",
    "overwrite": "write over what is at --out",
    "json": "print the numbers behind the figures as JSON",
}


@dataclass(frozen=True, kw_only=True)
class AnalyzeOptions:
    """Which networks are analyzed, on what, and what is drawn.

    Args:
        data: folder of the labelled data set. Toytown needs none. Labels are read for the figures alone.
        layout: how that folder is arranged.
        split: a split by the layout's own name; empty means everything there is.
        ids: what the label files hold, or `auto` for what the layout's publisher wrote.
        image_suffix: what the names of image files end in after the part that labels share, such as _leftImg8bit.
        label_suffix: what the names of label files end in, such as _labelTrainIds.
        label_space: the classes, where a checkpoint names none: a name or a YAML file; `auto` is the checkpoint's own.
        limit: only the first so many images; 0 means all.
        frames: how many frames of them, evenly spread; 0 means all.
        ignore_mask: PNG whose non-zero pixels count as void in every image.
        on_bad: `stop` or `skip` over unusable files.
        dilations: of the classifier of a published .pth, whose names do not tell them, such as 6,12,18,24; empty takes
            6,12, which act in AdaptSegNet's code.
        height: rows fed to the network; 0 is the checkpoint's training size.
        width: columns fed to the network; 0 likewise.
        per_class: feature vectors of each class in the figures of norms, angles and t-SNE.
        confidence: T_p of pseudo-labels.
        pictures: how many frames the qualitative figure shows.
        figures: which, with commas; `all` is every one there are data for.
        formats: of the files, with commas: pdf, svg, png.
        over_training: analyze every checkpoint that a run folder kept, for pseudo-labels over training.
        out: folder of the figures, their captions and analysis.json.
        overwrite: write into a folder that is not empty.
        json: print the numbers behind the figures as JSON.
        device: auto, cpu, cuda or cuda:N.
        precision: of the network; `auto` is bf16 where the device is faster with it, else fp32.
        threads: CPU threads; 0 leaves torch's choice.
        seed: of the sample and of t-SNE.

    Raises:
        UsageError: a value is not allowed.
    """

    models: tuple[str, ...] = ()
    data: str = ""
    layout: Layout = "folder"
    split: str = ""
    ids: Literal["auto", "cityscapes-id", "cityscapes-trainid", "synthia-id", "classes"] = "auto"
    image_suffix: str = ""
    label_suffix: str = ""
    label_space: str = "auto"
    limit: int = 0
    frames: int = 0
    ignore_mask: str = ""
    on_bad: Literal["stop", "skip"] = "stop"
    dilations: str = ""
    height: int = 0
    width: int = 0
    per_class: int = 350
    confidence: float = 0.5
    pictures: int = 4
    figures: str = "all"
    formats: str = "pdf,png"
    over_training: bool = False
    out: str = "figures"
    overwrite: bool = False
    json: bool = False
    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    threads: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.models:
            raise UsageError(self.usage)
        if len(self.named) < len(self.models):
            raise UsageError("two networks would have one name. Name them: before=runs/source after=runs/lsr.")
        for name, value, low, high in (
            ("frames", self.frames, 0, 10**9), ("per_class", self.per_class, 1, 10**5),
            ("pictures", self.pictures, 1, 50), ("confidence", self.confidence, 0, 1), ("seed", self.seed, 0, 2**31),
        ):  # fmt: skip
            if not low <= value <= high:
                raise UsageError(f"{name} is {value}; allowed: {low} to {high}. Set --{name}.")
        for name, chosen, allowed in (
            ("figures", self.figure_names, tuple(FIGURES)), ("formats", self.format_names, FORMATS),
        ):  # fmt: skip
            wrong = [word for word in chosen if word not in allowed]
            if wrong or not chosen:
                shown = wrong[0] if wrong else "empty"
                raise UsageError(f"{name} has {shown}; allowed: {', '.join(allowed)}. Set --{name}.")
        if self.uses_labels:
            _ = self.scoring("-")

    @property
    def usage(self) -> str:
        """The message where no network is named."""
        return "no checkpoint is named. Usage: analyze [NAME=]RUN_OR_FILE… --data FOLDER [--layout LAYOUT]."

    @property
    def uses_labels(self) -> bool:
        """Whether networks are run on labelled frames."""
        return True

    @property
    def named(self) -> dict[str, Path]:
        """The networks by name; without one they are called as their folder or file."""
        found: dict[str, Path] = {}
        for text in self.models:
            name, equals, path = text.partition("=")
            if equals and name and "/" not in name:
                found[printable(name)] = Path(path)
            else:
                found[printable(Path(text).resolve().name)] = Path(text)
        return found

    @property
    def figure_names(self) -> tuple[str, ...]:
        """The figures that are asked for."""
        if self.figures == "all":
            return tuple(FIGURES)
        return tuple(word.strip() for word in self.figures.split(",") if word.strip())

    @property
    def format_names(self) -> tuple[str, ...]:
        """The kinds of files that are asked for."""
        return tuple(word.strip().lower() for word in self.formats.split(",") if word.strip())

    def scoring(self, model: str) -> EvaluateOptions:
        """Return the options by which `evaluate` would score a network."""
        mine = {item.name for item in dataclasses.fields(self)}
        shared = mine & {item.name for item in dataclasses.fields(EvaluateOptions)} - {"out", "overwrite", "json"}
        return EvaluateOptions(model=model, **{name: getattr(self, name) for name in shared})


@dataclass(frozen=True, kw_only=True)
class ReportOptions(AnalyzeOptions):
    """Which runs are shown side by side, and the labelled frames that their networks are run on.

    Args:
        data: folder of a labelled data set, for scores, figures and the worst frames. Without it, and without a Toytown
            layout, the page shows what the runs logged, and pictures of a table's networks on the frames it was scored
            on. Labels are read for the page alone.
        worst: how many of the frames on which the last run is worst are shown.
        out: the HTML file.
        overwrite: replace it.
    """

    worst: int = 6
    out: str = "report.html"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.worst <= 50:
            raise UsageError(f"worst is {self.worst}; allowed: 0 to 50. Set --worst.")

    @property
    def usage(self) -> str:
        """The message where no run is named."""
        return "no run is named. Usage: report [NAME=]RUN… [--data FOLDER [--layout LAYOUT]] --out report.html."

    @property
    def uses_labels(self) -> bool:
        """Whether networks are run on labelled frames."""
        return bool(self.data) or self.layout.startswith("toytown")


def analyze_options(argv: list[str]) -> AnalyzeOptions:
    """Read the command line of `analyze`; raises `UsageError`."""
    return _read(AnalyzeOptions, "analyze", "[NAME=]PATH: run folders or checkpoints", argv)


def report_options(argv: list[str]) -> ReportOptions:
    """Read the command line of `report`; raises `UsageError`."""
    hidden = {"figures", "formats", "over_training", "json", "pictures"}
    return _read(ReportOptions, "report", "[NAME=]RUN: run folders, and folders of `compare`", argv, hidden)


Options = TypeVar("Options", bound=AnalyzeOptions)


def _read(kind: type[Options], program: str, models: str, argv: list[str], hidden: Set[str] = frozenset()) -> Options:
    parser = ArgumentParser(prog=f"python -m lsr_train {program}", allow_abbrev=False, exit_on_error=False)
    parser.add_argument("models", nargs="*", default=[], help=models)
    parser.add_class_arguments(kind, as_group=False, skip={"models", *_SWITCHES, *hidden})
    for name, text in _SWITCHES.items():
        if name not in hidden:
            parser.add_argument(f"--{name}", action="store_true", help=text)
    namespace = parse(parser, argv)
    names = {item.name for item in dataclasses.fields(kind)} - hidden - {"models"}
    return kind(models=tuple(namespace.models), **{name: getattr(namespace, name) for name in names})
