"""A connection to Redis for a thread that has no event loop."""

from __future__ import annotations

import threading
from typing import Any

from hiredis import pack_command
from redis import exceptions

from afterword.shared.errors import LedgerUnavailable
from afterword.shared.transport.connection import connect_blocking
from afterword.shared.transport.scripts import ScriptCall, command_of


class Unconfirmed(LedgerUnavailable):
    """A script was sent, and Redis did not say what became of it."""


class BlockingConnection:
    """Runs a script once, in the calling thread, without retries.

    A caller that gets no reply uses a `Pipeline` instead, which retries, says what is wrong, and
    sends the commands of many threads in few round trips.
    """

    def __init__(self, url: str, *, timeout_s: float) -> None:
        pool: Any = connect_blocking(url, timeout_s=timeout_s).connection_pool
        self._connection: Any = pool.make_connection()  # redis-py does not annotate it
        self._in_use = threading.Lock()

    def run_script(self, call: ScriptCall) -> list[Any] | None:
        """Run one script and return its reply; None if it was not sent, or refused.

        Returns None at once while another thread waits for a reply. Raises `Unconfirmed` if there
        was no reply, though it may have run.
        """
        if not self._in_use.acquire(blocking=False):
            return None
        try:
            return self._exchange(command_of([call]))
        finally:
            self._in_use.release()

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()

    def _exchange(self, command: tuple[str | float, ...]) -> list[Any] | None:
        sent = False
        try:
            self._connection.connect()
            packed = pack_command(command)  # type: ignore[arg-type]
            sent = True  # some of it may go out, even if that fails
            self._connection.send_packed_command([packed], check_health=False)
            reply: list[Any] = self._connection.read_response()
        except exceptions.NoScriptError:
            return None
        except exceptions.ResponseError:
            self._connection.disconnect()
            return None
        except (exceptions.RedisError, OSError):
            self._connection.disconnect()
            if sent:
                raise Unconfirmed from None
            return None
        except BaseException:  # an interrupt: the next command must not read this one's reply
            self._connection.disconnect()
            raise
        return reply
