"""At which size frames enter a network: the model's own, another one, a share of the frame's, or tiles of it.

Light to import, because a command line is checked against it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lsr_infer.errors import InputError, UsageError

if TYPE_CHECKING:
    from lsr_infer.manifest import Manifest
    from lsr_infer.pipeline.tiles import Tiling

__all__ = ["WorkingSize"]


@dataclass(frozen=True, kw_only=True)
class WorkingSize:
    """At which size frames enter the network; nothing set means what its Manifest says.

    Args:
        size: (height, width) for every frame.
        stride: one of so many pixels along each side of a frame.
        tile: (height, width) of overlapping tiles at the frame's own resolution; `auto` takes the Manifest's size.
    """

    size: tuple[int, int] | None = None
    stride: int | None = None
    tile: tuple[int, int] | Literal["auto"] | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in (self.size, self.stride, self.tile)) > 1:
            raise UsageError("--size, --stride and --tile each set the working size; take one of them.")
        if self.stride is not None and self.stride < 1:
            raise UsageError(f"--stride is {self.stride}; allowed: 1 or more.")

    def check(self, manifest: "Manifest") -> None:
        """Raise unless a model can work at this size.

        Raises:
            UsageError: it cannot; says what it can.
        """
        if self.stride is not None and manifest.fixed_size:
            raise UsageError(
                f"--stride: the model takes {manifest.width}x{manifest.height} alone. Export a graph of free size."
            )
        for name, wanted in (("--size", self.size), ("--tile", self.tile)):
            if wanted is None or wanted == "auto":
                continue
            try:
                manifest.check_size(*wanted)
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from error

    def of(self, manifest: "Manifest", height: int, width: int) -> tuple[int, int] | None:
        """Return (rows, columns) for a frame, None for the Manifest's own rule.

        Raises:
            InputError: the model does not take a frame of this size at this stride.
        """
        if self.stride is None:
            return self.size
        size = manifest.rounded_size(height / self.stride, width / self.stride)
        try:
            manifest.check_size(*size)
        except UsageError as error:
            raise InputError(
                f"a frame of {width}x{height} at --stride {self.stride}: {error} Take another --stride, or --size."
            ) from error
        return size

    def tiling(self, manifest: "Manifest") -> "Tiling | None":
        """Return how frames are cut, None where they are not."""
        if self.tile is None:
            return None
        from lsr_infer.pipeline.tiles import Tiling

        height, width = (manifest.height, manifest.width) if self.tile == "auto" else self.tile
        return Tiling(height, width)
