import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lsr_train.latent import histogram_downsample, nearest_downsample
from lsr_train.latent.cells import cell_indices, cell_sums
from tests.lsr_train.latent.oracles import VOID, histogram_oracle, nearest_cell, windows

SIZES = [((9, 13), (3, 5)), ((16, 8), (5, 1)), ((7, 7), (7, 7)), ((5, 6), (1, 1)), ((1, 1), (1, 1)), ((33, 65), (5, 9)),
         ((3, 4), (5, 6)), ((1, 9), (1, 3)), ((8, 8), (2, 2))]  # fmt: skip


@pytest.mark.parametrize("pixels", [1, 2, 7, 64, 513])
@pytest.mark.parametrize("cells", [1, 2, 5, 65])
def test_cell_of_a_pixel(pixels: int, cells: int) -> None:
    found = cell_indices(pixels, cells, device=torch.device("cpu"))
    assert found.tolist() == [nearest_cell(y, pixels, cells) for y in range(pixels)]


@pytest.mark.parametrize(("image", "size"), SIZES)
@pytest.mark.parametrize("threshold", [0.3, 0.5, 1.0])
def test_histogram_equals_oracle(image: tuple[int, int], size: tuple[int, int], threshold: float) -> None:
    generator = torch.Generator().manual_seed(3)
    for high in (2, 4):  # few classes give clear cells, more give ties and void ones
        labels = torch.randint(0, high, (3, *image), generator=generator)
        labels[torch.rand(3, *image, generator=generator) < 0.15] = VOID
        labels[1, : image[0] // 2] = VOID
        found = histogram_downsample(labels, size, 5, threshold)
        assert found.dtype == torch.int64
        assert torch.equal(found, histogram_oracle(labels, size, 5, threshold))


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_histogram_equals_oracle_on_any_shape(data: st.DataObject) -> None:
    height, width, h, w, classes = (data.draw(st.integers(1, high)) for high in (9, 9, 5, 5, 4))
    seed = data.draw(st.integers(0, 1000))
    labels = torch.randint(-1, classes + 1, (2, height, width), generator=torch.Generator().manual_seed(seed))
    assert torch.equal(histogram_downsample(labels, (h, w), classes), histogram_oracle(labels, (h, w), classes, 0.5))


def test_second_count_at_the_threshold_is_void() -> None:
    labels = torch.tensor([[[0, 0, 1], [0, 0, 1]]])  # 4 against 2: exactly half is not smaller than half
    assert histogram_downsample(labels, (1, 1), 2).item() == VOID
    assert histogram_downsample(labels, (1, 1), 2, threshold=0.51).item() == 0


def test_all_void_and_ids_outside() -> None:
    labels = torch.full((2, 6, 6), VOID)
    assert (histogram_downsample(labels, (2, 2), 3) == VOID).all()
    labels[:] = 3  # no class of three: void, and no write outside the counts
    assert (histogram_downsample(labels, (2, 2), 3) == VOID).all()


def test_uint8_labels() -> None:
    labels = torch.randint(0, 4, (2, 9, 9), generator=torch.Generator().manual_seed(0))
    assert torch.equal(histogram_downsample(labels.to(torch.uint8), (3, 3), 4), histogram_downsample(labels, (3, 3), 4))


def test_renumbering_classes_renumbers_cells() -> None:
    labels = torch.randint(0, 4, (2, 12, 15), generator=torch.Generator().manual_seed(5))
    order = torch.tensor([2, 0, 3, 1])
    cells = histogram_downsample(labels, (6, 7), 4)
    expected = torch.where(cells == VOID, VOID, order[cells.clamp(max=3)])
    assert torch.equal(histogram_downsample(order[labels], (6, 7), 4), expected)


def test_batch_is_its_images() -> None:
    labels = torch.randint(0, 3, (2, 10, 11), generator=torch.Generator().manual_seed(6))
    both = histogram_downsample(labels, (4, 4), 3)
    assert torch.equal(both, torch.cat([histogram_downsample(one[None], (4, 4), 3) for one in labels]))


def test_nearest_takes_the_pixel_at_the_centre() -> None:
    labels = torch.arange(5 * 9).view(1, 5, 9)
    assert nearest_downsample(labels, (3, 5), 45).tolist() == [
        [[y * 9 + x for x in (0, 2, 4, 6, 8)] for y in (0, 2, 4)]
    ]
    assert nearest_downsample(labels, (1, 1), 45).item() == 0
    assert (nearest_downsample(labels, (3, 5), 10)[0, 1:] == VOID).all()


def test_strided_labels() -> None:
    labels = torch.randint(0, 3, (2, 20, 22), generator=torch.Generator().manual_seed(7))
    assert torch.equal(
        histogram_downsample(labels[:, ::2, ::2], (3, 4), 3),
        histogram_downsample(labels[:, ::2, ::2].contiguous(), (3, 4), 3),
    )


@pytest.mark.parametrize(("image", "size"), SIZES)
def test_cell_sums(image: tuple[int, int], size: tuple[int, int]) -> None:
    values = torch.rand(2, *image, generator=torch.Generator().manual_seed(8))
    found = cell_sums(values, size)
    for (i, j), pixels in windows(image, size).items():
        for b in range(2):
            assert found[b, i, j].item() == pytest.approx(sum(values[b, y, x].item() for y, x in pixels), abs=1e-12)


@pytest.mark.parametrize("function", [histogram_downsample, nearest_downsample])
def test_wrong_arguments(function: object) -> None:
    with pytest.raises(ValueError, match="integers"):
        function(torch.zeros(1, 4, 4), (2, 2), 3)
    with pytest.raises(ValueError, match="integers"):
        function(torch.zeros(4, 4, dtype=torch.int64), (2, 2), 3)
    with pytest.raises(ValueError, match="at least one cell"):
        function(torch.zeros(1, 4, 4, dtype=torch.int64), (0, 2), 3)
