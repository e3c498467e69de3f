"""The figures of a comparison of two computations of one network, as the Manifest carries them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from lsr_infer.fields import Fields

__all__ = ["Parity"]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The figures of one comparison, as the Manifest carries them.

    Args:
        reference: what is taken as right, such as `checkpoint`.
        frames_from: where the frames come from, in words, without a path.
        frames: number of frames compared.
        pixels: number of pixels compared.
        agreement: share of pixels with the same class.
        clear_agreement: the same among places whose top two reference logits are apart, see `Bar`; None where there is
            none.
        clear_share: share of the places that are so; None in documents that were written before it was counted.
        max_logit_difference: largest absolute difference of a logit; None where the candidate gives classes alone.
        mean_logit_difference: mean absolute difference of a logit; None likewise.
        class_agreement: for each class the reference found, the share of its pixels that agree.
        miou_reference: mean IoU of the reference where labels exist, else None.
        miou: mean IoU of the candidate where labels exist, else None.
        class_iou_difference: for each class whose union with the labels is not empty, IoU of the candidate minus that
            of the reference; empty without labels.
    """

    reference: str
    frames_from: str
    frames: int
    pixels: int
    agreement: float
    clear_agreement: float | None
    max_logit_difference: float | None
    mean_logit_difference: float | None
    class_agreement: Mapping[str, float] = field(default_factory=dict)
    miou_reference: float | None = None
    miou: float | None = None
    class_iou_difference: Mapping[str, float] = field(default_factory=dict)
    clear_share: float | None = None

    def worst_class(self) -> str:
        """Name the class that agrees least, with its share, and what it loses in IoU where that is known."""
        if not self.class_agreement:
            return "none"
        name = min(self.class_agreement, key=lambda key: self.class_agreement[key])
        if name not in self.class_iou_difference:
            return f"{name} ({100 * self.class_agreement[name]:.2f} %)"
        change = 100 * self.class_iou_difference[name]
        return f"{name} ({100 * self.class_agreement[name]:.2f} %, IoU {change:+.2f} points)"

    def describe(self) -> str:
        """Say in one phrase how far the two agree."""
        text = f"{100 * self.agreement:.4f} % of {self.pixels} pixels agree"
        if self.clear_agreement is not None:
            text += f", {100 * self.clear_agreement:.4f} % of the clear ones"
        if self.max_logit_difference is not None:
            text += f", largest logit difference {self.max_logit_difference:.2g}"
        if self.miou is not None and self.miou_reference is not None:
            text += f", mean IoU {100 * self.miou:.2f} after {100 * self.miou_reference:.2f}"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as plain JSON data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> "Parity":
        """Read figures back from `to_dict`.

        Raises:
            InputError: a key is missing, unknown or of the wrong type.
        """
        fields = Fields(document, "parity")
        return cls(
            reference=fields.text("reference"),
            frames_from=fields.text("frames_from"),
            frames=fields.integer("frames"),
            pixels=fields.integer("pixels"),
            agreement=fields.number("agreement"),
            clear_agreement=fields.optional_number("clear_agreement"),
            max_logit_difference=fields.nullable_number("max_logit_difference"),
            mean_logit_difference=fields.nullable_number("mean_logit_difference"),
            class_agreement=fields.numbers("class_agreement"),
            miou_reference=fields.optional_number("miou_reference"),
            miou=fields.optional_number("miou"),
            class_iou_difference=fields.numbers("class_iou_difference") if "class_iou_difference" in document else {},
            clear_share=fields.optional_number("clear_share"),
        )
