"""systemd's readiness protocol: a process sends `READY=1` to the socket in `NOTIFY_SOCKET`.

The local stack listens for it, and so does systemd for services of `Type=notify`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

VARIABLE = "NOTIFY_SOCKET"

_READY = b"READY=1"


def notify_ready() -> None:
    """Report that this process is ready, if `NOTIFY_SOCKET` is set."""
    address = os.environ.get(VARIABLE)
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as client:
        # "@" begins the name of an abstract socket, which the kernel spells with a NUL byte.
        client.connect("\0" + address[1:] if address.startswith("@") else address)
        client.sendall(_READY)


class ReadyListener:
    """The listening side: waits until a process reports that it is ready, any number of times."""

    def __init__(self, path: Path) -> None:
        """Bind the socket at `path` now, so that no report is missed."""
        self.path = path
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0)
        self._socket.bind(str(path))

    async def wait(self) -> None:
        """Return at the next report."""
        loop = asyncio.get_running_loop()
        while _READY not in (await loop.sock_recv(self._socket, 4096)).split():
            pass

    def close(self) -> None:
        """Close and remove the socket."""
        self._socket.close()
        self.path.unlink(missing_ok=True)
