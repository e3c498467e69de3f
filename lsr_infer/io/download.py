"""Fetches pictures from http addresses, and says where an address leads that redirects to another scheme."""

import http.client
import ssl
import time
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from lsr_infer.errors import InputError
from lsr_infer.io.addresses import without_secrets

__all__ = ["download", "refuse_other_scheme"]

_LARGEST = 256 << 20
_CHUNK = 1 << 16


class _SameScheme(urllib.request.HTTPRedirectHandler):
    """Follows redirections within the scheme that was asked for."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if urlsplit(newurl).scheme != urlsplit(req.full_url).scheme:
            fp.close()
            there = without_secrets(newurl).split("/")
            raise InputError(f"leads to {'/'.join(there[:3])}. Give the address there.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(address: str, timeout_seconds: float) -> Any:
    """Ask for an http or https address, with its user and password."""
    parts = urlsplit(address)
    path = quote(parts.path or "/", safe="/%:=&;+,!$'()*~@")
    query = f"?{quote(parts.query, safe='/%:=&;+,!$()*~@?')}" if parts.query else ""
    url = f"{parts.scheme.lower()}://{parts.netloc.rpartition('@')[2]}{path}{query}"
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    if parts.username is not None:
        passwords.add_password(None, url, unquote(parts.username), unquote(parts.password or ""))
    digest, basic = (urllib.request.HTTPDigestAuthHandler, urllib.request.HTTPBasicAuthHandler)
    opener = urllib.request.build_opener(_SameScheme, digest(passwords), basic(passwords))
    return opener.open(url, timeout=timeout_seconds)


def download(address: str, timeout_seconds: float) -> bytes:
    """Return the content behind an http or https address.

    Raises:
        InputError: it cannot be had, is not there whole in this time, is a stream or too large, or leads to another
            scheme.
    """
    name = without_secrets(address)
    content = bytearray()
    deadline = time.monotonic() + timeout_seconds
    try:
        with _open(address, timeout_seconds) as answer:
            if answer.headers.get_content_maintype() == "multipart":
                raise InputError("sends a stream in place of one picture.")
            while len(content) <= _LARGEST and (chunk := answer.read1(_CHUNK)):
                content += chunk
                if time.monotonic() > deadline:
                    raise InputError(f"was not there whole after {timeout_seconds:g} s. Set a longer --timeout.")
            if answer.length and len(content) <= _LARGEST:  # what is still to come
                whole = len(content) + answer.length
                raise InputError(f"ended after {len(content)} of {whole} bytes. Ask for it again.")
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
    except TimeoutError as error:
        raise InputError(f"{name}: sent nothing for {timeout_seconds:g} s. Check the address.") from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InputError(f"{name}: cannot be read ({_reason(error)}). Check the address.") from error
    if len(content) > _LARGEST:
        raise InputError(f"{name}: sends more than {_LARGEST >> 20} MiB, which is no picture.")
    return bytes(content)


def _reason(error: Exception) -> str:
    """Say why an address could not be read, without the address."""
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP status {error.code}"
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {cause.verify_message}"
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    return str(getattr(cause, "strerror", None) or type(cause).__name__).lower()


def refuse_other_scheme(address: str, timeout_seconds: float) -> None:
    """Raise `InputError` where an http or https address leads to another scheme, such as from http to https."""
    try:
        _open(address, timeout_seconds).close()
    except InputError as error:
        raise InputError(f"{without_secrets(address)}: {error}") from error
    except (OSError, http.client.HTTPException, ValueError):  # it leads nowhere
        return
