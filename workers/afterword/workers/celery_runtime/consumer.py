"""Takes hints from the broker. A message that is not a hint is dropped and logged."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Iterable
from functools import partial
from queue import Empty
from typing import Any

from celery import signals
from celery.exceptions import InvalidTaskError
from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu import Connection, Message
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ResponseError

from afterword.shared.events import MessageDropped, RemoteControlUnavailable
from afterword.shared.names import MEMORIES, REPLIES
from afterword.shared.observer import emit
from afterword.workers.celery_runtime.heartbeat import CONSUMER_HEARTBEAT

logger = logging.getLogger(__name__)

#: Longer messages are dropped without being parsed. Hints are less than half as long.
MAX_MESSAGE_BYTES = 65_536

#: The most hints taken with one command, so that one worker does not take a whole burst.
MAX_HINTS_PER_POLL = 16

_TASK_NAME = re.compile(r"[A-Za-z0-9_.]{1,64}")

_QUIET = {"without_gossip": True, "without_heartbeat": True, "without_mingle": True}


class Channel(redis.Channel):
    """Takes messages off Redis lists, and drops those that are not Celery messages.

    By default kombu lets such a message kill the worker: text that is not JSON, or JSON without
    the fields of a message.
    """

    #: Messages that were taken but not started are not put back: the sweep sends a new hint.
    do_restore = False

    #: How many messages may be taken now. Set by the consumer.
    free_slots: Callable[[], int] = staticmethod(lambda: 1)

    #: The queue and the bytes of the message that is being delivered.
    delivering: tuple[str, bytes] | None = None

    client: Any
    connection: Any
    connection_errors: tuple[type[Exception], ...]
    global_keyprefix: str
    sep: str
    _queue_cycle: Any
    _q_for_pri: Callable[[str, int], str]
    _flush_brpop_reauth: Callable[[], None]

    def _queue_bind(self, *binding: Any) -> None:
        """Bind a queue; if Redis refuses the write, report that and go on.

        Hints use the direct exchange and need no binding. Only remote control uses bindings.
        """
        try:
            super()._queue_bind(*binding)  # type: ignore[misc]
        except ResponseError as error:
            emit(RemoteControlUnavailable, error=type(error).__name__)

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Request several messages from one list with `BLMPOP`; kombu's `BRPOP` takes only one."""
        CONSUMER_HEARTBEAT.expect()
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        lists = [
            self.global_keyprefix + self._q_for_pri(queue, step)
            for step in self.priority_steps
            for queue in queues
        ]
        self._in_poll = self.client.connection
        self._brpop_sent_at = time.monotonic()
        wait_s = self.brpop_timeout if timeout is None else timeout
        most = max(1, min(self.free_slots(), MAX_HINTS_PER_POLL))
        self.client.connection.send_command(
            "BLMPOP", wait_s, len(lists), *lists, "RIGHT", "COUNT", most
        )

    def _brpop_read(self, **options: Any) -> bool:
        try:
            answer = self._read_answer(options)
            CONSUMER_HEARTBEAT.beat()
            if not answer:
                raise Empty
            self._deliver_all(*answer)
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        return True

    def _read_answer(self, options: dict[str, Any]) -> Any:
        try:
            return self.client.parse_response(self.client.connection, "BLMPOP", **options)
        except self.connection_errors:
            self.client.connection.disconnect()  # the next request reconnects
            raise

    def _deliver_all(self, name: bytes, messages: Iterable[bytes]) -> None:
        """Deliver each message, also if another one fails; raise the first error of the broker."""
        key = bytes(name).decode(errors="replace").removeprefix(self.global_keyprefix)
        queue = key.partition(self.sep)[0]
        self._queue_cycle.rotate(queue)
        errors = [error for raw in messages if (error := self._deliver_one(queue, bytes(raw)))]
        if errors:
            raise errors[0]

    def _deliver_one(self, queue: str, raw: bytes) -> Exception | None:
        """Deliver a message, or drop it if it is not one; return an error of the broker."""
        self.delivering = queue, raw
        if len(raw) > MAX_MESSAGE_BYTES:
            _drop(queue, raw, "too_large")
            return None
        try:
            self.connection._deliver(json.loads(raw), queue)  # noqa: SLF001 as kombu does
        except Exception as error:  # noqa: BLE001 no message may kill the worker
            if _is_broker_error(error, self.connection_errors + redis.Transport.channel_errors):
                return error
            _drop(queue, raw, "no_message")
        return None


class Transport(redis.Transport):
    """The Redis transport with our `Channel`. Errors that Redis answers count as a lost connection.

    By default the first such error (read-only, busy, out of memory, cannot write) kills the
    worker.
    """

    Channel = Channel

    connection_errors = (*redis.Transport.connection_errors, ResponseError)


#: The name of our transport, which logs show as the scheme of the connection.
_ALIAS = "afterword"
TRANSPORT_ALIASES[_ALIAS] = f"{__name__}:Transport"


