"""A guard that keeps this Python process, once imported, from talking to any other machine.

The tests import it first thing. With this folder on `PYTHONPATH`, every Python process that
they start imports it by itself, under this name.
"""

from __future__ import annotations

import ipaddress
import socket
import sys

#: Every address that was refused in this process, also if the error was swallowed.
refused: list[str] = []


class LeftTheMachineError(RuntimeError):
    """A test tried to reach something that is not on this machine."""


def _is_local(host: object) -> bool:
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address(text.partition("%")[0]).is_loopback
    except ValueError:
        return False


def _host(event: str, args: tuple[object, ...]) -> object:
    """Return the host an audited call is about; None if it stays on the machine anyway."""
    if event in ("socket.getaddrinfo", "socket.gethostbyname"):
        return args[0]
    if event not in ("socket.connect", "socket.sendto"):
        return None
    family = getattr(args[0], "family", None)
    address = args[1]
    inet = family in (socket.AF_INET, socket.AF_INET6)
    return address[0] if inet and isinstance(address, tuple) else None


def _guard(event: str, args: tuple[object, ...]) -> None:
    if event.startswith("socket.") and not _is_local(host := _host(event, args)):
        refused.append(f"{event}: {host!r}")
        raise LeftTheMachineError(refused[-1])


_loaded_at_start = sys.modules.get("sitecustomize")
if __name__ != "sitecustomize" and hasattr(_loaded_at_start, "LeftTheMachineError"):
    # This process was started by a test run, as those of pytest-xdist are: one guard is enough.
    sys.modules[__name__] = _loaded_at_start  # type: ignore[assignment]
else:
    sys.addaudithook(_guard)
