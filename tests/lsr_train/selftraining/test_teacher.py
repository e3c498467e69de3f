"""The moving average: against a loop, through modes, and with what is no weight."""

import pytest
import torch
from torch import nn

from lsr_train.selftraining import EmaTeacher
from lsr_train.selftraining.teacher import average_decay


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5))


def test_alpha_rises_from_a_half() -> None:
    assert [average_decay(step, 0.9) for step in (1, 2, 4, 9, 100)] == pytest.approx([1 / 2, 2 / 3, 4 / 5, 0.9, 0.9])


def test_equals_the_average_written_out() -> None:
    student = network()
    teacher = EmaTeacher(student, 0.7)
    expected = {name: tensor.double().clone() for name, tensor in student.state_dict().items()}
    for step in range(1, 6):
        student(torch.rand(2, 3, 5, 5))  # moves batch-norm's statistics and counter
        with torch.no_grad():
            for parameter in student.parameters():
                parameter += torch.randn_like(parameter)
        teacher.update(student, step)
        alpha = min(1 - 1 / (step + 1), 0.7)
        for name, tensor in student.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = alpha * expected[name] + (1 - alpha) * tensor.double()
            else:
                expected[name] = tensor.double()
    assert expected["1.num_batches_tracked"] == 5
    for name, tensor in teacher.network.state_dict().items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6, msg=name)


def test_never_trains_and_leaves_its_student_alone() -> None:
    student = network()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    teacher = EmaTeacher(student)
    teacher.train()
    assert not any(module.training for module in teacher.network.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())
    image = torch.rand(2, 3, 5, 5)
    assert torch.equal(teacher(image), teacher(image))  # no dropout, no moving statistic
    assert not teacher(image).requires_grad
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_state_carries_it_over_exactly() -> None:
    student, other = network(), network(1)
    teacher = EmaTeacher(student, 0.5)
    teacher.update(other, 3)
    again = EmaTeacher(network(2), 0.5)
    again.load_state_dict(teacher.state_dict())
    image = torch.rand(1, 3, 5, 5)
    assert torch.equal(teacher(image), again(image))


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_a_decay_out_of_range_is_refused(decay: float) -> None:
    with pytest.raises(ValueError, match="decay"):
        EmaTeacher(network(), decay)
