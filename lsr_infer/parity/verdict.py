"""What the proof of an export asks and what it answers: frames and a bar go in, a verdict with its figures comes out.

A checkpoint is compared with its ONNX file, and that with an engine; both are told in the same words.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsr_infer.errors import QualityGateError
from lsr_infer.manifest import Manifest
from lsr_infer.parity.frames import FrameSet
from lsr_infer.parity.metrics import Bar, Parity

__all__ = ["Comparison", "LayerDrift", "Verdict"]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What a file has to pass.

    Args:
        frames: what to compare on.
        bar: what the figures must reach.
        report: a JSON file that gets all figures, also where the bar is missed.
        overwrite_report: replace an existing one.
    """

    frames: FrameSet
    bar: Bar
    report: Path | None = None
    overwrite_report: bool = False


@dataclass(frozen=True, kw_only=True)
class LayerDrift:
    """How far one layer's output is off.

    Args:
        layer: its name.
        error: |candidate - reference| / |reference|, L2 norms over all frames; infinite where a value is not finite.
        before: largest error of the layers that it reads from.
        largest: largest magnitude of the candidate's output.
    """

    layer: str
    error: float
    before: float
    largest: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON data; SNR in decibel, what is not finite as null."""
        snr = -20 * math.log10(self.error) if 0 < self.error < math.inf else None
        figures = {"error": self.error, "before": self.before, "largest": self.largest}
        finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        return {"layer": self.layer, **finite, "snr_db": snr}

    def describe(self) -> str:
        """Say it in one phrase."""
        return f"{self.layer} (relative error {self.error:.2g} after {self.before:.2g} before it)"


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a gate found.

    Args:
        parity: the figures; None where nothing was compared.
        drift: of the layers that were looked at.
        failure: why the file must not appear; None where it may.
    """

    parity: Parity | None = None
    drift: tuple[LayerDrift, ...] = ()
    failure: QualityGateError | None = None

    def report(self, manifest: Manifest, *, candidates: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
        """Gather all figures as plain JSON data.

        Args:
            manifest: of the file that was judged.
            candidates: what was tried on the way to it.

        Returns:
            The document; `passed` is null where the comparison is still to be made.
        """
        compared = self.parity is not None or self.failure is not None
        return {
            "passed": self.failure is None if compared else None,
            "failure": None if self.failure is None else str(self.failure),
            "precision": manifest.precision,
            "runtime": manifest.runtime,
            "parity": None if self.parity is None else self.parity.to_dict(),
            "choices": list(manifest.choices),
            "quantization": None if manifest.quantization is None else manifest.quantization.to_dict(),
            "candidates": list(candidates),
            "drift": [layer.to_dict() for layer in self.drift],
        }
