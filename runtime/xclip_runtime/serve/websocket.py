"""WebSockets: bounded in the number of their frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

if TYPE_CHECKING:
    from websockets.frames import Frame

MAX_FRAMES = 1000
"""Fragments and pings between two messages: they may be empty, so that no size bounds them."""

_PIECE_BYTES = 16 << 10


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """A WebSocket whose messages have a bounded number of fragments, and which pings a bounded number of times."""

    _frames_left = MAX_FRAMES

    def data_received(self, data: bytes) -> None:
        """Take what a client sends, in pieces, as a connection that is closed needs no more of them."""
        for start in range(0, len(data), _PIECE_BYTES):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + _PIECE_BYTES])

    def handle_cont(self, event: Frame) -> None:
        """Take a fragment."""
        self._spend_frame()
        super().handle_cont(event)

    def handle_ping(self) -> None:
        """Answer a ping."""
        self._spend_frame()
        if not self.transport.is_closing():
            super().handle_ping()

    def send_receive_event_to_app(self) -> None:
        """Pass a complete message on."""
        self._frames_left = MAX_FRAMES
        super().send_receive_event_to_app()

    def _spend_frame(self) -> None:
        self._frames_left -= 1
        if self._frames_left < 0:
            self.transport.abort()
