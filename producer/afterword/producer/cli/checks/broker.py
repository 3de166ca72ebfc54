"""Asks a broker that is another server than the ledger's Redis: a message there and back."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

from kombu import Connection, Producer
from kombu.exceptions import OperationalError

from afterword.producer.cli.checks.finding import Finding, fail, ok, warn
from afterword.shared.broker import make_app
from afterword.shared.errors import AfterwordError
from afterword.shared.names import MEMORIES, REPLIES
from afterword.shared.plurals import quantity
from afterword.shared.servers import broker_is_apart
from afterword.shared.settings import Settings
from afterword.shared.transport.causes import translated

_SETTING = "AFTERWORD_BROKER_URL"
_REMEDY = f"Check {_SETTING}, and that the broker runs. Jobs are accepted, but not taken up."

#: More hints than this in a queue were not taken up, or were sent many times.
_MANY_HINTS = 100_000


async def look_at_broker(settings: Settings) -> list[Finding]:
    """Return what is found of a broker of its own; nothing if the ledger's Redis is the broker."""
    if not broker_is_apart(settings):
        return []
    return [await asyncio.to_thread(_look, settings)]


def _look(settings: Settings) -> Finding:
    try:
        with make_app(settings).connection_for_write() as connection:
            connection.ensure_connection(max_retries=1, interval_start=0, interval_step=0)
            if not _takes_a_message(connection):
                return fail("broker", f"{_SETTING}: it loses a message that it took", _REMEDY)
            waiting = {queue: _waiting(connection, queue) for queue in (REPLIES, MEMORIES)}
    except Exception as error:  # noqa: BLE001 kombu lets errors of every transport through
        return fail("broker", f"{_SETTING}: {_words(error)}", _REMEDY)
    detail = ", ".join(f"{quantity(count, 'hint')} in {queue}" for queue, count in waiting.items())
    if max(waiting.values()) > _MANY_HINTS:
        remedy = "See whether workers run; `celery purge` is harmless: the sweep sends hints again."
        return warn("broker", detail, remedy)
    return ok("broker", f"takes messages; {detail}")


def _takes_a_message(connection: Connection) -> bool:
    """Send a message to a queue of our own, and take it back."""
    name, sent = f"doctor-{secrets.token_hex(8)}", secrets.token_hex(8)
    channel: Any = connection.channel()  # kombu annotates a base class of it only
    with channel:
        channel.queue_declare(queue=name, auto_delete=True)
        try:
            Producer(channel).publish(sent, routing_key=name, serializer="json", retry=False)
            message = channel.basic_get(name, no_ack=True)
            return message is not None and sent in str(message.body)
        finally:
            channel.queue_delete(queue=name)


def _waiting(connection: Connection, queue: str) -> int:
    """Return how many messages a queue holds.

    A passive declaration would look for a list without the prefix that ours have.
    """
    channel: Any = connection.channel()
    with channel:
        return int(channel.queue_declare(queue=queue).message_count)


def _words(error: Exception) -> str:
    """Return why it failed, in words of our own: those of a transport may hold a password."""
    cause = error.__cause__ if isinstance(error, OperationalError) else error
    found = translated(cause) if isinstance(cause, Exception) else error
    if isinstance(found, AfterwordError):
        return str(found).removeprefix("AFTERWORD_REDIS_URL: ")
    return f"it does not answer ({type(cause or error).__name__})"
