"""Samples become batches, and batches reach the device, in one place."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor

from lsr_train.data.samples import LabelledBatch, LabelledSample, UnlabelledBatch, UnlabelledSample

CPU = torch.device("cpu")


def normalize(frames: Tensor) -> Tensor:
    return frames.permute(0, 3, 1, 2) / 255


def labelled(value: int) -> LabelledSample:
    frame = np.full((4, 6, 3), value, dtype=np.uint8)
    return LabelledSample(frame=frame, labels=np.full((4, 6), value % 19, dtype=np.uint8), file=f"{value}.png")


def unlabelled(value: int, *, masked: bool) -> UnlabelledSample:
    mask = np.arange(24).reshape(4, 6) > value if masked else None
    return UnlabelledSample(frame=np.full((4, 6, 3), value, dtype=np.uint8), mask=mask, file=f"{value}.png")


def test_a_labelled_batch_is_stacked_and_placed() -> None:
    raw = LabelledBatch.collate([labelled(20), labelled(255)])
    assert (raw.image.dtype, raw.image.shape, raw.labels.dtype) == (torch.uint8, (2, 4, 6, 3), torch.uint8)
    batch = raw.on(CPU, normalize)
    assert batch.image[1].unique().tolist() == [1.0]
    assert batch.labels.dtype == torch.int64
    assert batch.labels[:, 0, 0].tolist() == [1, 8]
    assert batch.files == ("20.png", "255.png")


@pytest.mark.parametrize("masked", [False, True])
def test_an_unlabelled_batch_has_a_mask_or_none_and_never_labels(masked: bool) -> None:
    batch = UnlabelledBatch.collate([unlabelled(3, masked=masked), unlabelled(9, masked=masked)]).on(CPU, normalize)
    assert batch.image.shape == (2, 3, 4, 6)
    assert (batch.mask is not None) == masked
    assert batch.counts.sum().item() == (20 + 14 if masked else 48)
    for kind in (UnlabelledBatch, UnlabelledSample):
        assert "labels" not in {field.name for field in dataclasses.fields(kind)}


def test_channels_last_is_a_memory_format_alone() -> None:
    raw = LabelledBatch.collate([labelled(7), labelled(8)])
    plain, last = raw.on(CPU, normalize), raw.on(CPU, normalize, channels_last=True)
    assert torch.equal(plain.image, last.image)
    assert last.image.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
def test_pinned_batches_are_pinned() -> None:
    assert LabelledBatch.collate([labelled(7)]).pin_memory().labels.is_pinned()
    assert UnlabelledBatch.collate([unlabelled(7, masked=True)]).pin_memory().image.is_pinned()
