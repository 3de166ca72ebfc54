"""A real Valkey on loopback, for one test module or for a whole run."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from afterword.workers.local_stack.valkey import PACKED_BYTES, find_binary
from tests.kit.waiting import wait_until

_PATIENCE_S = 60.0

#: Sockets that hold ports, by port.
_held: dict[int, socket.socket] = {}


def server_binary() -> Path:
    """Return the server to test with: the one that `TESTED_SERVER` names, or the packaged Valkey.

    So the same tests try Redis, and builds with TLS.
    """
    named = os.environ.get("TESTED_SERVER")
    return Path(named) if named else find_binary()


class Valkey:
    """One server with a folder, a port and a socket of its own; they outlive a restart.

    Keeps nothing on disk unless told: `Valkey("--appendonly", "yes")`. Then what it has confirmed
    outlives `kill`, also on a slow disk: with `everysec`, a server whose disk is busy may confirm
    what it writes two seconds later. As a context manager it is started and stopped.
    """

    def __init__(self, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="afterword-valkey-"))
        self.port = free_port()
        self._options = options
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return its address over TCP, as redis-py takes it."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket_url(self) -> str:
        """Return its address over its Unix socket, as redis-py takes it."""
        return f"unix://{self.folder}/valkey.sock?db=0"

    @property
    def pid(self) -> int:
        """Return its process id, e.g. to stop and continue it."""
        assert self._server is not None, "not started"
        return self._server.pid

    @property
    def runs(self) -> bool:
        """Return whether it was started and not ended."""
        return self._server is not None

    def client(self) -> Redis:
        """Return a client of it that answers with text and never tries again."""
        return Redis.from_url(self.url, decode_responses=True, retry=Retry(NoBackoff(), 0))

    def start(self, *options: str) -> None:
        """Start it, this once with more options, and wait until it answers."""
        assert self._server is None, "already started"
        command = [
            server_binary(), "--port", self.port, "--bind", "127.0.0.1",
            "--unixsocket", self.folder / "valkey.sock", "--dir", self.folder,
            "--save", "", "--appendonly", "no", "--appendfsync", "no",
            "--hash-max-listpack-value", PACKED_BYTES,
            *self._options, *options,
        ]  # fmt: skip
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen([str(part) for part in command], stdout=log)
        wait_until(self._answers, "Valkey answers", _PATIENCE_S)

    def kill(self) -> None:
        """End it as a crash would, without a last word."""
        self._end(signal.SIGKILL)

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop it for a while: it stays connected, and says nothing."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def restart(self, *options: str) -> None:
        """Kill it and start it again at the same address."""
        self.kill()
        self.start(*options)

    def stop(self) -> None:
        """End it and remove its folder; does nothing more the second time."""
        if self._server is not None:
            self._end(signal.SIGTERM)
        release_port(self.port)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _end(self, how: signal.Signals) -> None:
        assert self._server is not None, "not started"
        self._server.send_signal(signal.SIGCONT)  # one that was stopped could not hear it
        self._server.send_signal(how)
        self._server.wait(_PATIENCE_S)
        self._server = None

    def _answers(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, (self.folder / "log").read_text()
        with contextlib.suppress(RedisConnectionError), self.client() as client:
            return bool(client.ping())
        return False


def free_port() -> int:
    """Hold a TCP port for a server of this process's, also while that is away, and return it.

    A port that is looked for and let go may be another test's before the server has it. This one
    stays bound without listening: connections are refused, the system gives it to nobody, and
    a server that asks for it by number gets it, as all servers do that can be restarted at once.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    holder.bind(("127.0.0.1", 0))
    port = int(holder.getsockname()[1])
    _held[port] = holder
    return port


def release_port(port: int) -> None:
    """Hold a port no longer; does nothing the second time."""
    if holder := _held.pop(port, None):
        holder.close()
