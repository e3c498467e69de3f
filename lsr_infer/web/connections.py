"""Connections that bring no request in time are closed, for uvicorn itself would wait for ever."""

import asyncio

from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["PunctualProtocol"]

HEAD_SECONDS = 15.0
"""How long the head of a request may take, from the connection or from its first byte on one that is kept open."""


class PunctualProtocol(H11Protocol):
    """uvicorn's HTTP/1.1; a body has its own deadline, see `lsr_infer.web.guard`."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
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
        """Set the deadline where a head is awaited; lift it where a request is being answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._unset()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _unset(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
