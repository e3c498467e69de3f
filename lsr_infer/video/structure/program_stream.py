"""Follows the packs and packets of a program stream (ISO/IEC 11172-1, 13818-1); each states its length."""

from lsr_infer.video.structure.byte_reader import CUT_OFF, ByteReader, FileStructure, StructureError, damaged

__all__ = ["walk_program_stream"]

_PACK, _END = 0xBA, 0xB9
_MOST_ZEROS = 64  # between packs; a Video CD has 20


def walk_program_stream(reader: ByteReader, found: FileStructure) -> None:
    """Check that a pack or a packet begins where the one before it ends."""
    while reader.position < reader.size:
        at = reader.position
        room = reader.read(min(_MOST_ZEROS + 2, reader.size - at))
        if not room.strip(b"\0"):  # as at the end of a file that fills the last sector of a disc
            rest = iter(lambda: reader.read(min(1 << 16, reader.size - reader.position)), b"")
            if not any(block.strip(b"\0") for block in rest):
                return
        at += max(0, len(room) - len(room.lstrip(b"\0")) - 2)  # a code begins with two
        reader.seek(at)
        code = reader.read(min(4, reader.size - at))
        if len(code) < 4 and b"\0\0\1".startswith(code[:3]):
            raise StructureError(CUT_OFF)
        if code[:3] != b"\0\0\1" or code[3] < _END:
            if at == 0:
                return  # of a disc, whose sectors have heads
            raise damaged(at)
        if code[3] == _PACK:
            first = reader.read(1)[0]
            stuffing = reader.read(9)[8] & 7 if first >> 6 == 1 else 0
            if first >> 6 != 1:
                if first >> 4 != 2:
                    raise damaged(at)
                reader.read(7)
            reader.seek(reader.position + stuffing)
        elif code[3] != _END:
            (length,) = reader.unpack(">H")
            reader.seek(reader.position + length)
