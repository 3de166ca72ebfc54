"""Serves the console until a signal."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from afterword.producer.admin.access import Access
from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.web.app import create_app
from afterword.producer.web.options import ConsoleOptions
from afterword.producer.web.slow_clients import PunctualProtocol
from afterword.shared.errors import Misconfigured
from afterword.shared.settings import Settings

_BACKLOG = 100

#: How long a stop waits for answers that are under way, in seconds.
GRACE_S = 10

#: Most connections at a time, and most bytes of a request's head.
_MAX_CONNECTIONS = 200
_MAX_HEAD = 16_384


class _Server(uvicorn.Server):
    """A server that leaves signals to its caller, which exits with 0."""

    def stop(self) -> None:
        """Take no more requests, and end."""
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Do nothing."""
        yield


async def serve(
    settings: Settings, options: ConsoleOptions, on_listen: Callable[[str], None]
) -> None:
    """Serve until SIGINT or SIGTERM; call `on_listen` with the address once it listens.

    Raises `LedgerUnavailable` if Redis is away when it starts, and `Misconfigured` if a key is
    needed and there is none, or if the address is taken.
    """
    await _check_ledger(settings, options)
    with _listening(options) as listening:
        server = _Server(
            uvicorn.Config(
                create_app(settings, options),
                http=PunctualProtocol,
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                lifespan="on",
                ws="none",
                limit_concurrency=_MAX_CONNECTIONS,
                h11_max_incomplete_event_size=_MAX_HEAD,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, server.stop)
        host, port = options.listen.host, listening.getsockname()[1]
        on_listen(f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/")
        await server.serve([listening])


async def _check_ledger(settings: Settings, options: ConsoleOptions) -> None:
    """Look at the ledger before anything listens: at what a wrong address would hide."""
    async with CheckedLedger.open(settings) as checked:
        keys = await Access(checked, options.by).all()
        if options.needs_key and not keys:
            raise Misconfigured(
                "--listen",
                f"{options.listen} needs a key before anybody can be let in, and there is none: "
                "run `afterword keys create NAME --scope operate`",
            )


@contextmanager
def _listening(options: ConsoleOptions) -> Iterator[socket.socket]:
    address = options.listen
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        opened = socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise Misconfigured("--listen", f"cannot listen on {address}: {reason}") from None
    with opened:
        yield opened
