"""Checks the packets of a transport stream (ISO/IEC 13818-1): none may be damaged or missing."""

import numpy as np
from numpy.typing import NDArray

from lsr_infer.video.structure.byte_reader import CUT_OFF, ByteReader, FileStructure, StructureError, damaged

__all__ = ["walk_transport_stream"]

_PACKETS = {188: 0, 192: 4, 204: 0}
"""Sizes of the packets of transport streams, and where in them the mark 0x47 stands."""
_START, _BLOCK = 1 << 16, 1 << 15
_PICTURE_IDS = (*range(0xE0, 0xF0), 0xFD)


def walk_transport_stream(reader: ByteReader, found: FileStructure) -> None:
    """Check that a transport stream is made of whole packets, and that none of its pictures' is damaged or missing."""
    start = reader.read(min(reader.size, _START))
    size, mark = max(_PACKETS.items(), key=lambda each: start[each[1] :: each[0]].count(0x47) * each[0])
    ids, counts = np.zeros(1 << 13, np.uint8), np.zeros(1 << 13, np.int64)
    last = np.empty((0, 188), np.uint8)  # packet of each stream before the block
    for at in range(0, reader.size - size + 1, _BLOCK * size):
        reader.seek(at)
        block = np.frombuffer(reader.read(min(_BLOCK, (reader.size - at) // size) * size), np.uint8)
        packets = np.concatenate([last, block.reshape(-1, size)[:, mark : mark + 188]])
        number = np.asarray((packets[:, 1] & 0x1F).astype(np.uint16) << 8 | packets[:, 2], np.uint16)
        is_damaged, begins = _look_at(packets, number, ids)
        if (wrong := np.flatnonzero(is_damaged)).size:
            raise damaged(at + (int(wrong[0]) - len(last)) * size)
        np.add.at(counts, number[len(last) :][begins[len(last) :]], 1)
        _, from_end = np.unique(number[::-1], return_index=True)
        last = packets[np.sort(len(packets) - 1 - from_end)]
    found.packets = counts.tolist()
    if reader.size % size:
        raise StructureError(CUT_OFF)


def _look_at(
    packets: NDArray[np.uint8], number: NDArray[np.uint16], ids: NDArray[np.uint8]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which packets [N,188] are damaged, and which begin a picture.

    One that follows a missing one is damaged. `ids` [8192] holds what each stream of pictures begins its parts with,
    by its number; it learns new ones.
    """
    rows, counter = np.arange(len(packets)), packets[:, 3] & 15
    starts, control = packets[:, 1] & 0x40 > 0, packets[:, 3] >> 4  # 1 content, 2 a field, 3 both; more is encrypted
    has_field = control & 2 > 0
    place = 4 + has_field * (1 + packets[:, 4].astype(np.int64))
    head = packets[rows[:, None], np.minimum(place[:, None] + np.arange(8), 187)]
    is_readable = (control & 1 > 0) & (place <= 184)
    has_code = is_readable & (head[:, :3] == (0, 0, 1)).all(axis=1)
    first = starts & has_code & np.isin(head[:, 3], _PICTURE_IDS)
    ids[number[first]] = head[first, 3]
    is_wrong = is_readable & (starts != (has_code & (head[:, 3] == ids[number])))
    is_wrong |= first & (place <= 180) & ((head[:, 6] >> 6 != 2) | (head[:, 7] >> 6 == 1))  # bits that are fixed
    is_wrong |= (
        (packets[:, 1] >= 0x80) | (control == 0) | (control > 3) | (place > 188) | (control == 2) & (place < 188)
    )

    order = np.argsort(number, kind="stable")
    before = np.full(len(packets), -1)
    before[order[1:]] = np.where(number[order[1:]] == number[order[:-1]], order[:-1], -1)
    step = np.where(before < 0, 1, (counter - counter[before]) & 15)
    breaks = (step > 1) & ~(has_field & (packets[:, 4] > 0) & (packets[:, 5] >= 0x80))  # unless it is announced
    is_new_table = (number == 0) & starts & (breaks | (counter == 0))  # recordings begin with a table of their streams
    is_wrong |= breaks & (np.maximum.accumulate(np.where(is_new_table, rows, -1)) < before)
    is_damaged = (packets[:, 0] != 0x47) | (is_wrong & (ids[number] > 0))
    return is_damaged, first & (step > 0) & (place <= 180) & (head[:, 7] >= 0x80)  # with a time, and not repeated
