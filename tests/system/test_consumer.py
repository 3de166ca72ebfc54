"""Messages that are not hints, and failures of the broker, harm no other job."""

from __future__ import annotations

import base64
import bz2
import hashlib
import json
import math
import signal
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from afterword.shared.names import REPLIES, RUN_TASK, WRITE_TASK
from afterword.shared.plurals import in_number
from tests.kit.ledger.hint_messages import hint_list, hint_message
from tests.kit.process_inspection import peak_mb
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until
from tests.kit.workers.probe_worker import CONTROL_CHANNEL, ProbeWorker

pytestmark = [pytest.mark.system, pytest.mark.redis]


def _hint() -> dict[str, Any]:
    hint: dict[str, Any] = json.loads(hint_message(RUN_TASK, "my secret", "h1"))
    return hint


def _exact(message: object) -> str:
    """Return a message as JSON without spaces, as hints are."""
    return json.dumps(message, separators=(",", ":"))


def _without(*path: str) -> str:
    """Return a hint that lacks what is at `path`."""
    hint = part = _hint()
    for name in path[:-1]:
        part = part[name]
    del part[path[-1]]
    return _exact(hint)


def _with(value: object, *path: str) -> str:
    """Return a hint that has `value` at `path`."""
    hint = part = _hint()
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    return _exact(hint)


def _packed(how: str, compress: Callable[[bytes], bytes]) -> str:
    """Return a hint as kombu would compress it: two kilobytes that become gigabytes."""
    body = compress(b"[" + b" " * 100_000_000 + b"]")
    properties = _hint()["properties"] | {"body_encoding": "base64"}
    headers = _hint()["headers"] | {"compression": how}
    packed = {"body": base64.b64encode(body).decode(), "content-encoding": "utf-8"}
    return _exact(_hint() | packed | {"headers": headers, "properties": properties})


#: What a queue may hold besides hints, and how it is noted.
NO_HINTS: dict[str, tuple[str | bytes, str]] = {
    "no JSON": ("no JSON", "not_a_hint"),
    "no text": (b"\xff\xfe", "not_a_hint"),
    "NUL": (b"\0\0\0", "not_a_hint"),
    "empty": ("", "not_a_hint"),
    "a scalar": ("1", "not_a_hint"),
    "a deep one": ("[" * 10_000, "not_a_hint"),
    "huge": (b"x" * 10_500_000, "too_large"),
    "no headers": (_without("headers"), "not_a_hint"),
    "no tag": (_without("properties", "delivery_tag"), "not_a_hint"),
    "a tag that is a list": (_with([1], "properties", "delivery_tag"), "not_a_hint"),
    "headers in a list": (_with(["task"], "headers"), "not_a_hint"),
    "an unknown task": (_with("afterword.gone", "headers", "task"), "unknown_task"),
    "limits of a wrong shape": (_with(["a", "b"], "headers", "timelimit"), "not_a_hint"),
    "limits of NaN": (_with([math.nan, math.nan], "headers", "timelimit"), "not_a_hint"),
    "a time to begin": (_with("2030-01-01T00:00:00", "headers", "eta"), "not_a_hint"),
    "a callback": (_with('[["j"],{},{"callbacks":[{}]}]', "body"), "not_a_hint"),
    "pickle": (_with("application/x-python-serialize", "content-type"), "not_a_hint"),
    "a bomb": (_packed("application/x-bz2", bz2.compress), "not_a_hint"),
    "another bomb": (_packed("application/x-gzip", zlib.compress), "too_large"),
    "too many arguments": (_with("[[1,2,3],{},{}]", "body"), "not_a_hint"),
    "another queue": (
        hint_message(WRITE_TASK, "l00_ann/ann", "h2"), "not_a_hint",
    ),
}  # fmt: skip

#: What the control channel may say besides commands.
NO_COMMANDS = {
    "a list": "[1]",
    "a number": "5",
    "a string": '"a"',
    "an empty object": "{}",
    "no JSON": "no JSON",
    "a deep one": "[" * 60_000,
    "no body": json.dumps(_hint() | {"body": None}),
    "a body that is a list": _with("[1]", "body"),
    "a bomb": _packed("application/x-bz2", bz2.compress),
}


@pytest.fixture(scope="module")
def worker() -> Iterator[ProbeWorker]:
    with Valkey() as server, ProbeWorker(server, "-c", "2") as worker:
        yield worker


@pytest.mark.finding(14)
def test_a_message_that_is_no_hint_is_reported_and_delays_no_hint(worker: ProbeWorker) -> None:
    names = [f"noop:beside {number}" for number in range(len(NO_HINTS))]
    good = [hint_message(RUN_TASK, name, f"hint of {name}") for name in names]
    wrong = [raw for raw, _ in NO_HINTS.values()]
    mixed = [wire for both in zip(good, wrong, strict=True) for wire in both]
    # More than there are slots, so that the test fails if each one takes a slot for good.
    worker.redis.lpush(hint_list(REPLIES), *mixed, *wrong, *wrong)
    worker.hint("noop:last")

    worker.wait_for("ended noop:last", *[f"ended {name}" for name in names])

    wait_until(lambda: not worker.redis.exists(hint_list(REPLIES)), "the queue is empty")
    # A job notes its end before Celery knows of it.
    wait_until(lambda: worker.ask("reserved") == [], "nothing is kept back")
    assert peak_mb(worker.process.pid) < 500
    for raw, reason in NO_HINTS.values():
        digest = hashlib.sha256(raw if isinstance(raw, bytes) else raw.encode()).hexdigest()
        assert worker.log.count(in_number(f"{reason}, {len(raw)} bytes, sha256 {digest}")) == 3
    assert "my secret" not in worker.log
    assert "Connection to broker lost" not in worker.log


