"""A browser for each web example: it keeps its cookies, sends messages and reads streams."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import httpx

from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import Fleet

OK = 200

#: What a busy machine may take for anything; httpx has five seconds.
PATIENCE_S = 60.0


class Event(NamedTuple):
    """A server-sent event, as the browser's EventSource gives it to the page."""

    id: str
    type: str
    data: dict[str, Any]


class Browser(Protocol):
    """One user's browser."""

    def send(self, text: str, key: str | None = None) -> tuple[int, dict[str, Any]]:
        """Send a message; return the status and the JSON of the answer."""

    def stream(self, path: str, after: str | None = None) -> tuple[int, list[Event]]:
        """Read a stream to its end; return the status and the events."""

    def delete(self, path: str) -> tuple[int, dict[str, Any]]:
        """Cancel a reply; return the status and the JSON of the answer."""

    def ready(self) -> tuple[int, dict[str, Any]]:
        """Ask whether messages can be accepted, as a load balancer does."""


def events(lines: Iterable[str]) -> Iterator[Event]:
    """Read the wire format of server-sent events."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if name:
            fields[name] = value
        elif fields:
            yield Event(fields.get("id", ""), fields["event"], json.loads(fields["data"]))
            fields = {}


def resume(after: str | None) -> dict[str, str]:
    """Return the header with which a browser goes on after an event."""
    return {"Last-Event-ID": after} if after else {}


class FastApiBrowser:
    """Speaks HTTP to uvicorn."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def send(self, text: str, key: str | None = None) -> tuple[int, dict[str, Any]]:
        headers = {"Idempotency-Key": key} if key else {}
        answer = self.client.post("/messages", json={"text": text}, headers=headers)
        return answer.status_code, answer.json()

    def stream(self, path: str, after: str | None = None) -> tuple[int, list[Event]]:
        with self.client.stream("GET", path, headers=resume(after)) as answer:
            found = list(events(answer.iter_lines())) if answer.is_success else []
            return answer.status_code, found

    def delete(self, path: str) -> tuple[int, dict[str, Any]]:
        answer = self.client.delete(path)
        return answer.status_code, answer.json()

    def ready(self) -> tuple[int, dict[str, Any]]:
        answer = self.client.get("/ready")
        return answer.status_code, answer.json()


class FlaskBrowser:
    """Flask's own test client."""

    def __init__(self, module: ModuleType) -> None:
        self.client = module.app.test_client()

    def send(self, text: str, key: str | None = None) -> tuple[int, dict[str, Any]]:
        headers = {"Idempotency-Key": key} if key else {}
        answer = self.client.post("/messages", data={"text": text}, headers=headers)
        return answer.status_code, answer.get_json()

    def stream(self, path: str, after: str | None = None) -> tuple[int, list[Event]]:
        answer = self.client.get(path, headers=resume(after))
        lines = answer.text.splitlines() if answer.status_code == OK else []
        return answer.status_code, list(events(lines))

    def delete(self, path: str) -> tuple[int, dict[str, Any]]:
        answer = self.client.delete(path)
        return answer.status_code, answer.get_json() or {}

    def ready(self) -> tuple[int, dict[str, Any]]:
        answer = self.client.get("/ready")
        return answer.status_code, answer.get_json()


class DjangoBrowser:
    """Django's own test client."""

    def __init__(self) -> None:
        from django.test import Client

        self.client = Client(raise_request_exception=False)

    def send(self, text: str, key: str | None = None) -> tuple[int, dict[str, Any]]:
        headers = {"Idempotency-Key": key} if key else {}
        answer = self.client.post("/messages", {"text": text}, headers=headers)
        return answer.status_code, answer.json()

    def stream(self, path: str, after: str | None = None) -> tuple[int, list[Event]]:
        answer = self.client.get(path, headers=resume(after))
        text = b"".join(answer.streaming_content).decode() if answer.status_code == OK else ""
        return answer.status_code, list(events(text.splitlines()))

    def delete(self, path: str) -> tuple[int, dict[str, Any]]:
        answer = self.client.delete(path)
        return answer.status_code, answer.json() if answer.status_code == OK else {}

    def ready(self) -> tuple[int, dict[str, Any]]:
        answer = self.client.get("/ready")
        return answer.status_code, answer.json()


@contextmanager
def uvicorn(fleet: Fleet, *arguments: str) -> Iterator[str]:
    """Serve an ASGI app with uvicorn; give its address once it answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        serving = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--fd", str(listening.fileno()), *arguments],
            env=os.environ | fleet.variables,
            pass_fds=[listening.fileno()],
        )
    try:
        wait_until(lambda: _answers(serving, url), "uvicorn answers", PATIENCE_S)
        yield url
    finally:
        serving.terminate()
        assert serving.wait(timeout=PATIENCE_S) in {0, -signal.SIGTERM}


def _answers(serving: subprocess.Popen[bytes], url: str) -> bool:
    """Return whether the server answers; fail if it has ended."""
    assert serving.poll() is None, "uvicorn has ended"
    try:
        return httpx.get(f"{url}/", timeout=5).is_success
    except httpx.TransportError:
        return False
