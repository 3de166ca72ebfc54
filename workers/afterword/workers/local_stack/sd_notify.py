"""Word from a process to whoever started it that it is ready: systemd's `READY=1`.

The stack listens for it, and so does systemd for services of `Type=notify`.
"""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

VARIABLE = "NOTIFY_SOCKET"

_READY = b"READY=1"


def say_ready() -> None:
    """Tell the process behind `NOTIFY_SOCKET`, if there is one, that this one is ready."""
    address = os.environ.get(VARIABLE)
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        # An address that begins with @ has no file; the kernel spells it with a NUL.
        line.connect("\0" + address[1:] if address.startswith("@") else address)
        line.sendall(_READY)


class Ear:
    """Hears one process after the other say that it is ready."""

    def __init__(self, path: Path) -> None:
        """Listen at `path` from now on, so that nothing said is missed."""
        self.path = path
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(0)
        self._socket.bind(str(path))

    async def ready(self) -> None:
        """Return once it is said."""
        loop = asyncio.get_running_loop()
        while _READY not in (await loop.sock_recv(self._socket, 4096)).split():
            pass

    def close(self) -> None:
        """Stop to listen."""
        self._socket.close()
        self.path.unlink(missing_ok=True)