@pytest.mark.finding(14)
def test_broken_commands_are_dropped_and_valid_ones_are_followed(worker: ProbeWorker) -> None:
    for said in NO_COMMANDS.values():
        worker.redis.publish(CONTROL_CHANNEL, said)
    worker.app.control.shutdown()
    worker.app.control.revoke("noop:after", terminate=True)

    worker.hint("noop:after")

    worker.wait_for("ended noop:after")
    wait_until(
        lambda: worker.log.count("message dropped from control") == len(NO_COMMANDS) + 2,
        "each is reported",
    )
    assert worker.process.poll() is None
    assert worker.ask("ping") == {"ok": "pong"}
    assert worker.ask("active_queues")
    assert worker.ask("registered")


@pytest.mark.finding(27)
def test_a_hint_that_comes_after_its_consumer_was_cancelled_is_put_back_as_it_was(
    worker: ProbeWorker,
) -> None:
    # The next answer to the request that is under way comes for a queue that nobody consumes.
    dropped = worker.log.count("message dropped")
    assert worker.ask("cancel_consumer", queue=REPLIES)
    hints = [hint_message(RUN_TASK, f"noop:kept {number}", str(number)) for number in range(3)]

    worker.redis.lpush(hint_list(REPLIES), *hints)

    wait_until(lambda: worker.ask("ping"), "it has read the answer")
    wait_until(
        lambda: worker.redis.lrange(hint_list(REPLIES), 0, -1) == hints[::-1], "all are back"
    )
    assert worker.ask("add_consumer", queue=REPLIES)
    worker.wait_for(*[f"ended noop:kept {number}" for number in range(3)])
    assert worker.log.count("message dropped") == dropped


@pytest.mark.finding(27)
def test_a_warm_stop_leaves_every_hint_as_it_was() -> None:
    """A worker that stops reads the answer to its last request, which may be a hint."""
    hints = [hint_message(RUN_TASK, f"noop:{n}", str(n)) for n in range(3)]
    with Valkey() as server, ProbeWorker(server, "-c", "2") as stopping:
        stopping.hint("hold:1")
        stopping.wait_for("began hold:1")
        polls = _polls(server)
        wait_until(lambda: _polls(server) > polls, "a request is over, and the next has begun")
        stopping.process.send_signal(signal.SIGTERM)
        stopping.wait_for_log("Warm shutdown")
        stopping.app.control.broadcast("ping")  # Celery looks at the signal when something comes
        wait_until(
            lambda: stopping.redis.pubsub_channels(CONTROL_CHANNEL) == [], "it consumes no more"
        )
        stopping.redis.lpush(hint_list(REPLIES), *hints)
        stopping.release()

        assert stopping.exit_code() == 0

        assert stopping.redis.lrange(hint_list(REPLIES), 0, -1) == hints[::-1]
        assert "dropped" not in stopping.log


def test_a_worker_that_holds_a_backlog_back_takes_the_oldest_and_the_newest_by_turns() -> None:
    with Valkey() as server, ProbeWorker(server, "-c", "1", PROBE_HOLDS_BACK="1") as worker:
        worker.hint("hold:0")
        wait_until(lambda: any("hold:0" in line for line in worker.seen), "the first runs")
        for number in range(1, 6):
            worker.hint(f"noop:{number}")
        worker.release()
        worker.wait_for(*[f"ended noop:{number}" for number in range(1, 6)])
        seen = worker.seen

    began = [line.removeprefix("began noop:") for line in seen if "began noop" in line]
    assert began in (
        ["5 ahead", "1", "4 ahead", "2", "3 ahead"],
        ["1", "5 ahead", "2", "4 ahead", "3"],
    )


def _polls(server: Valkey) -> int:
    """Return how many requests for hints the server has answered; each takes up to a second."""
    with server.client() as client:
        return int(client.info("commandstats")["cmdstat_blmpop"]["calls"])


def test_consuming_goes_on_after_the_broker_was_killed_twice_idle_and_busy() -> None:
    with Valkey() as notebook, Valkey() as broker, ProbeWorker(notebook, broker=broker) as worker:
        for number in range(2):
            broker.restart()
            worker.hint(f"noop:idle{number}")
            worker.wait_for(f"ended noop:idle{number}")
        worker.hint("hold:1")
        worker.wait_for("began hold:1")
        for number in range(2):
            broker.restart()
            worker.hint(f"noop:busy{number}")
            worker.wait_for(f"ended noop:busy{number}")
        worker.release()
        worker.wait_for("ended hold:1")
        assert worker.seen.count("began hold:1") == 1
        wait_until(lambda: worker.ask("active") == [], "nothing runs any more")


def test_a_limit_holds_while_the_broker_is_away() -> None:
    with Valkey() as notebook, Valkey() as broker, ProbeWorker(notebook, broker=broker) as worker:
        worker.hint("hold:1", task="probe.hard")
        worker.wait_for("began hold:1")
        broker.kill()
        worker.wait_for("cancelled hold:1")
        broker.start()
        worker.hint("noop:1")
        worker.wait_for("ended noop:1")
        wait_until(lambda: worker.ask("stats")["pool"]["running"] == 0, "nothing runs any more")
