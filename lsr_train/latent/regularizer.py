"""The whole latent stack behind one call: labels on the feature grid, prototypes, and the losses of both domains.

It owns the state between steps (prototypes and the norm reference, in buffers) and calls the equations of its
neighbours. It weights nothing and knows no network, configuration or log.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from lsr_train.latent.cells import cell_sums, check_features
from lsr_train.latent.clustering import absolute_clustering_loss, class_average, squared_distances
from lsr_train.latent.fused import Moments, class_moments, one_member
from lsr_train.latent.histogram import histogram_downsample, nearest_downsample
from lsr_train.latent.norm_alignment import (
    active_norms,
    feature_norms,
    mean_over_cells,
    relative_norm_alignment_loss,
    source_excess,
    target_shortfall,
)
from lsr_train.latent.perpendicularity import cosines, perpendicularity_loss
from lsr_train.latent.prototypes import Prototypes, batch_means
from lsr_train.latent.pseudo_labels import pseudo_labels

__all__ = ["TERMS", "LatentRegularizer"]

TERMS = ("cluster_source", "cluster_target", "perpendicularity", "norm_source", "norm_target")
"""Keys of what the regularizer returns."""

DOWNSAMPLE = {"histogram": histogram_downsample, "nearest": nearest_downsample}


def _squared(features: Tensor, labels: Tensor, moments: Moments, prototypes: Tensor, seen: Tensor) -> Tensor:
    """Return Eq. 5 from moments that are there already."""
    return class_average(squared_distances(moments, prototypes), moments.counts, seen).to(moments.norms.dtype)


def _absolute(features: Tensor, labels: Tensor, moments: Moments, prototypes: Tensor, seen: Tensor) -> Tensor:
    """Return the released code's form, which moments cannot give."""
    return absolute_clustering_loss(features, labels, prototypes, seen)


CLUSTERING = {"l2": _squared, "l1": _absolute}


class _Labelling(NamedTuple):
    """What labels the target's cells: logits [B,C,H,W] with a mask, or the cell labels [B,h,w] themselves.

    Args:
        logits: [B,C,H,W].
        mask: [B,H,W] bool, true where a pixel counts; None means everywhere.
        cells: [B,h,w], in place of labels from the logits.
        counted: [B,h,w] bool, true where a cell has a pixel that counts; None means everywhere.
    """

    logits: Tensor
    mask: Tensor | None
    cells: Tensor | None
    counted: Tensor | None


