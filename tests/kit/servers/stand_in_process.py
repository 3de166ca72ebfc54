"""A stand-in in a process of its own: started and stopped on one side, announced on the other."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any, Self

from tests.kit.servers.fork_server import ForkedProcess, shared_fork_server
from tests.kit.servers.scripted_http_server import ScriptedHttpServer
from tests.kit.waiting import wait_until


class StandInProcess:
    """Starts the stand-in that a module serves, and gives it orders under `/_control`."""

    #: Run with `--port-file F`; it writes there where it listens.
    module: str

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="afterword-standin-")
        self._server: ForkedProcess | None = None
        self.url = ""

    def __enter__(self) -> Self:
        port_file = Path(self._folder.name, "port")
        command = [sys.executable, "-m", self.module, "--port-file", str(port_file)]
        with Path(self._folder.name, "log").open("wb") as log:
            self._server = shared_fork_server().fork(command, os.environ, stdout=log, stderr=log)
        wait_until(port_file.exists, f"{self.module} listens")
        self.url = f"http://127.0.0.1:{port_file.read_text()}"
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait(timeout=60)
        self._folder.cleanup()

    def order(self, **order: object) -> dict[str, Any]:
        """Give an order, or just ask; return all that it tells."""
        request = urllib.request.Request(f"{self.url}/_control", json.dumps(order).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            told: dict[str, Any] = json.load(answer)
        return told


async def serve(server: ScriptedHttpServer, port_file: Path, port: int = 0) -> None:
    """Serve until killed, and write where to the file."""
    await server.start(port)
    draft = port_file.with_suffix(".draft")
    draft.write_text(str(server.port))
    draft.replace(port_file)  # so that nobody reads half a number
    await asyncio.Event().wait()
