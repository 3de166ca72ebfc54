"""Where a server listens: `host:port`, read strictly."""

from __future__ import annotations

from dataclasses import dataclass, replace
from ipaddress import ip_address

_LAST_PORT = 65_535


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen: a host and a port, 0 for any that is free."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> ListenAddress:
        """Read `host:port`, where an IPv6 host stands in brackets; raise `ValueError`."""
        host, colon, port = text.rpartition(":")
        host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not colon or not host or not port.isascii() or not port.isdecimal():
            raise ValueError("must be a host and a port, such as 127.0.0.1:9464 or [::1]:9464")
        if ":" in host and not text.startswith("["):
            raise ValueError("must have its IPv6 host in brackets, as in [::1]:9464")
        if int(port) > _LAST_PORT:
            raise ValueError("must have a port from 0 to 65535")
        return cls(host, int(port))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect; no name but `localhost` is looked up for it."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def shifted(self, by: int) -> ListenAddress:
        """Return the same host and a port so much higher; any free port stays any."""
        port = self.port + by if self.port else 0
        if port > _LAST_PORT:
            raise ValueError(f"must leave room for {by} more ports up to {_LAST_PORT}")
        return replace(self, port=port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
