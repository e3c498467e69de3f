"""Figures by name, from what was seen of networks: which numbers each of them shows."""

from collections.abc import Mapping

from matplotlib.figure import Figure

from lsr_train.analysis.drawings import (
    NothingToDraw,
    angles_figure,
    borders_figure,
    class_lines_figure,
    downsampling_figure,
    embedding_figure,
    polar_figure,
    qualitative_figure,
    reliability_figure,
    shares_figure,
)
from lsr_train.analysis.embedding import can_embed, embed
from lsr_train.analysis.numbers import (
    band_iou,
    inter_prototype_angles,
    polar,
    pseudo_accuracy,
    pseudo_coverage,
    reliability,
    share,
)
from lsr_train.analysis.observation import Observation

__all__ = ["gallery_figure", "pseudo_label_figure"]


def gallery_figure(name: str, seen: Mapping[str, Observation], seed: int = 0) -> Figure:
    """Draw one figure of networks that were looked at.

    Args:
        name: qualitative, downsampling, shares, norms, angles, tsne, pseudo_labels, reliability or borders.
        seen: by network, on the same frames; the figures that show data alone take the first.
        seed: of t-SNE.

    Raises:
        NothingToDraw: there are no data for it.
        KeyError: there is no such figure.
    """
    first = next(iter(seen.values()))
    space = first.space
    if name == "qualitative":
        return qualitative_figure({key: item.pictures for key, item in seen.items()}, space)
    if name == "downsampling":
        return downsampling_figure(first.pictures[0], space)
    if name == "shares":
        void = (float(share(first.nearest)[-1]), float(share(first.histogram)[-1]))
        return shares_figure(space, share(first.pixels), share(first.nearest[:-1]), share(first.cells), void)
    if name == "norms":
        return polar_figure({key: polar(item) for key, item in seen.items()}, space)
    if name == "angles":
        return angles_figure({key: inter_prototype_angles(item) for key, item in seen.items()}, space)
    if name == "tsne":
        if few := [key for key, item in seen.items() if not can_embed(item.features)]:
            raise NothingToDraw(f"{few[0]} has too few labelled feature cells")
        points = {key: (embed(item.features, seed), item.feature_labels) for key, item in seen.items()}
        return embedding_figure(points, space)
    if name == "pseudo_labels":
        return pseudo_label_figure({key: {0: item} for key, item in seen.items()})
    if name == "reliability":
        curves = {
            key: (*reliability(item), share(item.bin_count), item.expected_calibration_error)
            for key, item in seen.items()
        }
        return reliability_figure(curves)
    if name == "borders":
        shares = share(first.confusion.sum(dim=(1, 2)))
        return borders_figure({key: band_iou(item) for key, item in seen.items()}, shares)
    raise KeyError(name)


def pseudo_label_figure(looks: Mapping[str, Mapping[int, Observation]]) -> Figure:
    """Draw accuracy and coverage of pseudo-labels, by network and step."""
    space = next(iter(next(iter(looks.values())).values())).space
    values = {
        "accuracy": {name: [pseudo_accuracy(seen) for seen in series.values()] for name, series in looks.items()},
        "coverage": {name: [pseudo_coverage(seen) for seen in series.values()] for name, series in looks.items()},
    }
    return class_lines_figure({name: list(series) for name, series in looks.items()}, values, space, "%")