class LatentRegularizer(nn.Module):
    """The three latent losses of the paper on both domains, with their state (paper, Sec. 3 and 4).

    State lives in the buffers of `prototypes` and in `norm_reference` and `norm_known`; it moves with each call in
    training mode and stays in `eval()`. All computation is in float32, under autocast too (float64 for float64
    features). Over several ranks class sums, counts and norm sums are shared, so that N ranks whose losses DDP averages
    equal one rank with the whole batch. There is no host synchronisation.

    Args:
        num_classes: C.
        channels: K.
        decay: eta of Eq. 3.
        init: `first` (the first observation of a class replaces the zero) or `zero` (the paper).
        threshold: T_h of the histogram.
        confidence: T_p of the pseudo-labels.
        delta: enhancement step of Eq. 7 and 8; with `norm="relative"` a share of the reference.
        labels: `histogram` (the paper) or `nearest` (plain subsampling, for the ablation).
        clustering: `l2` (Eq. 5) or `l1` (the released code's mean absolute error).
        norm: `absolute` (Eq. 7 and 8) or `relative` (the released code's form).
        terms: names of the losses that are computed and returned; None means all of `TERMS`. What only the others
            need is not computed.

    Raises:
        ValueError: an option or a term is unknown, or a number is out of range.
    """

    norm_reference: Tensor
    norm_known: Tensor

    def __init__(
        self,
        num_classes: int,
        channels: int,
        decay: float = 0.8,
        init: Literal["first", "zero"] = "first",
        threshold: float = 0.5,
        confidence: float = 0.5,
        delta: float = 0.002,
        *,
        labels: Literal["histogram", "nearest"] = "histogram",
        clustering: Literal["l2", "l1"] = "l2",
        norm: Literal["absolute", "relative"] = "absolute",
        terms: frozenset[str] | None = None,
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ("labels", labels, tuple(DOWNSAMPLE)),
            ("clustering", clustering, tuple(CLUSTERING)),
            ("norm", norm, ("absolute", "relative")),
            *(("terms", term, TERMS) for term in terms or ()),
        ):
            if value not in allowed:
                raise ValueError(f"{name}: {value!r} is unknown; allowed: {', '.join(allowed)}")
        if not 0 < threshold <= 1 or not 0 <= confidence <= 1:
            raise ValueError(f"threshold is {threshold}, allowed: (0, 1]; confidence is {confidence}, allowed: [0, 1]")
        self.num_classes = num_classes
        self.threshold = threshold
        self.confidence = confidence
        self.delta = delta
        self.terms = frozenset(TERMS if terms is None else terms)
        self.prototypes = Prototypes(num_classes, channels, decay, init)
        self.register_buffer("norm_reference", torch.zeros(()))
        self.register_buffer("norm_known", torch.zeros((), dtype=torch.bool))
        self._downsample = DOWNSAMPLE[labels]
        self._cluster = CLUSTERING[clustering]
        self._norm_terms = self._absolute_norm_terms if norm == "absolute" else self._relative_norm_terms
        self._diagnostics: dict[str, Tensor] = {}

    def forward(
        self,
        source_features: Tensor,
        source_labels: Tensor,
        target_features: Tensor,
        target_logits: Tensor,
        target_mask: Tensor | None = None,
        *,
        target_cells: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Compute the unweighted terms of one batch and move the state.

        Args:
            source_features: [B,K,h,w], any floating type; differentiated.
            source_labels: ground truth [B,H,W], integers 0..C-1 or 255.
            target_features: [B,K,h,w], of any size of its own; differentiated.
            target_logits: [B,C,H,W]; give the pseudo-labels, not differentiated.
            target_mask: [B,H,W] bool, true where a target pixel counts; None means everywhere. Cells without a pixel
                that counts take no part in any term.
            target_cells: [B,h,w] int64, labels of the target's cells from elsewhere (a teacher) in place of
                pseudo-labels from `target_logits`; 255 for void.

        Returns:
            Scalars by name, those of `terms` in the order of `TERMS`.

        Raises:
            ValueError: shapes, types or devices disagree.
        """
        self._check(source_features, source_labels, target_features, target_logits)
        with torch.autocast(source_features.device.type, enabled=False):
            values: dict[str, Tensor] = {}
            self._diagnostics = {}
            counted = None if target_mask is None else cell_sums(target_mask, _size(target_features)) > 0
            source_norms, target_norms = self._class_terms(
                values, source_features, source_labels, target_features,
                _Labelling(target_logits, target_mask, target_cells, counted),
            )  # fmt: skip
            if self.terms & {"norm_source", "norm_target"}:
                self._norm_terms(values, source_features, target_features, source_norms, target_norms, counted)
            return {name: values[name] for name in TERMS if name in self.terms}

    def diagnostics(self) -> dict[str, Tensor]:
        """Return detached scalars of the last call, without waiting for the device.

        Returns:
            `source_norm` and `target_norm` (mean feature norm), `prototype_cosine` (mean over pairs of seen smoothed
            prototypes), `target_labelled` (share of target cells with a pseudo-label); of the target, over the cells
            that count. Which of them are there depends on `terms` alone; before the first call there are none.
        """
        return dict(self._diagnostics)

    def _class_terms(
        self,
        values: dict[str, Tensor],
        source_features: Tensor,
        source_labels: Tensor,
        target_features: Tensor,
        labelling: "_Labelling",
    ) -> tuple[Tensor | None, Tensor | None]:
        """Add the terms that look at classes; return the norms of both domains where they came along."""
        if not self.terms & {"cluster_source", "cluster_target", "perpendicularity"}:
            return None, None
        cells = self._downsample(source_labels, _size(source_features), self.num_classes, self.threshold)
        source = class_moments(source_features, cells, one_member(source_features, cells, self.num_classes))
        batch_mean, present = batch_means(source)
        self.prototypes.move(batch_mean, present)
        prototypes, seen = self.prototypes.mean, self.prototypes.seen
        self._diagnose(
            source_norm=mean_over_cells(source.norms.detach()), prototype_cosine=_mean_cosine(prototypes, seen)
        )
        if "perpendicularity" in self.terms:
            values["perpendicularity"] = perpendicularity_loss(batch_mean, present)
        if "cluster_source" in self.terms:
            values["cluster_source"] = self._cluster(source_features, cells, source, prototypes, seen)
        if "cluster_target" not in self.terms:
            return source.norms, None
        if labelling.cells is not None:
            cells = labelling.cells
        else:
            cells = pseudo_labels(
                labelling.logits, _size(target_features), self.threshold, self.confidence,
                mask=labelling.mask, downsample=self._downsample,
            )  # fmt: skip
        target = class_moments(target_features, cells, prototypes, with_sums=False)
        values["cluster_target"] = self._cluster(target_features, cells, target, prototypes, seen)
        self._diagnose(
            target_norm=mean_over_cells(target.norms.detach(), labelling.counted),
            target_labelled=mean_over_cells((cells < self.num_classes).to(target.norms.dtype), labelling.counted),
        )
        return source.norms, target.norms

    def _absolute_norm_terms(
        self,
        values: dict[str, Tensor],
        source_features: Tensor,
        target_features: Tensor,
        source_norms: Tensor | None,
        target_norms: Tensor | None,
        counted: Tensor | None,
    ) -> None:
        """Add Eq. 7 and 8, and keep this batch's mean source norm for the next step."""
        norms = feature_norms(source_features) if source_norms is None else source_norms
        current = mean_over_cells(norms.detach())
        reference = torch.where(self.norm_known, self.norm_reference, current)
        self._move_reference(current)
        self._diagnose(source_norm=current)
        if "norm_source" in self.terms:
            values["norm_source"] = mean_over_cells(source_excess(norms, reference, self.delta))
        if "norm_target" in self.terms:
            norms = feature_norms(target_features) if target_norms is None else target_norms
            values["norm_target"] = mean_over_cells(target_shortfall(norms, reference, self.delta), counted)
            self._diagnose(target_norm=mean_over_cells(norms.detach(), counted))

    def _relative_norm_terms(
        self,
        values: dict[str, Tensor],
        source_features: Tensor,
        target_features: Tensor,
        source_norms: Tensor | None,
        target_norms: Tensor | None,
        counted: Tensor | None,
    ) -> None:
        """Add the released code's form, which refers to this batch's own mean of the active norms."""
        reference = mean_over_cells(active_norms(source_features.detach()))
        if "norm_source" in self.terms:
            values["norm_source"] = relative_norm_alignment_loss(source_features, reference, self.delta, "source")
        if "norm_target" in self.terms:
            values["norm_target"] = relative_norm_alignment_loss(
                target_features, reference, self.delta, "target", mask=counted
            )

    def _move_reference(self, current: Tensor) -> None:
        """Remember this batch's mean source norm; in `eval()` do nothing."""
        if self.training:
            with torch.no_grad():
                self.norm_reference = current.detach().to(self.norm_reference.dtype)  # replaced, as the prototypes are
                self.norm_known = torch.ones_like(self.norm_known)

    def _diagnose(self, **scalars: Tensor) -> None:
        """Keep detached scalars for `diagnostics`; the first of a name stays."""
        for name, value in scalars.items():
            self._diagnostics.setdefault(name, value.detach())

    def _check(
        self, source_features: Tensor, source_labels: Tensor, target_features: Tensor, target_logits: Tensor
    ) -> None:
        """Raise ValueError unless the inputs fit each other and the prototypes."""
        channels = self.prototypes.mean.shape[1]
        check_features(source_features, channels)
        check_features(target_features, channels)
        if source_labels.ndim != 3 or source_labels.shape[0] != source_features.shape[0]:
            raise ValueError(
                f"source_labels are {tuple(source_labels.shape)}; needed: [{source_features.shape[0]},H,W]"
            )
        if target_logits.ndim != 4 or target_logits.shape[:2] != (target_features.shape[0], self.num_classes):
            raise ValueError(
                f"target_logits are {tuple(target_logits.shape)}; "
                f"needed: [{target_features.shape[0]},{self.num_classes},H,W]"
            )
        devices = {
            x.device for x in (source_features, source_labels, target_features, target_logits, self.norm_reference)
        }
        if len(devices) > 1:
            raise ValueError(f"features, labels, logits and prototypes are on {len(devices)} devices: {devices}")


def _size(features: Tensor) -> tuple[int, int]:
    """Return (h, w)."""
    return features.shape[-2], features.shape[-1]


@torch.no_grad()
def _mean_cosine(prototypes: Tensor, seen: Tensor) -> Tensor:
    """Return the mean cosine over pairs of seen prototypes; 0 with fewer than two."""
    count = seen.sum()
    return cosines(prototypes, seen).sum() / (count * (count - 1)).clamp(min=1)
