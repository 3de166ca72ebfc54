"""The Claude stand-in in a process of its own, for tests with real workers."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from tests.standins.claude_plays import Play
from tests.standins.waiting import wait_until


class RemoteClaude:
    """Starts the stand-in, scripts it and reads what it was asked."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="afterword-claude-")
        self._server: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        port_file = Path(self._folder.name, "port")
        command = [sys.executable, "-m", "tests.standins.claude", "--port-file", str(port_file)]
        self._server = subprocess.Popen(command)
        wait_until(port_file.exists, "the Claude stand-in listens")
        self.url = f"http://127.0.0.1:{port_file.read_text()}"
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait(timeout=10)
        self._folder.cleanup()

    def plays(self, *plays: Play) -> None:
        """Add to the script."""
        self._order(plays=[asdict(play) for play in plays])

    def forget(self) -> None:
        """Drop the script and the requests so far."""
        self._order(forget=True)

    def release(self, count: int | None = None) -> None:
        """Let held answers go on."""
        self._order(release=count)

    def held(self) -> int:
        """Return how many answers wait for a release."""
        return int(self._order()["held"])

    def in_flight(self) -> int:
        """Return how many answers are under way."""
        return int(self._order()["in_flight"])

    def abandoned(self) -> int:
        """Return how many answers lost their reader before the end."""
        return int(self._order()["abandoned"])

    def requests(self) -> list[dict[str, Any]]:
        """Return every request so far: `path`, `headers`, `body`."""
        with urllib.request.urlopen(f"{self.url}/_requests", timeout=10) as answer:
            requests: list[dict[str, Any]] = json.load(answer)
        return requests

    def _order(self, **order: object) -> dict[str, Any]:
        request = urllib.request.Request(f"{self.url}/_control", json.dumps(order).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            state: dict[str, Any] = json.load(answer)
        return state
