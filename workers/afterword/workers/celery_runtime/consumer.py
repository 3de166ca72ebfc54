"""What a worker takes from the broker: a message that is no hint costs that message alone."""

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
from celery.utils.dispatch import Signal
from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu import Connection, Message
from kombu.exceptions import ContentDisallowed, DecodeError
from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import ResponseError

from afterword.shared.ledger.records import Foreign
from afterword.shared.names import MEMORIES, REPLIES
from afterword.workers.celery_runtime.heartbeat import PULSE

logger = logging.getLogger(__name__)

#: Sent on Celery's thread with `found`, a `Foreign`, for each message that was dropped.
foreign_found = Signal(name="foreign_found", providing_args=["found"])

#: No hint is half as long; what is longer is not even parsed.
MOST_BYTES = 65_536

#: Hints taken with one command, if there are slots for them: a burst is not all for who asks first.
MOST_AT_ONCE = 16

_TASK_NAME = re.compile(r"[A-Za-z0-9_.]{1,64}")

_QUIET = {"without_gossip": True, "without_heartbeat": True, "without_mingle": True}


class Channel(redis.Channel):
    """Takes messages off Redis lists, and drops what is not even one.

    As it is, kombu lets such a thing end the worker: text that is no JSON, or JSON that has
    none of what makes a message.
    """

    #: What was taken and not begun does not come back from here, but from the sweep.
    do_restore = False

    #: How many messages may be taken now; the consumer knows.
    slots: Callable[[], int] = staticmethod(lambda: 1)

    #: The queue and the bytes of what is just being delivered.
    taken: tuple[str, bytes] | None = None

    client: Any
    connection: Any
    connection_errors: tuple[type[Exception], ...]
    global_keyprefix: str
    sep: str
    _queue_cycle: Any
    _q_for_pri: Callable[[str, int], str]
    _flush_brpop_reauth: Callable[[], None]

    def _queue_bind(self, *binding: Any) -> None:
        """Bind a queue, or do without on a Redis that refuses: none of ours needs it.

        Hints go by the direct exchange, remote control by channels.
        """
        try:
            super()._queue_bind(*binding)  # type: ignore[misc]
        except ResponseError as error:
            logger.warning("remote control may not answer: %s", type(error).__name__)

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Ask for the messages at the end of one list; as it is, kombu asks for one message."""
        PULSE.begin()
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
        most = max(1, min(self.slots(), MOST_AT_ONCE))
        self.client.connection.send_command(
            "BLMPOP", wait_s, len(lists), *lists, "RIGHT", "COUNT", most
        )

    def _brpop_read(self, **options: Any) -> bool:
        try:
            answer = self._answer(options)
            PULSE.beat()
            if not answer:
                raise Empty
            self._deliver_all(*answer)
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        return True

    def _answer(self, options: dict[str, Any]) -> Any:
        try:
            return self.client.parse_response(self.client.connection, "BLMPOP", **options)
        except self.connection_errors:
            self.client.connection.disconnect()  # the next question makes a new one
            raise

    def _deliver_all(self, name: bytes, wires: Iterable[bytes]) -> None:
        """Deliver each message, whatever is wrong with the others."""
        named = bytes(name).decode(errors="replace").removeprefix(self.global_keyprefix)
        queue = named.partition(self.sep)[0]
        self._queue_cycle.rotate(queue)
        wrong = [error for wire in wires if (error := self._deliver_one(queue, bytes(wire)))]
        if wrong:
            raise wrong[0]

    def _deliver_one(self, queue: str, wire: bytes) -> Exception | None:
        """Deliver a message, or drop what is none; return what is the broker's fault."""
        self.taken = queue, wire
        if len(wire) > MOST_BYTES:
            _tell(queue, wire, "too_large")
            return None
        try:
            self.connection._deliver(json.loads(wire), queue)  # noqa: SLF001 kombu's own way
        except Exception as error:  # noqa: BLE001 whatever a message is, it ends no worker
            if _is_brokers(error, self.connection_errors + redis.Transport.channel_errors):
                return error
            _tell(queue, wire, "no_message")
        return None


