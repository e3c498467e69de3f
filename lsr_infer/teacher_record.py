"""What a distilled network says of its teacher, in a checkpoint and in the Manifest of what is exported from it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lsr_infer.errors import InputError
from lsr_infer.fields import Fields

__all__ = ["TeacherFacts"]


@dataclass(frozen=True, kw_only=True)
class TeacherFacts:
    """Which network taught, and how good it was.

    Args:
        sha256: of the teacher's model file, 64 hexadecimal digits.
        method: how it was trained.
        step: optimiser steps of that training.
        scores: the figures in its file, finite.

    Raises:
        InputError: a score is not finite.
    """

    sha256: str
    method: str = ""
    step: int = 0
    scores: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(math.isfinite(score) for score in self.scores.values()):
            raise InputError("teacher: a score is not finite.")

    def to_dict(self) -> dict[str, Any]:
        """Return the facts as plain JSON data."""
        scores = {name: float(value) for name, value in self.scores.items()}
        return {"sha256": self.sha256, "method": self.method, "step": self.step, "scores": scores}

    @classmethod
    def from_fields(cls, fields: Fields) -> "TeacherFacts":
        """Read the facts back from `to_dict`.

        Raises:
            InputError: a value is missing or of the wrong type.
        """
        return cls(
            sha256=fields.text("sha256"),
            method=fields.text("method"),
            step=fields.integer("step"),
            scores=fields.numbers("scores"),
        )
