"""What the paper's analysis shows of a checkpoint, in numbers: norms, angles, pseudo-labels, gradients of each term.

    python tests/benchmarks/latent_diagnosis.py RUN_OR_CHECKPOINT… --source streets --target camvid

Target labels are read here, for analysis alone: nothing in training sees them. Prints one JSON document.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import torch
from torch import Tensor

from lsr_infer.io.images import resize_frame, resize_labels
from lsr_train.config.data import SourceConfig
from lsr_train.data.classes_file import load_label_space
from lsr_train.data.labelled import open_labelled
from lsr_train.latent import LatentRegularizer, histogram_downsample, pseudo_labels
from lsr_train.losses.pixel import cross_entropy, max_square_loss, upsample
from lsr_train.network import DeepLabV2
from lsr_train.runs.checkpoint import load_model
from lsr_train.runs.folder import resolve_model

TERMS = ("cluster_source", "cluster_target", "perpendicularity", "norm_source", "norm_target")


def batches(root: Path, layout: str, split: str, count: int) -> list[tuple[Tensor, Tensor]]:
    """Read `count` evenly spread frames with labels, four to a batch, at 320x240."""
    space = load_label_space("camvid11")
    dataset = open_labelled(
        SourceConfig(layout=layout, root=str(root), split=split, ids="cityscapes-trainid", height=240, width=320), space
    )
    chosen = [dataset[int(i * len(dataset) / count)] for i in range(count)]
    pairs = [
        (torch.from_numpy(resize_frame(frame, 240, 320)), torch.from_numpy(resize_labels(labels, 240, 320)).long())
        for frame, labels in ((sample.frame, sample.labels) for sample in chosen)
    ]
    return [
        (
            torch.stack([frames for frames, _ in pairs[i : i + 4]]),
            torch.stack([labels for _, labels in pairs[i : i + 4]]),
        )
        for i in range(0, count, 4)
    ]


def spread(values: Tensor) -> dict[str, float]:
    """Return median and the band that holds 95 percent."""
    low, middle, high = torch.quantile(values, torch.tensor([0.025, 0.5, 0.975])).tolist()
    return {"median": round(middle, 3), "p2.5": round(low, 3), "p97.5": round(high, 3)}


def class_means(features: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return normalised class means [C,K] and which classes are there."""
    flat, cells = features.permute(0, 2, 3, 1).flatten(0, 2), labels.flatten()
    means = torch.stack(
        [flat[cells == c].mean(0) if (cells == c).any() else flat.new_zeros(flat.shape[1]) for c in range(count)]
    )
    return torch.nn.functional.normalize(means, dim=1), means.norm(dim=1) > 0


def mean_angle(means: Tensor, present: Tensor) -> float:
    """Return the mean angle between the classes' means, in degrees (the paper's Fig. 6)."""
    cosines = (means @ means.T)[present][:, present]
    off = cosines[~torch.eye(len(cosines), dtype=torch.bool)]
    return round(math.degrees(torch.arccos(off.clamp(-1, 1)).mean().item()), 2)


