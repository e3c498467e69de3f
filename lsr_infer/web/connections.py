"""Connections that bring no request in time are closed, for uvicorn itself would wait for ever.

Needs the extra `demo`, for uvicorn and h11 come with Gradio. Knows nothing of what is asked for.
"""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["PunctualProtocol"]

HEAD_SECONDS = 15.0
"""How long the head of a request may take, from the connection or from its first byte on one that is kept open."""


class PunctualProtocol(H11Protocol):
    """uvicorn's HTTP/1.1; how long a body may be silent is the business of `lsr_infer.web.guard`."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Begin to wait for a request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what comes."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no longer."""
        self._unset()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Set the deadline where a head is awaited; lift it once there is one, however long the rest takes."""
        if self.conn.their_state is not h11.IDLE:
            self._unset()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _unset(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
