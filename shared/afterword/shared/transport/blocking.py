"""A line to Redis for a thread that has no event loop."""

from __future__ import annotations

import threading
from typing import Any

from hiredis import pack_command
from redis import exceptions

from afterword.shared.transport.connection import connect_blocking
from afterword.shared.transport.scripts import Step, command_of


class BlockingConnection:
    """ReplayRuns a script once, in the thread that calls.

    It never insists: whoever gets no answer asks a `Door`, which is patient, tells what is wrong,
    and sends what many threads ask at once as few pipelines.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        """Take a redis-py address, and how long an answer may take."""
        pool: Any = connect_blocking(url, timeout_s=timeout_s).connection_pool
        self._connection: Any = pool.make_connection()  # redis-py does not annotate it
        self._in_use = threading.Lock()

    def run(self, name: str, root: str, *arguments: str | float) -> list[Any] | None:
        """Run one script on the shard with that root; None if that did not work at once.

        It may have been run all the same. While another thread waits for its answer nothing is
        sent.
        """
        if not self._in_use.acquire(blocking=False):
            return None
        try:
            return self._exchange(command_of([Step(name, root, arguments)]))
        finally:
            self._in_use.release()

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()

    def _exchange(self, command: tuple[str | float, ...]) -> list[Any] | None:
        try:
            self._connection.connect()
            packed = pack_command(command)  # type: ignore[arg-type]
            self._connection.send_packed_command([packed], check_health=False)
            answer: list[Any] = self._connection.read_response()
        except exceptions.NoScriptError:
            return None
        except (exceptions.RedisError, OSError):
            self._connection.disconnect()
            return None
        except BaseException:  # an interrupt: its answer must not become that of the next
            self._connection.disconnect()
            raise
        return answer
