import pytest
import torch
from torch.nn.modules.batchnorm import _BatchNorm

from lsr_train.network import reestimate_batch_norm
from tests.lsr_train.network.small import small_network


@pytest.fixture
def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 3, 48, 64, generator=generator) * (1 + index) + index for index in range(4)]


def test_the_first_layer_gets_the_average_over_the_batches(images: list[torch.Tensor]) -> None:
    network = small_network()
    reestimate_batch_norm(network, images)
    with torch.no_grad():
        outputs = [network.backbone.conv1(image) for image in images]
    means = torch.stack([output.mean(dim=(0, 2, 3)) for output in outputs]).mean(dim=0)
    variances = torch.stack([output.var(dim=(0, 2, 3)) for output in outputs]).mean(dim=0)
    norm = network.backbone.bn1
    torch.testing.assert_close(norm.running_mean, means, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(norm.running_var, variances, rtol=1e-4, atol=1e-4)


def test_one_batch_then_gives_the_output_of_training_mode() -> None:
    network = small_network()
    image = torch.randn(4, 3, 160, 160, generator=torch.Generator().manual_seed(1))
    network.set_batch_norm("train")
    with torch.no_grad():
        expected = network.train()(image).features
        reestimate_batch_norm(network, [image])
        frozen = network(image).features
    # running variances are unbiased, a batch's own are not: 1600 cells in the last stage
    assert (frozen - expected).norm() / expected.norm() < 0.01


@pytest.mark.parametrize("training", [True, False])
def test_only_statistics_change_and_they_are_frozen_afterwards(training: bool, images: list[torch.Tensor]) -> None:
    network = small_network().train(training)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    momenta = [module.momentum for module in network.modules() if isinstance(module, _BatchNorm)]
    reestimate_batch_norm(network, iter(images))
    assert network.training is training
    assert network.batch_norm == "frozen"
    for name, value in network.state_dict().items():
        is_statistic = name.rsplit(".", 1)[1] in ("running_mean", "running_var", "num_batches_tracked")
        assert torch.equal(value, before[name]) != is_statistic, name
    assert [module.momentum for module in network.modules() if isinstance(module, _BatchNorm)] == momenta
    assert all(parameter.grad is None for parameter in network.parameters())
    assert network.state_dict()["backbone.bn1.num_batches_tracked"] == len(images)


def test_what_was_there_before_does_not_matter(images: list[torch.Tensor]) -> None:
    first, second = small_network(), small_network()
    second.set_batch_norm("train")
    with torch.no_grad():
        second(torch.randn(2, 3, 48, 64) * 100)
    reestimate_batch_norm(first, images)
    reestimate_batch_norm(second, images)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_no_images_are_an_error_and_change_nothing() -> None:
    network = small_network().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ValueError, match="no images"):
        reestimate_batch_norm(network, [])
    assert network.batch_norm == "train"
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
