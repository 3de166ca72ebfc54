"""Clients that hold a connection and bring no request: they shut nobody out, and are no bug."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection

import pytest
import uvicorn

from afterword.producer.web import slow_clients
from afterword.producer.web.app import create_app
from afterword.producer.web.slow_clients import PunctualProtocol
from afterword.shared.settings import Settings
from tests.kit.console_client import WITH_KEY
from tests.kit.waiting import wait_until

pytestmark = pytest.mark.redis

PATIENCE_S = 60.0
HEAD = b"POST /login HTTP/1.1\r\nHost: 127.0.0.1:9466\r\n"
FORM = b"content-type: application/x-www-form-urlencoded\r\ncontent-length: 500\r\n\r\nkey="
HEALTH = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:9466\r\n\r\n"


@contextmanager
def listening(settings: Settings) -> Iterator[tuple[str, int]]:
    """Serve a console until the context ends."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        app = create_app(settings, WITH_KEY)
        server = uvicorn.Server(uvicorn.Config(app, http=PunctualProtocol, log_config=None))
        thread = threading.Thread(target=server.run, args=([opened],))
        thread.start()
        try:
            wait_until(lambda: server.started, "the console serves", PATIENCE_S)
            yield opened.getsockname()
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)


def closed_by_server(client: socket.socket) -> bool:
    """Return whether nothing more comes; wait for it."""
    while client.recv(65536):
        pass
    return True


@pytest.mark.parametrize("sent", [b"", HEAD, HEAD + FORM, HEALTH + HEAD])
def test_a_connection_without_a_whole_request_is_closed(
    settings: Settings,
    sent: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(slow_clients, "REQUEST_S", 0.5)
    with (
        caplog.at_level(logging.ERROR),
        listening(settings) as address,
        socket.create_connection(address, PATIENCE_S) as client,
    ):
        client.sendall(sent)
        assert closed_by_server(client)
    assert caplog.messages == []


def test_a_request_in_time_is_answered_however_often_the_connection_is_used(
    settings: Settings,
) -> None:
    with listening(settings) as (host, port):
        client = HTTPConnection(host, port, timeout=PATIENCE_S)
        for _ in range(3):
            client.request("GET", "/healthz", headers={"host": "127.0.0.1:9466"})
            answer = client.getresponse()
            assert (answer.status, answer.read()) == (200, b"ok\n")
        client.close()


def test_who_leaves_in_the_middle_of_a_form_is_no_bug(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR), listening(settings) as address:
        with socket.create_connection(address, PATIENCE_S) as client:
            client.sendall(HEAD + FORM)
        with socket.create_connection(address, PATIENCE_S) as other:
            other.sendall(HEALTH)
            assert other.recv(100).startswith(b"HTTP/1.1 200")
    assert caplog.messages == []
