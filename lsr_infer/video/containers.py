"""Videos opened with libav so that each leads to nothing but itself.

Some formats are lists of other places: playlists, scripts, session descriptions, names with a number in them. A file of
such a format is refused before libav acts on it; behind an http address playlists are read, but may lead only to http.
"""

from pathlib import Path

import av

from lsr_infer.errors import InputError
from lsr_infer.io.addresses import is_address, label, protocols
from lsr_infer.io.paths import look

__all__ = ["TIMEOUT_SECONDS", "formats", "open_container", "seeks_well"]

TIMEOUT_SECONDS = 20.0
"""How long an address may send nothing, unless told otherwise."""
_SEEKABLE = frozenset({"mp4", "matroska"})
"""Formats whose seeks land at or before the wanted frame."""

_HELD = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,h264,hevc,vvc,av1,obu,ivf,flv,live_flv,asf,ogg,gif,apng,"
    "mjpeg,mpjpeg,mjpeg_2000,smjpeg,mxf,gxf,nut,dv,yuv4mpegpipe,rm,wtv,nuv,nsv,dhav,lmlm4,amv,dirac,dnxhd,vc1,vc1test,"
    "h261,h263,cavsvideo,avs2,avs3,jpeg_pipe,png_pipe,webp_pipe,bmp_pipe,tiff_pipe,ppm_pipe,pgm_pipe"
)
"""libav's names of the formats that hold all their pictures themselves."""
_FORMATS = {"http": f"{_HELD},hls,dash", "https": f"{_HELD},hls,dash", "rtsp": "rtsp", "rtsps": "rtsp"}


def open_container(place: Path | str, timeout_seconds: float = TIMEOUT_SECONDS) -> "av.container.InputContainer":
    """Open a video.

    Args:
        place: its file, or its address.
        timeout_seconds: behind an address, opening and every later read each end after so long.

    Raises:
        InputError: there is no such file, or it is of a format that is not read.
        av.FFmpegError: it cannot be opened.
    """
    address = isinstance(place, str) and is_address(place)
    try:
        return _open_address(str(place), timeout_seconds) if address else _open_file(Path(place))
    except av.ArgumentError as error:  # what libav says of a format that is not on the list
        raise InputError(
            f"{label(place)}: cannot be read as video: it is damaged, of an unusual format, or only leads to other "
            "places, as a playlist, a script or a numbered name does. Name the video itself."
        ) from error


def formats(container: "av.container.InputContainer") -> frozenset[str]:
    """Return libav's names of a container's format, which may be several."""
    return frozenset(container.format.name.split(","))


def seeks_well(container: "av.container.InputContainer") -> bool:
    """Whether a seek lands at or before the wanted frame; elsewhere it goes by decoding time and may land behind."""
    return bool(_SEEKABLE & formats(container))


def _open_file(path: Path) -> "av.container.InputContainer":
    if look(path) is None:
        raise InputError(f"{path}: does not exist.")
    if not path.is_file():
        raise InputError(f"{path}: is no file, so no video.")
    # Errors in the user data (titles, cover texts) of a file that plays are no errors of the video.
    options = {"protocol_whitelist": "file", "format_whitelist": _HELD}
    return av.open(f"file:{path}", options=options, metadata_errors="ignore")


def _open_address(address: str, timeout_seconds: float) -> "av.container.InputContainer":
    scheme, allowed = protocols(address)
    options = {"protocol_whitelist": allowed, "format_whitelist": _FORMATS[scheme]}
    if scheme.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"  # UDP loses packets without a word and stops at most firewalls
    return av.open(address, options=options, timeout=(timeout_seconds, timeout_seconds), metadata_errors="ignore")
