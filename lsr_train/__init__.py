"""Train and adapt road-scene segmentation networks with latent-space regularisation."""

__all__: list[str] = []
