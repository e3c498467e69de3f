"""Network addresses of videos: which are understood, where they may lead, and how they are shown without secrets.

Whatever a server answers, a playlist too, may lead only to the protocols of the scheme that was asked for.
"""

import re
from pathlib import Path
from urllib.parse import urlsplit

from lsr_infer.errors import UsageError

__all__ = ["is_address", "is_live_only", "label", "name_of", "protocols", "shown"]

_PROTOCOLS = {
    "http": "http,tcp",
    "https": "https,tls,tcp",
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsps,rtsp,rtp,udp,tls,tcp",
}
"""What libav may use for an address, by its scheme."""

_PARTS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<host>[^/?#]*)(?P<path>[^?#]*)", re.DOTALL)


def is_address(word: str) -> bool:
    """Whether a word is written as a network address.

    Raises:
        UsageError: it is one of a scheme that is not understood, or malformed.
    """
    match = _PARTS.match(word)
    if match is None:
        return False
    if match["scheme"].lower() not in _PROTOCOLS:
        raise UsageError(f"{shown(word)}: addresses are {', '.join(f'{scheme}://' for scheme in _PROTOCOLS)}.")
    try:
        parts = urlsplit(word)
        whole = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # brackets that do not match, a port that is no number
        whole = False
    if not whole:
        # A password with a / in it ends the host too early: what stands before any @ is not repeated.
        secretless = re.sub(r"://.*@", "://", shown(word), flags=re.DOTALL)
        raise UsageError(
            f"{secretless}: is no address. Write {match['scheme']}://HOST:PORT/PATH; in a user name or password, "
            "/ is %2F, @ is %40 and : is %3A."
        )
    return True


def is_live_only(address: str) -> bool:
    """Whether nothing but a live stream can be behind an address; behind http there may be a recording as well."""
    return urlsplit(address).scheme.lower().startswith("rtsp")


def protocols(address: str) -> tuple[str, str]:
    """Return an address's scheme and what libav may use for it, separated by commas."""
    scheme = urlsplit(address).scheme.lower()
    return scheme, _PROTOCOLS[scheme]


def shown(address: str) -> str:
    """Return an address, even a malformed one, without what may be a secret: user, password and query."""
    match = _PARTS.match(address)
    assert match is not None
    return f"{match['scheme'].lower()}://{match['host'].rpartition('@')[2]}{match['path']}"


def label(place: Path | str) -> str:
    """Return what a file or an address is called in messages, without secrets."""
    return shown(place) if isinstance(place, str) and is_address(place) else str(place)


def name_of(address: str) -> str:
    """Return a file name for what an address gives."""
    parts = urlsplit(address)
    place = re.sub(r"\.\w{1,5}$", "", parts.path)
    text = f"{parts.netloc.rpartition('@')[2]}{place}"
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._") or "stream"