class Consumer(CeleryConsumer):
    """Consumes hints, and rejects a message that makes its handler fail.

    By default such a message kills the worker, which puts it back for the next worker. Gossip,
    mingle and Celery's heartbeats are off: nothing here needs them, and their traffic grows with
    the square of the number of workers.
    """

    connection_errors: tuple[type[Exception], ...]
    channel_errors: tuple[type[Exception], ...]
    conninfo: Connection
    task_consumer: Any
    strategies: dict[str, Any]

    def __init__(self, *args: Any, **options: Any) -> None:
        options["worker_options"] = {**(options.get("worker_options") or {}), **_QUIET}
        super().__init__(*args, **options)
        if self.conninfo.get_transport_cls() is redis.Transport:
            self.connection_errors = Transport.connection_errors

    def connection_for_read(self, heartbeat: float | None = None) -> Connection:
        """Connect to the broker, using our own transport if it is Redis."""
        connection = self.app.connection_for_read(heartbeat=heartbeat)
        if connection.get_transport_cls() is redis.Transport:
            connection.transport_cls = _ALIAS
        # By default the pauses between attempts grow to 30 s, which delays the return to a
        # Redis that is back.
        connection.ensure_connection = partial(  # type: ignore[method-assign]
            connection.ensure_connection, interval_start=1, interval_step=1, interval_max=4
        )
        return self.ensure_connected(connection)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Message], object]:
        """Return the function that Celery calls with each message."""
        receive = super().create_task_handler(*args, **kwargs)
        self.task_consumer.channel.free_slots = self._free_slots

        def receive_guarded(message: Message) -> None:
            try:
                if message.headers.get("task") in self.strategies:
                    _check_arguments(message)
                receive(message)
            except (ContentDisallowed, DecodeError) as error:
                self.on_decode_error(message, error)
            except Exception as error:
                if _is_broker_error(error, self.connection_errors + self.channel_errors):
                    raise
                self._reject(message, "malformed", error)

        return receive_guarded

    def _free_slots(self) -> int:
        return int(self.pool.num_processes) - len(state.reserved_requests)

    # Celery's own versions of the following methods log the message's body.

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Reject a message that cannot be decoded."""
        self._reject(message, "undecodable", exc)

    def on_invalid_task(self, body: object, message: Message, exc: Exception) -> None:  # noqa: ARG002
        """Reject a message that Celery cannot make a task request of."""
        self._reject(message, "malformed", exc)

    def on_unknown_message(self, body: object, message: Message) -> None:  # noqa: ARG002
        """Reject a message that names no task."""
        self._reject(message, "no_task", None)

    def on_unknown_task(self, body: object, message: Message, exc: Exception) -> None:  # noqa: ARG002
        """Reject a task whose name this version does not know."""
        self._reject(message, "unknown_task", exc)

    def _reject(self, message: Message, reason: str, error: Exception | None) -> None:
        """Acknowledge a message without running it, and drop the task request made of it."""
        headers = message.headers if reason == "unknown_task" else None
        _drop(*_queue_and_bytes(message), reason, headers)
        for request in [r for r in state.reserved_requests if r.message is message]:
            state.task_ready(request)
        if not message.acknowledged:
            message.reject_log_error(logger, self.connection_errors)
        signals.task_rejected.send(sender=self, message=message, exc=error)


def _check_arguments(message: Message) -> None:
    """Raise `InvalidTaskError` unless a message has one string argument and no keywords."""
    arguments, keywords, _ = message.payload
    if keywords or len(arguments) != 1 or not isinstance(arguments[0], str):
        raise InvalidTaskError("not a hint")


def _queue_and_bytes(message: Message) -> tuple[str, bytes]:
    """Return the queue of a message ("" if it is not ours) and its bytes, as far as known."""
    if isinstance(message.channel, Channel) and message.channel.delivering is not None:
        return message.channel.delivering
    body: Any = message.body
    queue = message.delivery_info.get("routing_key")
    return queue if queue in (REPLIES, MEMORIES) else "", (
        body if isinstance(body, bytes) else str(body).encode()
    )


def _drop(queue: str, raw: bytes, reason: str, headers: dict[str, Any] | None = None) -> None:
    """Report a dropped message: its size and hash, never its content."""
    name = str((headers or {}).get("task", ""))
    task = name if _TASK_NAME.fullmatch(name) else ""
    emit(
        MessageDropped,
        queue=queue,
        reason=reason,
        size_bytes=len(raw),
        sha256=hashlib.sha256(raw).hexdigest(),
        task=task,
    )


def _is_broker_error(error: Exception, errors: tuple[type[Exception], ...]) -> bool:
    """Return whether an error is about the broker, and not about the message.

    kombu lists `KeyError` among the broker's errors, but a malformed message raises it too.
    """
    return isinstance(error, errors) and not isinstance(error, KeyError)
