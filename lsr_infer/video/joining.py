"""Joins videos of consecutive ranges into one without encoding anything again, and adds the source's sound."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.error import FFmpegError

from lsr_infer.errors import InputError
from lsr_infer.io.files import AtomicOutputs, output_path_error
from lsr_infer.video.containers import error_text
from lsr_infer.video.writer import AudioCopy, AudioSource

__all__ = ["join_videos"]


def join_videos(
    parts: Sequence[tuple[Path, int]],
    path: Path,
    *,
    time_base: Fraction,
    outputs: AtomicOutputs,
    audio: AudioSource | None = None,
    origin: float = 0.0,
) -> int:
    """Write one video that plays others one after the other; returns the number of its frames.

    Args:
        parts: the videos, all made with the same options, and the time at which each begins, in units of `time_base`.
        path: the file to write: MP4 or Matroska, by its ending.
        time_base: unit of time, in seconds.
        outputs: what the file appears together with.
        audio: the file whose sound is copied.
        origin: time of the beginning of the pictures in that file, in seconds on its own clock.

    Raises:
        InputError: the parts do not fit together, or the place cannot be written.
    """
    frames = 0
    temporary = outputs.file(path, overwrite=False)
    container_format, options = ("mp4", {"movflags": "+faststart"}) if path.suffix == ".mp4" else ("matroska", {})
    try:
        with av.open(f"file:{temporary}", "w", format=container_format, options=options) as output:
            target, headers = _stream_like(parts[0][0], output)
            sound = None if audio is None else AudioCopy(audio, output, origin)
            last: int | None = None
            for part, begin in parts:
                for packet, extradata in _packets(part):
                    if extradata != headers:
                        raise InputError(f"{part}: was encoded with other options than {parts[0][0]}.")
                    shift = begin * time_base / packet.time_base
                    packet.pts += round(shift)
                    packet.dts = max(packet.dts + round(shift), packet.dts + round(shift) if last is None else last + 1)
                    if packet.dts > packet.pts:
                        raise InputError(f"{part}: begins before the end of the one in front of it.")
                    last = packet.dts
                    if sound is not None:
                        output.mux(list(sound.until(float(packet.pts * packet.time_base))))
                    packet.stream = target
                    output.mux(packet)
                    frames += 1
            if sound is not None:
                output.mux(list(sound.rest(float("inf"))))
                sound.close()
    except FFmpegError as error:
        if isinstance(error, OSError):
            raise output_path_error(path, error) from error
        raise InputError(f"{path}: cannot be joined after {frames} frames: {error_text(error)}.") from error
    return frames


def _stream_like(part: Path, output: Any) -> tuple[Any, bytes | None]:
    """Add a video stream like that of a part to the output; returns it, and the headers of its codec."""
    with av.open(f"file:{part}") as container:
        stream = container.streams.video[0]
        target = output.add_stream_from_template(stream)
        target.time_base = stream.time_base
        return target, stream.codec_context.extradata


def _packets(part: Path) -> Iterator[tuple[Any, bytes | None]]:
    """Yield the packets of a part's pictures, with the headers of their codec."""
    with av.open(f"file:{part}") as container:
        stream = container.streams.video[0]
        for packet in container.demux(stream):
            if packet.dts is not None:
                yield packet, stream.codec_context.extradata
