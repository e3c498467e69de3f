"""Runs the whole latent stack: labels on the feature grid, prototypes, and the losses of both domains.

It owns the state between steps (prototypes and the norm reference, in buffers). With `fused=False` it calls the
equations of its neighbours; by default it computes the same values in one pass over each feature map. It weights
nothing and knows no network, configuration or log.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from lsr_train.latent.cells import cell_sums, check_features
from lsr_train.latent.clustering import clustering_loss
from lsr_train.latent.fused import Moments, class_moments, one_member
from lsr_train.latent.histogram import histogram_downsample, nearest_downsample
from lsr_train.latent.norm_alignment import Domain, align_norms, feature_norms, mean_over_cells, norm_alignment_loss
from lsr_train.latent.perpendicularity import cosine_perpendicularity_loss, perpendicularity_loss
from lsr_train.latent.prototypes import Prototypes, class_means
from lsr_train.latent.pseudo_labels import pseudo_labels

TERMS = ("cluster_source", "cluster_target", "perpendicularity", "norm_source", "norm_target")
"""Keys of the returned losses."""

DOWNSAMPLE = {"histogram": histogram_downsample, "nearest": nearest_downsample}


class _Plain:
    """Calls the equations on a feature map, each of which reads the map again; the counterpart of `Moments`."""

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int) -> None:
        self._features, self._labels, self._num_classes = features, labels, num_classes
        self.norms = feature_norms(features)

    def class_means(self) -> tuple[Tensor, Tensor]:
        return class_means(self._features, self._labels, self._num_classes)

    def clustering_loss(self, prototypes: Tensor, seen: Tensor) -> Tensor:
        return clustering_loss(self._features, self._labels, prototypes, seen)


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
        delta: enhancement step of Eq. 7 and 8.
        labels: `histogram` (the paper) or `nearest` (plain subsampling, for the ablation).
        terms: names of the losses that are computed and returned; None means all of `TERMS`. What only the others
            need is not computed.
        fused: compute the values in one pass over each feature map (`lsr_train.latent.fused`). False calls the
            equations (`clustering_loss`, `perpendicularity_loss`, `norm_alignment_loss`): the values are the same, and
            second derivatives are there, too.

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
        terms: frozenset[str] | None = None,
        fused: bool = True,
    ) -> None:
        super().__init__()
        for name, value, allowed in (("labels", labels, DOWNSAMPLE), *(("terms", term, TERMS) for term in terms or ())):
            if value not in allowed:
                raise ValueError(f"{name}: {value!r} is unknown; allowed: {', '.join(allowed)}")
        if not 0 < threshold <= 1 or not 0 <= confidence <= 1:
            raise ValueError(f"threshold is {threshold}, allowed: (0, 1]; confidence is {confidence}, allowed: [0, 1]")
        self.num_classes = num_classes
        self.threshold = threshold
        self.confidence = confidence
        self.delta = delta
        self.terms = frozenset(TERMS if terms is None else terms)
        self.fused = fused
        self.prototypes = Prototypes(num_classes, channels, decay, init)
        self.register_buffer("norm_reference", torch.zeros(()))
        self.register_buffer("norm_known", torch.zeros((), dtype=torch.bool))
        self._downsample = DOWNSAMPLE[labels]
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
            target_features: [B,K,h,w], of any size; differentiated.
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
        values: dict[str, Tensor] = {}
        self._diagnostics = {}
        with torch.autocast(source_features.device.type, enabled=False):
            counted = None if target_mask is None else cell_sums(target_mask, _size(target_features)) > 0
            source_norms, target_norms = None, None
            if self.terms & {"cluster_source", "cluster_target", "perpendicularity"}:
                cells = self._downsample(source_labels, _size(source_features), self.num_classes, self.threshold)
                source_norms = self._source_terms(values, source_features, cells)
            if "cluster_target" in self.terms:
                if target_cells is None:
                    target_cells = pseudo_labels(
                        target_logits, _size(target_features), self.threshold, self.confidence,
                        mask=target_mask, downsample=self._downsample,
                    )  # fmt: skip
                target_norms = self._target_terms(values, target_features, target_cells, counted)
            if self.terms & {"norm_source", "norm_target"}:
                if source_norms is None:
                    source_norms = feature_norms(source_features)
                reference = self._move_reference(source_norms)
                if "norm_source" in self.terms:
                    values["norm_source"] = self._norm_term(source_features, source_norms, reference, "source")
                if "norm_target" in self.terms:
                    if target_norms is None:
                        target_norms = feature_norms(target_features)
                    values["norm_target"] = self._norm_term(target_features, target_norms, reference, "target", counted)
                    self._diagnose(target_norm=mean_over_cells(target_norms.detach(), counted))
        return {name: values[name] for name in TERMS if name in self.terms}

    def diagnostics(self) -> dict[str, Tensor]:
        """Return detached scalars of the last call, without waiting for the device.

        Returns:
            `source_norm` and `target_norm` (mean feature norm), `prototype_cosine` (mean over pairs of seen smoothed
            prototypes), `target_labelled` (share of target cells with a pseudo-label); of the target, over the cells
            that count. Which of them are there depends on `terms` alone; before the first call there are none.
        """
        return dict(self._diagnostics)

    def _source_terms(self, values: dict[str, Tensor], features: Tensor, cells: Tensor) -> Tensor:
        """Move the prototypes (Eq. 2 and 3), add Eq. 5 of the source and Eq. 6, and return the features' norms."""
        source: Moments | _Plain
        if self.fused:
            source = class_moments(features, cells, one_member(features, cells, self.num_classes))
        else:
            source = _Plain(features, cells, self.num_classes)
        batch_mean, present = source.class_means()
        self.prototypes.move(batch_mean, present)
        prototypes, seen = self.prototypes.mean, self.prototypes.seen
        if "perpendicularity" in self.terms:
            values["perpendicularity"] = perpendicularity_loss(batch_mean, present)
        if "cluster_source" in self.terms:
            values["cluster_source"] = source.clustering_loss(prototypes, seen)
        self._diagnose(
            source_norm=mean_over_cells(source.norms.detach()),
            prototype_cosine=cosine_perpendicularity_loss(prototypes, seen),
        )
        return source.norms

    def _target_terms(
        self, values: dict[str, Tensor], features: Tensor, cells: Tensor, counted: Tensor | None
    ) -> Tensor:
        """Add Eq. 5 of the target, and return the features' norms."""
        prototypes, seen = self.prototypes.mean, self.prototypes.seen
        target: Moments | _Plain
        if self.fused:
            target = class_moments(features, cells, prototypes, with_sums=False)
        else:
            target = _Plain(features, cells, self.num_classes)
        values["cluster_target"] = target.clustering_loss(prototypes, seen)
        labelled = (cells < self.num_classes).to(target.norms.dtype)
        self._diagnose(
            target_norm=mean_over_cells(target.norms.detach(), counted),
            target_labelled=mean_over_cells(labelled, counted),
        )
        return target.norms

    def _move_reference(self, source_norms: Tensor) -> Tensor:
        """Return the mean source norm of the previous step, and keep this batch's for the next."""
        current = mean_over_cells(source_norms.detach())
        reference = torch.where(self.norm_known, self.norm_reference, current)
        if self.training:
            self.norm_reference = current.to(self.norm_reference.dtype)  # replaced, as the prototypes are
            self.norm_known = torch.ones_like(self.norm_known)
        self._diagnose(source_norm=current)
        return reference

    def _norm_term(
        self, features: Tensor, norms: Tensor, reference: Tensor, domain: Domain, mask: Tensor | None = None
    ) -> Tensor:
        """Return Eq. 7 or 8; fused, from the norms that are there already."""
        if self.fused:
            return align_norms(norms, reference, self.delta, domain, mask=mask)
        return norm_alignment_loss(features, reference, self.delta, domain, mask=mask)

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
            raise ValueError(f"source_labels are {tuple(source_labels.shape)}; needed: [{len(source_features)},H,W]")
        if target_logits.ndim != 4 or target_logits.shape[:2] != (len(target_features), self.num_classes):
            needed = f"[{len(target_features)},{self.num_classes},H,W]"
            raise ValueError(f"target_logits are {tuple(target_logits.shape)}; needed: {needed}")
        tensors = (source_features, source_labels, target_features, target_logits, self.norm_reference)
        devices = {tensor.device for tensor in tensors}
        if len(devices) > 1:
            raise ValueError(f"features, labels, logits and prototypes are on {len(devices)} devices: {devices}")


def _size(features: Tensor) -> tuple[int, int]:
    """Return (h, w)."""
    return features.shape[-2], features.shape[-1]
