"""Uses LSR's constraints in a training loop that knows nothing else of this project."""

import torch
from torch import nn

from lsr_train.latent import LatentRegularizer

WEIGHTS = {
    "cluster_source": 1e-4, "cluster_target": 1e-4, "perpendicularity": 0.01, "norm_source": 0.01, "norm_target": 0.01,
}  # fmt: skip


class TinyNetwork(nn.Module):
    """An encoder with features [B,K,h,w] and a classifier with logits [B,C,h,w], as any segmentation network has."""

    def __init__(self, channels=32, num_classes=19):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, channels, 3, stride=8, padding=1), nn.ReLU())
        self.classifier = nn.Conv2d(channels, num_classes, 1)

    def forward(self, image):
        """Return features and logits at feature size."""
        features = self.encoder(image)
        return features, self.classifier(features)


def main(steps=3):
    """Train on random images, and return the last loss."""
    torch.manual_seed(0)
    network, regularizer = TinyNetwork(), LatentRegularizer(num_classes=19, channels=32)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    for _ in range(steps):
        source_image, target_image = torch.randn(2, 3, 64, 128), torch.randn(2, 3, 64, 128)
        source_labels = torch.randint(0, 19, (2, 64, 128))  # 255 would be void
        source_features, source_logits = network(source_image)
        target_features, target_logits = network(target_image)
        up = nn.Upsample(size=(64, 128), mode="bilinear", align_corners=True)
        terms = regularizer(source_features, source_labels, target_features, up(target_logits))  # dict of scalars
        loss = nn.functional.cross_entropy(up(source_logits), source_labels, ignore_index=255)
        loss = loss + sum(WEIGHTS[name] * value for name, value in terms.items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


if __name__ == "__main__":
    print(f"loss {main():.3f}")
