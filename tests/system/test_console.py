"""The process of the console: signals end it, whatever browsers hold open."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlsplit

import pytest

from tests.kit.servers.fork_server import COMMAND
from tests.kit.servers.valkey import Valkey

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

#: More than it waits for answers that are under way, on a busy machine.
PATIENCE_S = 120.0

HEALTH = "GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n"
HALF_A_HEAD = "GET /jobs HTTP/1.1\r\nHost: "
#: Whoever reads the body says that the rest of it may be sent.
HALF_A_BODY = (
    "POST /login HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100\r\nExpect: 100-continue\r\n"
    "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
)


@contextmanager
def console(server: Valkey) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a console; give its process, and the host and port that it serves."""
    process = subprocess.Popen(
        [*COMMAND, "console", "--listen", "127.0.0.1:0"],
        env=os.environ | {"AFTERWORD_REDIS_URL": server.url, "AFTERWORD_DURABILITY": "none"},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = re.match(r"console at (http://127\.0\.0\.1:\d+/)", said)
            assert found is not None, said
            yield process, urlsplit(found[1]).netloc
        finally:
            process.kill()


def connect(host: str, text: str) -> socket.socket:
    """Open a connection and send a part of a request, or all of it."""
    name, _, port = host.partition(":")
    opened = socket.create_connection((name, int(port)), PATIENCE_S)
    opened.sendall(text.format(host=host).encode())
    return opened


def read_until(opened: socket.socket, end: bytes) -> None:
    """Read an answer until a text has come."""
    found = b""
    while end not in found:
        part = opened.recv(4096)
        assert part, found
        found += part


def test_sigterm_ends_it_although_connections_are_open(server: Valkey) -> None:
    with console(server) as (process, host), ExitStack() as stack:
        idle = stack.enter_context(connect(host, HEALTH))
        read_until(idle, b"ok\n")
        stack.enter_context(connect(host, HALF_A_HEAD))
        body = stack.enter_context(connect(host, HALF_A_BODY))
        read_until(body, b"100 Continue")

        process.terminate()

        assert process.wait(PATIENCE_S) == 0
        assert idle.recv(1) == b"", "it closed what was idle"


def test_ctrl_c_ends_it(server: Valkey) -> None:
    with console(server) as (process, host), connect(host, HEALTH) as idle:
        read_until(idle, b"ok\n")

        process.send_signal(signal.SIGINT)

        assert process.wait(PATIENCE_S) == 0
