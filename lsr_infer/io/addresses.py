"""Checks network addresses, and names them without what may be a secret.

Whatever a server answers, a playlist too, may lead only to the protocols of the scheme that was asked for.
"""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from lsr_infer.errors import UsageError

__all__ = ["file_name_for", "is_address", "label", "protocols", "without_secrets"]

_PROTOCOLS = {
    "http": "http,tcp",
    "https": "https,tls,tcp",
    "rtsp": "rtsp,rtp,udp,tcp",
    "rtsps": "rtsps,rtsp,rtp,udp,tls,tcp",
}
"""What libav may use for an address, by its scheme."""

_PARTS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+)://(?P<host>[^/?#]*)(?P<path>[^?#]*)", re.DOTALL)
_HOST = re.compile(r"(?:[\w.-]+|\[[0-9A-Fa-f:.]+\])(?::\d+)?")
_NO_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


def is_address(argument: str) -> bool:
    """Whether an argument is a network address; `UsageError` where it is malformed or of an unknown scheme.

    A password with a / ? or # in it would end the host too early and be asked for as a path: an address with an @
    behind its host is refused.
    """
    match = _PARTS.match(argument)
    if match is None:
        return False
    if match["scheme"].lower() not in _PROTOCOLS:
        raise UsageError(
            f"{_scheme_and_host(argument)}: addresses are {', '.join(f'{scheme}://' for scheme in _PROTOCOLS)}."
        )
    try:
        parts = urlsplit(argument)
        whole = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:  # brackets that do not match, a port that is no number
        whole = False
    who = match["host"].rpartition("@")[0]
    if not whole or "@" in argument[match.end("host") :] or _NO_ESCAPE.search(who):
        raise UsageError(
            f"{_scheme_and_host(argument)}: is no address. Write {match['scheme']}://HOST:PORT/PATH; in a user name or "
            "password, / is %2F, ? is %3F, # is %23, @ is %40, : is %3A and % is %25; behind the host, @ is %40 too."
        )
    return True


def _scheme_and_host(address: str) -> str:
    """Return of a malformed address what holds no part of a password, wherever it ends: what follows the last @."""
    scheme, _, rest = address.partition("://")
    host = _HOST.match(rest.rpartition("@")[2])
    return f"{scheme.lower()}://{host[0] if host else ''}"


def protocols(address: str) -> tuple[str, str]:
    """Return an address's scheme and what libav may use for it, separated by commas."""
    scheme = urlsplit(address).scheme.lower()
    return scheme, _PROTOCOLS[scheme]


def without_secrets(address: str) -> str:
    """Return an address without what may be a secret: user, password, query, and parameters within the path."""
    match = _PARTS.match(address)
    assert match is not None
    path = "/".join(map(_without_parameters, match["path"].split("/")))
    return f"{match['scheme'].lower()}://{match['host'].rpartition('@')[2]}{path}"


def _without_parameters(part: str) -> str:
    """Return a part of a path as it is, or empty where it is a list such as `user=me&password=word`."""
    return "" if "=" in unquote(part) else part


def label(place: Path | str) -> str:
    """Return what a file or an address is called in messages, without secrets."""
    return without_secrets(place) if isinstance(place, str) and _PARTS.match(place) else str(place)


def file_name_for(address: str) -> str:
    """Return a file name for what an address gives, without secrets."""
    host, _, path = without_secrets(address).partition("://")[2].partition("/")
    text = f"{host}/{re.sub(r'[.][a-zA-Z0-9_]{1,5}$', '', path)}"
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._") or "stream"
