"""Serves metrics to Prometheus over HTTP, from a thread of its own.

The format, and the instruments that fill a registry, are those of `prometheus_client`, which
`afterword[metrics]` installs.
"""

from __future__ import annotations

import hmac
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, TypeAlias
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from pydantic import SecretStr

from afterword.shared.environment import variable
from afterword.shared.errors import Misconfigured
from afterword.shared.installation import install_command
from afterword.shared.listen_address import ListenAddress

if TYPE_CHECKING:
    from prometheus_client.registry import Collector, CollectorRegistry

Application: TypeAlias = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

#: The path at which metrics are served; any other is not found.
PATH = "/metrics"

#: Seconds after which a connection that sends nothing is closed.
_SILENCE_S = 10.0

#: How long a stop may have to wait for the server's thread.
_POLL_S = 0.1


def new_registry(setting: str, *collectors: Collector) -> CollectorRegistry:
    """Return a registry with metrics of this process (CPU, memory, files) and these collectors.

    Raises `Misconfigured`, for the setting or option that asked for metrics, if `prometheus_client`
    is not installed.
    """
    try:
        from prometheus_client import CollectorRegistry, ProcessCollector
    except ImportError:
        hint = install_command("metrics")
        raise Misconfigured(setting, f"needs prometheus_client: run `{hint}`") from None
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for collector in collectors:
        registry.register(collector)
    return registry


@contextmanager
def serving(
    registry: CollectorRegistry, address: ListenAddress, token: SecretStr | None, setting: str
) -> Iterator[ListenAddress]:
    """Serve a registry's metrics while the context is open; yield the address that is listened on.

    With `token`, each request must bear it (`Authorization: Bearer ...`). Raises `Misconfigured`,
    naming `setting`, if the address can be reached from elsewhere and there is no token, or if it
    cannot be listened on.
    """
    from prometheus_client import make_wsgi_app

    if token is None and not address.is_loopback:
        raise Misconfigured(
            variable("metrics_token"), f"must be set: {address} can be reached from elsewhere"
        )
    application = _protected(make_wsgi_app(registry), token.get_secret_value() if token else None)
    server = _listen(application, address, setting)
    thread = threading.Thread(
        target=server.serve_forever, args=(_POLL_S,), name="afterword-metrics", daemon=True
    )
    thread.start()
    try:
        yield ListenAddress(address.host, server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _listen(application: Application, address: ListenAddress, setting: str) -> WSGIServer:
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        kind = type("Server", (_Server,), {"address_family": family})
        return make_server(address.host, address.port, application, kind, _Handler)
    except OSError as error:
        raise Misconfigured(setting, f"cannot listen on {address}: {error.strerror}") from None


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    block_on_close = False


class _Handler(WSGIRequestHandler):
    timeout = _SILENCE_S

    def log_message(self, *_: object) -> None:
        """Log no line for each scrape."""


def _protected(application: Application, token: str | None) -> Application:
    """Answer only requests for the path of metrics that bear the token, if there is one."""

    def answer(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if token is not None and not _bears(environ.get("HTTP_AUTHORIZATION", ""), token):
            return _refuse(start, "401 Unauthorized", ("WWW-Authenticate", "Bearer"))
        if environ["PATH_INFO"] != PATH:
            return _refuse(start, "404 Not Found")
        if environ["REQUEST_METHOD"] != "GET":
            return _refuse(start, "405 Method Not Allowed", ("Allow", "GET"))
        return application(environ, start)

    return answer


def _bears(header: str, token: str) -> bool:
    scheme, _, given = header.partition(" ")
    same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode())
    return same and scheme.lower() == "bearer"


def _refuse(start: Callable[..., Any], status: str, *headers: tuple[str, str]) -> Iterable[bytes]:
    start(status, [("Content-Type", "text/plain; charset=utf-8"), *headers])
    return [f"{status}\n".encode()]
