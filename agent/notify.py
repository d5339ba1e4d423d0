"""Tells systemd how it goes, over the socket that it names in the environment; without one, nothing.

It never raises: a supervisor that does not listen is no reason to stop watching the ward.
Source: sd_notify(3); the unit says `Type=notify` and may say `WatchdogSec=`.
"""

import os
import socket
from contextlib import suppress


class Supervisor:
    """The notify socket of `NOTIFY_SOCKET`, if there is one."""

    def __init__(self, address: str | None = None, watchdog_usec: str | None = None) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
        usec = os.environ.get("WATCHDOG_USEC", "") if watchdog_usec is None else watchdog_usec
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog_s = int(usec) / 1e6 if usec.isdigit() else None
        """Within which it must hear of us; None: it does not watch."""

    def say(self, *lines: str) -> None:
        """`READY=1`, `WATCHDOG=1`, `STOPPING=1`, `STATUS=...`."""
        if self._address:
            with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.connect(self._address)
                sock.send("\n".join(lines).encode())