def gradients(network: DeepLabV2, source: list, target: list, space_size: int) -> dict[str, dict[str, float]]:
    """Return the norm of each unweighted term's gradient on the backbone, and its cosine with cross-entropy's."""
    regularizer = LatentRegularizer(space_size, network.feature_channels)
    groups = network.parameter_groups()
    parameters = [p for name in ("stem", "backbone") for p in groups[name]]
    with torch.no_grad():  # fill the prototypes and the norm reference as training would
        for (image, labels), (other, _) in zip(source[1:], target[1:], strict=True):
            one, two = network(network.normalize(image)), network(network.normalize(other))
            regularizer(one.features, labels, two.features, upsample(two.logits, other.shape[1:3]))
    (image, labels), (other, _) = source[0], target[0]
    one, two = network(network.normalize(image)), network(network.normalize(other))
    target_logits = upsample(two.logits, other.shape[1:3])
    terms = {"cross_entropy": cross_entropy(upsample(one.logits, image.shape[1:3]), labels)}
    terms |= {"entropy": max_square_loss(target_logits)}
    terms |= regularizer(one.features, labels, two.features, target_logits)
    flat = {}
    for name, value in terms.items():
        grads = torch.autograd.grad(value, parameters, retain_graph=True, allow_unused=True)
        flat[name] = torch.cat(
            [(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(grads, parameters, strict=True)]
        )
    reference = flat["cross_entropy"]
    return {
        name: {
            "value": round(terms[name].item(), 5),
            "gradient_norm": float(f"{g.norm().item():.4g}"),
            "ratio_to_cross_entropy": float(f"{(g.norm() / reference.norm()).item():.4g}"),
            "cosine_with_cross_entropy": round(torch.nn.functional.cosine_similarity(g, reference, dim=0).item(), 3),
        }
        for name, g in flat.items()
    }


def diagnose(path: Path, source: list, target: list) -> dict:
    """Return the whole analysis of one checkpoint."""
    network, info = load_model(resolve_model(path))
    network.set_batch_norm("frozen")
    network.eval()
    count = info.label_space.num_classes
    collected: dict[str, list[Tensor]] = {}
    right, kept, total = torch.zeros(count), torch.zeros(count), torch.zeros(count)
    with torch.no_grad():
        for domain, pairs in (("source", source), ("target", target)):
            for frames, labels in pairs:
                output = network(network.normalize(frames))
                size = output.features.shape[-2:]
                truth = histogram_downsample(labels, size, count)
                collected.setdefault(f"{domain}_features", []).append(output.features)
                collected.setdefault(f"{domain}_truth", []).append(truth)
                if domain == "target":
                    cells = pseudo_labels(upsample(output.logits, frames.shape[1:3]), size)
                    collected.setdefault("target_pseudo", []).append(cells)
                    for c in range(count):
                        chosen = (cells == c) & (truth != 255)
                        kept[c] += chosen.sum()
                        right[c] += (chosen & (truth == c)).sum()
                        total[c] += (truth == c).sum()
    joined = {name: torch.cat(parts) for name, parts in collected.items()}
    source_means, source_present = class_means(joined["source_features"], joined["source_truth"], count)
    target_means, target_present = class_means(joined["target_features"], joined["target_truth"], count)
    both = source_present & target_present
    names = info.label_space.names
    return {
        "checkpoint": str(path),
        "norm_source": spread(joined["source_features"].norm(dim=1).flatten()[::7]),
        "norm_target": spread(joined["target_features"].norm(dim=1).flatten()[::7]),
        "mean_angle_source": mean_angle(source_means, source_present),
        "mean_angle_target": mean_angle(target_means, target_present),
        "angle_between_domains": {
            names[c]: round(math.degrees(math.acos(min(1.0, float(source_means[c] @ target_means[c])))), 1)
            for c in range(count) if both[c]
        },
        "pseudo_label_coverage": round(float((joined["target_pseudo"] != 255).float().mean()), 3),
        "pseudo_label_accuracy": {
            names[c]: round(float(right[c] / kept[c]), 3) if kept[c] else None for c in range(count)
        },
        "pseudo_label_share": {names[c]: round(float(kept[c] / kept.sum()), 4) for c in range(count)},
        "true_share": {names[c]: round(float(total[c] / total.sum()), 4) for c in range(count)},
        "gradients": gradients(network, source, target, count),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", type=Path, nargs="+")
    parser.add_argument("--source", type=Path, required=True)
    parser.add_argument("--target", type=Path, required=True)
    parser.add_argument("--frames", type=int, default=32)
    arguments = parser.parse_args()
    source = batches(arguments.source, "folder", "train", arguments.frames)
    target = batches(arguments.target, "camvid", "train", arguments.frames)
    json.dump([diagnose(path, source, target) for path in arguments.checkpoints], sys.stdout, indent=1)


if __name__ == "__main__":
    main()
