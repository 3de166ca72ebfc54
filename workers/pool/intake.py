"""What a worker takes from the broker: a message that is no hint costs that message alone."""

from __future__ import annotations

import logging
from collections.abc import Callable
from queue import Empty
from typing import Any

from celery import signals
from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu import Connection, Message
from kombu.transport import TRANSPORT_ALIASES, redis

logger = logging.getLogger(__name__)

_QUIET = {"without_gossip": True, "without_heartbeat": True, "without_mingle": True}


class Channel(redis.Channel):
    """Takes messages off Redis lists, and drops what is not even one.

    As it is, kombu lets such a thing end the worker: text that is no JSON, or JSON that has
    none of what makes a message.
    """

    #: What was taken and not begun does not come back from here, but from the sweep.
    do_restore = False

    connection_errors: tuple[type[Exception], ...]

    def _brpop_read(self, **options: Any) -> Any:
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except Empty:
            raise
        except Exception as error:
            if _is_brokers(error, self.connection_errors + redis.Transport.channel_errors):
                raise
            logger.error("dropped what is no message: %s", type(error).__name__)  # noqa: TRY400
            raise Empty from None


class Transport(redis.Transport):
    """The Redis transport with our channels."""

    Channel = Channel


#: What logs call the connection by, in place of `redis`.
_ALIAS = "afterword"
TRANSPORT_ALIASES[_ALIAS] = f"{__name__}:Transport"


class Consumer(CeleryConsumer):
    """Consumes hints, and rejects a message that breaks what handles it.

    As it is, Celery lets such a message end the worker, which puts it back for the next one.
    Quiet by default: no gossip, mingle or heartbeats, whose traffic grows with the square of
    the fleet; nothing here needs them.
    """

    connection_errors: tuple[type[Exception], ...]
    channel_errors: tuple[type[Exception], ...]

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take what Celery gives to a consumer."""
        options["worker_options"] = {**(options.get("worker_options") or {}), **_QUIET}
        super().__init__(*args, **options)

    def connection_for_read(self, heartbeat: float | None = None) -> Connection:
        """Connect to the broker; to a Redis through our own transport."""
        connection = self.app.connection_for_read(heartbeat=heartbeat)
        if connection.get_transport_cls() is redis.Transport:
            connection.transport_cls = _ALIAS
        return self.ensure_connected(connection)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Message], object]:
        """Return what Celery calls with each message."""
        receive = super().create_task_handler(*args, **kwargs)

        def receive_guarded(message: Message) -> None:
            try:
                receive(message)
            except Exception as error:
                if _is_brokers(error, self.connection_errors + self.channel_errors):
                    raise
                self._reject(message, "malformed", error)

        return receive_guarded

    # Celery's own versions of these put the message's body into the log.

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Reject what cannot be decoded."""
        self._reject(message, "undecodable", exc)

    def on_invalid_task(self, body: object, message: Message, exc: Exception) -> None:  # noqa: ARG002
        """Reject what Celery cannot make a task of."""
        self._reject(message, "malformed", exc)

    def on_unknown_message(self, body: object, message: Message) -> None:  # noqa: ARG002
        """Reject what is no task at all."""
        self._reject(message, "no task", None)

    def on_unknown_task(self, body: object, message: Message, exc: Exception) -> None:  # noqa: ARG002
        """Reject a task of a name that this version does not know."""
        self._reject(message, "unknown task", exc)

    def _reject(self, message: Message, why: str, error: Exception | None) -> None:
        """Acknowledge a message without running it, and forget the request it may have become."""
        logger.error("rejected a message: %s (%s)", why, type(error).__name__)
        for request in [r for r in state.reserved_requests if r.message is message]:
            state.task_ready(request)
        if not message.acknowledged:
            message.reject_log_error(logger, self.connection_errors)
        signals.task_rejected.send(sender=self, message=message, exc=error)


def _is_brokers(error: Exception, errors: tuple[type[Exception], ...]) -> bool:
    """Return whether an error says something about the broker, and not about the message.

    One that kombu lists among the broker's is also what a message of the wrong shape raises.
    """
    return isinstance(error, errors) and not isinstance(error, KeyError)