class Transport(redis.Transport):
    """The Redis transport with our channels, to which a Redis that refuses is one that is away.

    As it is, the first refusal (read-only, busy, out of memory, cannot write) ends the worker.
    """

    Channel = Channel

    connection_errors = (*redis.Transport.connection_errors, ResponseError)


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
    conninfo: Connection
    task_consumer: Any
    strategies: dict[str, Any]

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take what Celery gives to a consumer."""
        options["worker_options"] = {**(options.get("worker_options") or {}), **_QUIET}
        super().__init__(*args, **options)
        if self.conninfo.get_transport_cls() is redis.Transport:
            self.connection_errors = Transport.connection_errors

    def connection_for_read(self, heartbeat: float | None = None) -> Connection:
        """Connect to the broker; to a Redis through our own transport."""
        connection = self.app.connection_for_read(heartbeat=heartbeat)
        if connection.get_transport_cls() is redis.Transport:
            connection.transport_cls = _ALIAS
        # As it is, the pauses grow to half a minute: so long it would stay away from a Redis
        # that is back.
        connection.ensure_connection = partial(  # type: ignore[method-assign]
            connection.ensure_connection, interval_start=1, interval_step=1, interval_max=4
        )
        return self.ensure_connected(connection)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Message], object]:
        """Return what Celery calls with each message."""
        receive = super().create_task_handler(*args, **kwargs)
        self.task_consumer.channel.slots = self._free_slots

        def receive_guarded(message: Message) -> None:
            try:
                if message.headers.get("task") in self.strategies:
                    _check_arguments(message)
                receive(message)
            except (ContentDisallowed, DecodeError) as error:
                self.on_decode_error(message, error)
            except Exception as error:
                if _is_brokers(error, self.connection_errors + self.channel_errors):
                    raise
                self._reject(message, "malformed", error)

        return receive_guarded

    def _free_slots(self) -> int:
        return int(self.pool.num_processes) - len(state.reserved_requests)

    # Celery's own versions of these put the message's body into the log.

    def on_decode_error(self, message: Message, exc: Exception) -> None:
        """Reject what cannot be decoded."""
        self._reject(message, "undecodable", exc)

    def on_invalid_task(self, body: object, message: Message, exc: Exception) -> None:  # noqa: ARG002
        """Reject what Celery cannot make a task of."""
        self._reject(message, "malformed", exc)

    def on_unknown_message(self, body: object, message: Message) -> None:  # noqa: ARG002
        """Reject what is no task at all."""
        self._reject(message, "no_task", None)

    def on_unknown_task(self, body: object, message: Message, exc: Exception) -> None:  # noqa: ARG002
        """Reject a task of a name that this version does not know."""
        self._reject(message, "unknown_task", exc)

    def _reject(self, message: Message, why: str, error: Exception | None) -> None:
        """Acknowledge a message without running it, and forget the request it may have become."""
        _tell(*_as_it_was(message), why, message.headers if why == "unknown_task" else None)
        for request in [r for r in state.reserved_requests if r.message is message]:
            state.task_ready(request)
        if not message.acknowledged:
            message.reject_log_error(logger, self.connection_errors)
        signals.task_rejected.send(sender=self, message=message, exc=error)


def _check_arguments(message: Message) -> None:
    """Raise `InvalidTaskError` unless a message has what every hint has: one text, no keywords."""
    arguments, keywords, _ = message.payload
    if keywords or len(arguments) != 1 or not isinstance(arguments[0], str):
        raise InvalidTaskError("no hint")


def _as_it_was(message: Message) -> tuple[str, bytes]:
    """Return the queue that a message came from, and its bytes as far as they are known."""
    if isinstance(message.channel, Channel) and message.channel.taken is not None:
        return message.channel.taken
    body: Any = message.body
    queue = message.delivery_info.get("routing_key")
    return queue if queue in (REPLIES, MEMORIES) else "", (
        body if isinstance(body, bytes) else str(body).encode()
    )


def _tell(queue: str, wire: bytes, reason: str, headers: dict[str, Any] | None = None) -> None:
    """Tell whoever listens, and the log, of a message: what it was, not what it says."""
    name = str((headers or {}).get("task", ""))
    task = name if _TASK_NAME.fullmatch(name) else ""
    found = Foreign(queue, reason, len(wire), hashlib.sha256(wire).hexdigest(), task)
    logger.error("dropped a message: %s", found)
    foreign_found.send(sender=None, found=found)


def _is_brokers(error: Exception, errors: tuple[type[Exception], ...]) -> bool:
    """Return whether an error says something about the broker, and not about the message.

    One that kombu lists among the broker's is also what a message of the wrong shape raises.
    """
    return isinstance(error, errors) and not isinstance(error, KeyError)
