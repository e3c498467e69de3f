"""One rank of a real gloo run, started by test_distributed.py: two training steps of a tiny network under DDP.

    python rank_worker.py RANK RANKS RENDEZVOUS_FILE OUTPUT_FILE

With one rank there is no process group, and the batch is the ranks' batches together.
"""

import sys
from dataclasses import replace

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from lsr_train.config.run import Config
from lsr_train.config.training import SelfTrainingConfig, TrainConfig, WeightsConfig
from lsr_train.data.samples import LabelledBatch, UnlabelledBatch
from lsr_train.latent import CosineRegularizer, LatentRegularizer, histogram_downsample
from lsr_train.losses.pixel import cross_entropy, entropy_loss, max_square_loss, upsample
from lsr_train.methods.distill import Distill
from lsr_train.methods.self_training import SelfTraining
from lsr_train.network import SegOutput
from lsr_train.selftraining import DistributionAlignment, FrozenTeacher, LabelAlignment, Rectifier, teacher_labels
from tests.lsr_train.fake_network import ConvNetwork

C, K = 4, 6
WEIGHTS = {
    "cluster_source": 0.7,
    "cluster_target": 1.3,
    "perpendicularity": 2.0,
    "norm_source": 0.9,
    "norm_target": 1.1,
}


class Network(nn.Module):
    """An encoder and a classifier of one convolution each."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Conv2d(3, K, 4, stride=4)
        self.head = nn.Conv2d(K, C, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.encoder(image).relu()
        return self.head(features), features


def batch(step: int, ranks: int = 2) -> list[Tensor]:
    """Return both domains' images, labels and a mask of the whole batch; the first rank lacks a class."""
    generator = torch.Generator().manual_seed(step)
    source, target = (torch.rand(2 * ranks, 3, 12, 20, generator=generator, dtype=torch.float64) for _ in range(2))
    labels = torch.randint(0, C, (2 * ranks, 3, 5), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    labels[:2][labels[:2] == 1] = 255
    labels[0] = 255
    mask = torch.ones(2 * ranks, 12, 20, dtype=torch.bool)
    mask[0, 6:] = False
    return [source, labels, target, mask]


def self_training(
    parts: nn.ModuleDict, features: Tensor, logits: Tensor, labels: Tensor, mask: Tensor
) -> dict[str, Tensor]:
    """Return the terms of self-training, with the network as its own teacher."""
    count = len(labels)
    size = (features.shape[2], features.shape[3])
    target = logits[count:].detach()
    target = target + parts["alignment"](labels, target, mask)
    target = target + parts["label_alignment"](labels, target, mask)
    cells = torch.nn.functional.interpolate(target, size=size)
    cells = cells + parts["rectifier"].correction(features[count:].detach())
    found = teacher_labels(cells, (12, 20), 0.3, mask=mask)
    source_cells, target_cells = (histogram_downsample(part, size, C, 0.9) for part in (labels, found.labels))
    parts["rectifier"].update(features[count:].detach(), target_cells)
    terms = parts["scale_free"](features[:count], source_cells, features[count:], target_cells)
    weighted = cross_entropy(logits[count:], found.labels, weight=found.weight)
    return {"self_training": weighted, **{f"free_{name}": value for name, value in terms.items()}}


def distance(image: Tensor, features: Tensor) -> Tensor:
    """Return self-training's feature distance to a starting network whose features are half as large."""
    config = Config(
        method="self-training",
        weights=WeightsConfig(self_training=1.0, distance=1.0),
        train=TrainConfig(precision="fp32"),
    )
    method = SelfTraining(config, C, K)
    method.starting = lambda image: SegOutput(image, features.detach() / 2)  # type: ignore[assignment]
    return method._distance(image, features)


def method_figures(source: LabelledBatch, target: UnlabelledBatch, first: int) -> dict[str, Tensor]:
    """Return what the methods with a teacher log of a batch whose first image has this number."""
    settings = SelfTrainingConfig(threshold=0.9)
    alone = replace(settings, alignment=0.0)
    network = ConvNetwork(C).double().eval()
    found = {}
    for method in (
        SelfTraining(
            Config(method="self-training", self_training=alone, weights=WeightsConfig(self_training=1.0)), C, 8
        ).double(),
        Distill(Config(method="distill", self_training=settings, weights=WeightsConfig(distill=1.0)), C, 8).double(),
    ):
        method.start(network)
        method.take_teacher(FrozenTeacher(network))
        method.begin(0, first)
        method.terms(network, source, target)
        found |= {f"{method.config.method} {name}": value for name, value in method.diagnostics().items()}
    return found


def main(rank: int, ranks: int, rendezvous: str, output: str) -> None:
    """Train two steps and save losses, gradients and state."""
    torch.set_num_threads(1)
    if ranks > 1:
        distributed.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=ranks)
    torch.manual_seed(0)
    plain = Network().double()
    network = DistributedDataParallel(plain) if ranks > 1 else plain
    regularizer = LatentRegularizer(C, K, confidence=0.3, threshold=0.9).double()
    parts = nn.ModuleDict(
        {
            "alignment": DistributionAlignment(C), "label_alignment": LabelAlignment(C),
            "rectifier": Rectifier(C, K), "scale_free": CosineRegularizer(C, K),
        }
    ).double()  # fmt: skip
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.01)
    steps = []
    for step in range(2):
        source, labels, target, mask = (x[2 * rank : 2 * rank + 2] if ranks > 1 else x for x in batch(step))
        logits, features = network(torch.cat([source, target]))
        logits = upsample(logits * 4, (12, 20))
        count = source.shape[0]
        terms = {
            "cross_entropy": cross_entropy(logits[:count], labels),
            "entropy": entropy_loss(logits[count:], mask=mask),
            "max_square": max_square_loss(logits[count:], mask=mask),
            **regularizer(features[:count], labels, features[count:], logits[count:], mask),
            **self_training(parts, features, logits, labels, mask),
            "distance": distance(source, features[:count]),
        }
        figures = method_figures(
            LabelledBatch(image=source, labels=labels), UnlabelledBatch(image=target, mask=mask), 2 * rank
        )
        optimizer.zero_grad()
        sum(WEIGHTS.get(name, 1.0) * value for name, value in terms.items()).backward()
        steps.append(
            {"terms": {name: value.detach() for name, value in terms.items()},
             "gradients": {name: p.grad.clone() for name, p in plain.named_parameters() if p.grad is not None},
             "state": {name: value.clone() for name, value in (regularizer.state_dict() | parts.state_dict()).items()},
             "diagnostics": regularizer.diagnostics(), "figures": figures}
        )  # fmt: skip
        optimizer.step()
    torch.save(steps, output)
    if ranks > 1:
        distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
