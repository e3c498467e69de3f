"""Defines the sections about data: sources, target, how they are read, and augmentation."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from math import inf
from typing import Any, ClassVar, Literal

from lsr_infer.errors import UsageError
from lsr_train.config.fields import check_fields

__all__ = [
    "AugmentConfig", "DataConfig", "LabelledConfig", "Layout", "MoreSourceConfig", "SourceConfig", "TargetConfig",
    "TargetLayout", "check_named", "check_one_size",
]  # fmt: skip

Layout = Literal["gta5", "synthia", "cityscapes", "camvid", "folder", "toytown-game", "toytown-camera"]
TargetLayout = Literal["frames", "gta5", "synthia", "cityscapes", "camvid", "folder", "toytown-game", "toytown-camera"]


@dataclass(frozen=True, kw_only=True)
class SourceConfig:
    """The labelled data set.

    Args:
        layout: how the folder is arranged. `folder` is images/ and labels/ matched by stem, with a classes.yaml.
        root: the folder, or its address in a store. Toytown needs none.
        split: a split by the layout's own name (`train`, `val`); empty means everything there is.
        ids: what the label files hold: `auto` (what the layout's publisher wrote), `cityscapes-id`,
            `cityscapes-trainid`, `synthia-id`, or `classes` (as classes.yaml or the label space has them).
        image_suffix: what the names of image files end in after the part that labels share, such as _leftImg8bit; files
            without it are left out.
        label_suffix: what the names of label files end in, such as _labelTrainIds, likewise.
        height: training height in pixels, before any crop.
        width: training width in pixels, before any crop.
        limit: use only the first so many images in name order; 0 means all. For Toytown: how many scenes there are.
        ignore_mask: PNG whose non-zero pixels count as void in every image, resized to each; empty means none.
        weight: how often images of this data set are drawn, relative to the weights of the others.
    """

    layout: Layout = "folder"
    root: str = ""
    split: str = ""
    ids: Literal["auto", "cityscapes-id", "cityscapes-trainid", "synthia-id", "classes"] = "auto"
    image_suffix: str = ""
    label_suffix: str = ""
    height: int = 512
    width: int = 1024
    limit: int = 0
    ignore_mask: str = ""
    weight: float = 1.0
    _section: ClassVar[str] = "data.source"
    _option: ClassVar[str] = "--source"
    _has_size: ClassVar[bool] = True  # else a height or width of 0 is that of another section

    def __post_init__(self) -> None:
        sizes = {side: (32 if self._has_size or getattr(self, side) else 0, 8192) for side in ("height", "width")}
        check_fields(self, self._section, **sizes, limit=(0, inf))
        if not 0 < self.weight < inf:
            raise UsageError(
                f"the weight of {self._option} {self.name} is {self.weight:g}; it must be a number above 0. Write "
                f"{self._option} {self.name}:WEIGHT."
            )

    @property
    def given(self) -> bool:
        """True where it is named, or is Toytown, which needs no folder."""
        return bool(self.root) or self.layout.startswith("toytown")

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return self.root or self.layout


@dataclass(frozen=True, kw_only=True)
class MoreSourceConfig(SourceConfig):
    """A further labelled data set beside `data.source`; a height or width of 0 is that of `data.source`."""

    height: int = 0
    width: int = 0
    _has_size: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class LabelledConfig(SourceConfig):
    """A few frames of the target itself, with labels; empty means none.

    They are no source: see `Method.labelled_terms`. A height or width of 0 is that of `data.target`, or of
    `data.source` where there is no target. `weight` is how often they are drawn, relative to the sources' weights.
    """

    height: int = 0
    width: int = 0
    _section: ClassVar[str] = "data.labelled"
    _option: ClassVar[str] = "--labelled"
    _has_size: ClassVar[bool] = False


@dataclass(frozen=True, kw_only=True)
class TargetConfig:
    """The unlabelled frames of the camera the network is for. There is no label field.

    Args:
        layout: `frames` is a folder (searched below), a glob or a video; the others find a data set's images.
        root: the folder, glob or video, or its address in a store. Empty means no target (plain source-only training).
            Toytown needs none.
        split: a split by the layout's own name; empty means everything there is.
        height: training height in pixels, before any crop.
        width: training width in pixels, before any crop.
        limit: use only so many frames, evenly spread; 0 means all. For Toytown: how many scenes there are.
        seconds: spacing of the frames that are taken from a video, in seconds.
        static: frames of a video whose mean absolute grey difference from the last kept one is below this many of 255
            levels are left out, so that a standing car does not fill the set; 0 keeps all.
        ignore_top: share of a frame's rows at the upper border that never count, such as a rectification's black rim.
        ignore_bottom: the same at the lower border, such as the car's own hood.
    """

    layout: TargetLayout = "frames"
    root: str = ""
    split: str = ""
    height: int = 512
    width: int = 1024
    limit: int = 0
    seconds: float = 0.5
    static: float = 2.0
    ignore_top: float = 0.0
    ignore_bottom: float = 0.0

    def __post_init__(self) -> None:
        check_fields(
            self, "data.target", height=(32, 8192), width=(32, 8192), limit=(0, inf), seconds=(0, inf), static=(0, 255),
            ignore_top=(0, 1), ignore_bottom=(0, 1),
        )  # fmt: skip
        if self.ignore_top + self.ignore_bottom >= 1:
            raise UsageError(
                f"data.target.ignore_top {self.ignore_top} and ignore_bottom {self.ignore_bottom} leave no row. "
                "Set smaller shares."
            )

    @property
    def given(self) -> bool:
        """True where there are target frames at all."""
        return bool(self.root) or self.layout.startswith("toytown")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What is read, and how.

    Args:
        source: the labelled simulator.
        more_sources: further labelled data sets, each with the fields of `source`; batches are mixed by weight.
        target: the unlabelled footage.
        labelled: a few labelled frames of the target.
        batch_size: images of each domain in a step, over all processes.
        workers: loader processes for each domain, one for each core at most; 0 loads in the training process. No result
            depends on it.
        on_bad: `stop` lists every unusable file and ends with exit code 4; `skip` leaves them out, counts and says so.
        ignore_mask: PNG whose non-zero pixels of the target camera never count (the car's own hood, burnt-in text).
    """

    source: SourceConfig = field(default_factory=SourceConfig)
    more_sources: tuple[MoreSourceConfig, ...] = ()
    target: TargetConfig = field(default_factory=TargetConfig)
    labelled: LabelledConfig = field(default_factory=LabelledConfig)
    batch_size: int = 1
    workers: int = 2
    on_bad: Literal["stop", "skip"] = "stop"
    ignore_mask: str = ""

    def __post_init__(self) -> None:
        check_fields(self, "data", batch_size=(1, inf), workers=(0, 256))
        if not all(isinstance(item, MoreSourceConfig) for item in self.more_sources):
            raise UsageError("data.more_sources holds something else than sources. Set it in a recipe, or by --source.")
        _check_apart(self.sources, self.labelled)

    @property
    def sources(self) -> tuple[SourceConfig, ...]:
        """Every labelled data set that batches are drawn from, each with its own size."""
        first = self.source
        sized = (
            {**_values(item), "height": item.height or first.height, "width": item.width or first.width}
            for item in self.more_sources
        )
        return first, *(SourceConfig(**values) for values in sized)

    @property
    def labelled_frames(self) -> SourceConfig | None:
        """The labelled frames of the target with their own size; None where there are none."""
        if not self.labelled.given:
            return None
        own, size = self.labelled, self.target if self.target.given else self.source
        return SourceConfig(**{**_values(own), "height": own.height or size.height, "width": own.width or size.width})

    @property
    def labelled_share(self) -> float:
        """How much the labelled frames of the target count beside the sources, which count 1 together; 0 without."""
        return self.labelled.weight / sum(source.weight for source in self.sources) if self.labelled.given else 0.0

    @property
    def labelled_batch(self) -> int:
        """Labelled frames of the target in a step, over all processes: one at least; 0 where there are none."""
        return max(1, round(self.batch_size * self.labelled_share)) if self.labelled.given else 0


def check_named(data: DataConfig) -> None:
    """Raise unless every labelled source is named."""
    if not data.source.given:
        raise UsageError("no labelled source is named. Set --data.source.root (or --source).")
    for number, source in enumerate(data.more_sources, 2):
        if not source.given:
            raise UsageError(f"source {number} is not named. Name it by one more --source, or set its root.")


def _values(section: Any) -> dict[str, Any]:
    return {item.name: getattr(section, item.name) for item in fields(section)}


def _check_apart(sources: Iterable[SourceConfig], labelled: LabelledConfig) -> None:
    """Raise where two labelled data sets have images in common; splits of one folder may both be there."""
    splits: dict[str, list[str]] = {}
    for source in (*sources, labelled):
        place = os.path.realpath(source.root) if source.root else source.layout
        others = splits.setdefault(place, [])
        if source.given and others and (not source.split or {"", source.split} & {*others}):
            if source is labelled:
                raise UsageError(f"{source.name} is a source, and --labelled, which is for frames of the target.")
            raise UsageError(f"{source.name} is named as a source twice. Name it once, with a larger weight.")
        others.append(source.split)


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """What happens to an image between the file and the batch. 0 switches a part off.

    Args:
        crop_height: height of the random crop that is trained on; 0 means the whole image.
        crop_width: width of the random crop; 0 means the whole image.
        flip: probability of a left-right flip.
        scale_min: smallest factor of random resizing; a crop always stays inside the image.
        scale_max: largest factor of random resizing.
        white_point: each channel's white, 255, is U(255 - v, 255 + v) instead (paper, Sec. 5: 75).
        jitter: each channel is shifted by U(-v, v) levels (paper, Sec. 5: 25).
        brightness: factor 1 + U(-v, v).
        contrast: factor 1 + U(-v, v) about the image's mean.
        saturation: factor 1 + U(-v, v) of the distance from grey.
        hue: turn of the hue by U(-v, v) degrees.
        blur: probability of a Gaussian blur.
        blur_sigma: largest standard deviation of the blur, in pixels.
        noise: largest standard deviation of Gaussian noise, in levels.
        target_colors: whether colours, blur and noise change target images too. The released code changes the source
            alone; self-training changes what its student sees by `strong`.
        lab_transfer: probability that a source image takes mean and spread of its LAB channels from a random
            unlabelled target frame.
        rare_class_temperature: source images are drawn by class with probability softmax((1 - frequency) / T); 0 draws
            them evenly.
    """

    crop_height: int = 0
    crop_width: int = 0
    flip: float = 0.5
    scale_min: float = 1.0
    scale_max: float = 1.0
    white_point: float = 0.0
    jitter: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    blur: float = 0.0
    blur_sigma: float = 1.0
    noise: float = 0.0
    target_colors: bool = False
    lab_transfer: float = 0.0
    rare_class_temperature: float = 0.0

    def __post_init__(self) -> None:
        shares = dict.fromkeys(("flip", "blur", "lab_transfer", "brightness", "contrast", "saturation"), (0, 1))
        levels = dict.fromkeys(("jitter", "noise"), (0, 255)) | {"white_point": (0, 254)}
        check_fields(
            self, "augment", **shares, **levels, hue=(0, 180), blur_sigma=(0, 20), rare_class_temperature=(0, inf),
            scale_min=(0.1, 10), scale_max=(self.scale_min, 10), crop_height=(0, 8192), crop_width=(0, 8192),
        )  # fmt: skip
        if bool(self.crop_height) != bool(self.crop_width):
            raise UsageError("augment.crop_height and augment.crop_width go together; set both or neither.")
        if self.scale_max != self.scale_min and not self.crop_height:
            raise UsageError("augment.scale_min/scale_max give images of several sizes; set augment.crop_height too.")

    def without_colors(self) -> "AugmentConfig":
        """Return what is left of it without colours, blur and noise: flip, scale and crop."""
        colors = ("white_point", "jitter", "brightness", "contrast", "saturation", "hue", "blur", "noise")
        nothing: dict[str, Any] = dict.fromkeys(colors, 0.0)
        return replace(self, **nothing)


def check_one_size(data: DataConfig, augment: AugmentConfig, why: str) -> None:
    """Raise unless images of both domains leave the loader at one size; `why` says what asks for that."""
    source, target = data.source, data.target
    two_sizes = target.given and (source.height, source.width) != (target.height, target.width)
    if two_sizes and not augment.crop_height:
        raise UsageError(
            f"{why}, and they are of two sizes. Set the same --data.source.height and .width as "
            "--data.target.height and .width, or a crop by --augment.crop_height and --augment.crop_width."
        )
    few = data.labelled_frames
    if few is not None and (few.height, few.width) != (target.height, target.width) and not augment.crop_height:
        raise UsageError(
            f"{why}, and labelled frames are of another size. Leave --data.labelled.height and .width out."
        )
