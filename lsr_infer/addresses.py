"""Network addresses of videos: which are understood, how they are opened, and how they are shown without secrets.

Whatever a server answers, a playlist too, may lead only to the protocols of the scheme that was asked for.
"""

import re
from urllib.parse import urlsplit

import av

from lsr_infer.errors import UsageError

__all__ = ["is_address", "is_live", "name_of", "open_address", "shown"]

_PROTOCOLS = {
    "http": "http,tcp",
    "https": "https,tls,tcp",
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsps,rtsp,rtp,udp,tls,tcp",
}
"""What libav may use for an address, by its scheme."""

_FILES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
"""Endings of an address behind which a whole file lies, and no stream."""


def is_address(word: str) -> bool:
    """Whether a word is written as a network address.

    Raises:
        UsageError: it is one of a scheme that is not understood.
    """
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://", word)
    if match is None:
        return False
    if match[1].lower() not in _PROTOCOLS:
        raise UsageError(f"{shown(word)}: addresses are {', '.join(f'{scheme}://' for scheme in _PROTOCOLS)}.")
    return True


def is_live(address: str) -> bool:
    """Whether an address is taken for a stream: everything that does not end as a video file does."""
    return not urlsplit(address).path.lower().endswith(_FILES)


def shown(address: str) -> str:
    """Return an address without what may be a secret: user, password and query."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def name_of(address: str) -> str:
    """Return a file name for what an address gives."""
    parts = urlsplit(address)
    place = re.sub(r"\.\w{1,5}$", "", parts.path)
    text = f"{parts.netloc.rpartition('@')[2]}{place}"
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._") or "stream"


def open_address(address: str, timeout_seconds: float) -> "av.container.InputContainer":
    """Open an address with libav; both opening and every later read end after the time given.

    Raises:
        av.FFmpegError: it cannot be opened.
    """
    scheme = urlsplit(address).scheme.lower()
    options = {"protocol_whitelist": _PROTOCOLS[scheme]}
    if scheme.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"  # UDP loses packets without a word and stops at most firewalls
    return av.open(address, options=options, timeout=(timeout_seconds, timeout_seconds), metadata_errors="ignore")
