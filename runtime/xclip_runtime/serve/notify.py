"""Messages to systemd, for units of `Type=notify-reload`."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress

WATCHDOG = "WATCHDOG_USEC" in os.environ
"""True if systemd restarts a server that does not send WATCHDOG=1."""


def notify(*states: str) -> None:
    """Send states such as "READY=1"; does nothing outside systemd."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        name = f"\0{address[1:]}" if address.startswith("@") else address
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.sendto("\n".join(states).encode(), name)


def notify_reloading() -> None:
    """Announce a reload; READY=1 follows."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
