"""Takes hints and commands from the broker. What is neither is dropped, noted and logged."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty
from typing import Any

from celery.worker import state
from celery.worker.consumer import Consumer as CeleryConsumer
from kombu import Connection
from kombu.transport import TRANSPORT_ALIASES, redis
from redis.exceptions import NoPermissionError, ResponseError

from afterword.shared import broker
from afterword.shared.events import MessageDropped, RemoteControlUnavailable
from afterword.shared.hints import NotAHint, read_hint
from afterword.shared.names import REPLIES
from afterword.shared.observer import emit, emit_internal_error
from afterword.workers.celery_runtime import control
from afterword.workers.celery_runtime.heartbeat import CONSUMER_HEARTBEAT
from afterword.workers.celery_runtime.hint_order import HINT_ORDER
from afterword.workers.celery_runtime.pool import TaskPool

#: The most hints taken with one command, so that one worker does not take a whole burst.
MAX_HINTS_PER_POLL = 16

#: What the control channel is called among the queues, in notes on dropped messages.
CONTROL = "control"

_QUIET = {"without_gossip": True, "without_heartbeat": True, "without_mingle": True}


class Channel(broker.Channel):
    """Takes hints off Redis lists and commands off a pub/sub channel.

    By default kombu interprets whatever it finds there, and much of it kills the worker. Here only
    the bytes of a hint (`afterword.shared.hints`) or of a command (`control`) are passed on.
    """

    #: Messages that were taken but not started are not put back: the sweep sends a new hint.
    do_restore = False

    #: How many messages may be taken now. Set by the consumer.
    free_slots: Callable[[], int] = staticmethod(lambda: 1)

    #: Whether the request under way is for the newest hints, not for the oldest.
    _takes_newest = False

    client: Any
    connection: Any
    connection_errors: tuple[type[Exception], ...]
    global_keyprefix: str
    sep: str
    active_fanout_queues: set[str]
    subclient: Any
    _in_listen: Any
    _queue_cycle: Any
    _get_subscribe_topics: Callable[[str], list[str]]
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

    def _subscribe(self) -> None:
        """Subscribe to the control channel by its name; kombu does it by a pattern.

        Redis lets a user subscribe to a pattern only if that very pattern is among those the user
        was given: `&afterword:*` covers any channel with that prefix, and no pattern.
        """
        topics = [
            t for queue in self.active_fanout_queues for t in self._get_subscribe_topics(queue)
        ]
        if topics:
            self._in_listen = self.subclient.connection
            self.subclient.subscribe(*topics)

    def _unsubscribe_from(self, queue: str) -> None:
        if self.subclient.connection:
            self.subclient.unsubscribe(*self._get_subscribe_topics(queue))

    def _receive_one(self, client: Any) -> Any:
        """Take what comes over the control channel; go on without it if Redis denies it."""
        try:
            return super()._receive_one(client)  # type: ignore[misc]
        except NoPermissionError as error:
            self.active_fanout_queues.clear()  # not asked for again on this connection
            emit(RemoteControlUnavailable, error=type(error).__name__)
            return None

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Request several messages from one list with `BLMPOP`; kombu's `BRPOP` takes only one.

        Only replies may be taken newest first: turns wait in the lanes of their users.
        """
        CONSUMER_HEARTBEAT.expect()
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        self._takes_newest = REPLIES in queues and HINT_ORDER.takes_newest()
        if self._takes_newest:
            queues = [REPLIES]
        lists = [
            self.global_keyprefix + self._q_for_pri(queue, step)
            for step in self.priority_steps
            for queue in queues
        ]
        self._in_poll = self.client.connection
        self._brpop_sent_at = time.monotonic()
        wait_s = self.brpop_timeout if timeout is None else timeout
        most = max(1, min(self.free_slots(), MAX_HINTS_PER_POLL))
        end = "LEFT" if self._takes_newest else "RIGHT"
        self.client.connection.send_command(
            "BLMPOP", wait_s, len(lists), *lists, end, "COUNT", most
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

    def _deliver_all(self, name: bytes, messages: Sequence[bytes]) -> None:
        """Deliver each message, also if another one fails; raise the first error of the broker."""
        key = bytes(name).decode(errors="replace").removeprefix(self.global_keyprefix)
        queue = key.partition(self.sep)[0]
        if queue not in self.connection._callbacks:  # noqa: SLF001 as kombu does
            self._put_back(key, messages)
            return
        self._queue_cycle.rotate(queue)
        errors = [error for raw in messages if (error := self._deliver_one(queue, bytes(raw)))]
        if errors:
            raise errors[0]

    def _put_back(self, key: str, messages: Sequence[bytes]) -> None:
        """Put back, as they were and where they were, messages that came after a consumer ended.

        A worker that stops, or is told to leave a queue, still reads the answer to its last
        request. kombu would put such a message back in another form, in which it is no hint.
        """
        with self.conn_or_acquire() as client:
            push = client.lpush if self._takes_newest else client.rpush
            push(key, *reversed(messages))

    def _deliver_one(self, queue: str, raw: bytes) -> Exception | None:
        """Deliver a hint, or drop what is none; return an error of the broker."""
        try:
            hint = read_hint(raw, queue)
            if self._takes_newest:
                hint = _ahead(hint)
            self.connection._deliver(hint, queue)  # noqa: SLF001 as kombu does
        except NotAHint as error:
            _drop(queue, raw, error.reason, error.task)
        except Exception as error:  # noqa: BLE001 no message may kill the worker
            of_broker = self.connection_errors + redis.Transport.channel_errors
            if isinstance(error, of_broker) and not isinstance(error, KeyError):
                return error
            emit_internal_error(error)
        return None

    def _handle_message(self, client: Any, response: Any) -> dict[str, Any]:
        """Read what the control channel says; a message that is no command is not passed on."""
        said: dict[str, Any] = super()._handle_message(client, response)  # type: ignore[misc]
        if bytes(said["type"]).endswith(b"message"):
            raw = bytes(said["data"])
            if reason := control.refusal(raw):
                _drop(CONTROL, raw, reason)
                said["type"] = b"dropped"
        return said


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
    """Consumes hints through our `Channel`, with our pool and no other.

    Gossip, mingle and Celery's heartbeats are off: nothing here needs them, and their traffic grows
    with the square of the number of workers.
    """

    connection_errors: tuple[type[Exception], ...]
    task_consumer: Any

    def __init__(self, *args: Any, **options: Any) -> None:
        options["worker_options"] = {**(options.get("worker_options") or {}), **_QUIET}
        super().__init__(*args, **options)
        if not isinstance(self.pool, TaskPool):
            # Any other pool would take hints and run none of them.
            name = type(self.pool).__module__.rpartition(".")[2]
            raise SystemExit(
                f"cannot start: only the workers' own pool runs jobs; remove -P {name}"
            )
        self.connection_errors = Transport.connection_errors

    def connection_for_read(self, heartbeat: float | None = None) -> Connection:
        """Connect to the broker, using our own transport."""
        connection = self.app.connection_for_read(heartbeat=heartbeat)
        connection.transport_cls = _ALIAS
        # By default the pauses between attempts grow to 30 s, which delays the return to a
        # Redis that is back.
        connection.ensure_connection = partial(  # type: ignore[method-assign]
            connection.ensure_connection, interval_start=1, interval_step=1, interval_max=4
        )
        return self.ensure_connected(connection)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Callable[[Any], object]:
        """Return the function that Celery calls with each message."""
        receive: Callable[[Any], object] = super().create_task_handler(*args, **kwargs)
        self.task_consumer.channel.free_slots = self._free_slots
        return receive

    def _free_slots(self) -> int:
        return int(self.pool.num_processes) - len(state.reserved_requests)


def _ahead(hint: dict[str, Any]) -> dict[str, Any]:
    """Return a hint that tells its task that it was taken before older ones."""
    arguments, _, embed = json.loads(hint["body"])
    return hint | {"body": json.dumps([arguments, {"ahead": True}, embed])}


def _drop(queue: str, raw: bytes, reason: str, task: str = "") -> None:
    """Report a dropped message: its size and hash, never its content."""
    digest = hashlib.sha256(raw).hexdigest()
    emit(MessageDropped, queue=queue, reason=reason, size_bytes=len(raw), sha256=digest, task=task)
