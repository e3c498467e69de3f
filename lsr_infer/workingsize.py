"""At which size frames enter a network: the model's own, another one, a share of the frame's, or tiles of it.

Light to import, because a command line is checked against it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from lsr_infer.errors import UsageError

if TYPE_CHECKING:
    from lsr_infer.manifest import Manifest
    from lsr_infer.tiles import Tiling

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
        own = (manifest.height, manifest.width)
        if self.stride is not None and manifest.fixed_size:
            raise UsageError(f"--stride: the model takes {own[1]}x{own[0]} alone. Export a graph of free size.")
        for name, wanted in (("--size", self.size), ("--tile", self.tile)):
            if wanted is None or wanted == "auto":
                continue
            height, width = wanted
            if manifest.fixed_size and (height, width) != own:
                raise UsageError(f"{name} {width}x{height}: the model takes {own[1]}x{own[0]} alone.")
            if height % manifest.multiple or width % manifest.multiple:
                near = "x".join(
                    str(max(1, round(side / manifest.multiple)) * manifest.multiple) for side in wanted[::-1]
                )
                raise UsageError(
                    f"{name} {width}x{height}: sides are multiples of {manifest.multiple}, such as {near}."
                )

    def of(self, manifest: "Manifest", height: int, width: int) -> tuple[int, int] | None:
        """Return (rows, columns) for a frame, None for the Manifest's own rule."""
        if self.stride is None:
            return self.size
        rows, columns = (
            max(1, round(side / self.stride / manifest.multiple)) * manifest.multiple for side in (height, width)
        )
        return rows, columns

    def tiling(self, manifest: "Manifest") -> "Tiling | None":
        """Return how frames are cut, None where they are not."""
        if self.tile is None:
            return None
        from lsr_infer.tiles import Tiling

        height, width = (manifest.height, manifest.width) if self.tile == "auto" else self.tile
        return Tiling(height, width)
