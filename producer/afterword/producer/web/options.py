"""How a console is run: where it listens, and whom it lets in."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from afterword.shared.errors import InvalidRequest
from afterword.shared.listen_address import ListenAddress

_LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class ConsoleOptions:
    """How a console is run.

    Attributes:
        listen: where it listens.
        origin: how browsers reach it through a proxy, such as `https://console.example`; or ''.
        require_key: whether a key is asked for on loopback as well.
        late_s: from which age of their oldest waiting turn on a user counts as late, in seconds.
        by: the name that the audit shows where nobody logs in.

    """

    listen: ListenAddress
    by: str
    origin: str = ""
    require_key: bool = False
    late_s: float = 300.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.origin)
        whole = parts.scheme in ("http", "https") and parts.netloc and "@" not in parts.netloc
        if self.origin and (not whole or self.origin != f"{parts.scheme}://{parts.netloc}"):
            raise InvalidRequest("origin", "must be such as https://console.example, without path")

    @property
    def needs_key(self) -> bool:
        """Whether nobody gets in without a key: always, if anything but this machine can reach it.

        A proxy is taken for something that others can reach.
        """
        return self.require_key or bool(self.origin) or not self.listen.is_loopback

    @property
    def is_https(self) -> bool:
        """Whether browsers reach it by HTTPS, so that cookies can insist on that."""
        return self.origin.startswith("https://")

    def accepts_host(self, header: str) -> bool:
        """Return whether a request may name this host.

        A page of somebody else can let its own name point to 127.0.0.1 and so read what a console
        on loopback answers; its requests still name that other host.
        """
        if self.origin:
            return header.lower() == urlsplit(self.origin).netloc.lower() or _is_loopback(header)
        return not self.listen.is_loopback or _is_loopback(header)


def _is_loopback(header: str) -> bool:
    try:
        return urlsplit(f"//{header}").hostname in _LOOPBACK_NAMES
    except ValueError:
        return False
