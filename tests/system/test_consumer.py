"""Messages that are not hints, and failures of the broker, harm no other job."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from afterword.shared.names import REPLIES, RUN_TASK
from tests.kit.ledger.hint_messages import hint_message
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until
from tests.kit.workers.probe_worker import ProbeWorker

pytestmark = [pytest.mark.system, pytest.mark.redis]


def _hint() -> dict[str, Any]:
    hint: dict[str, Any] = json.loads(hint_message(RUN_TASK, "my secret", "h1"))
    return hint


def _without(*path: str) -> str:
    """Return a hint that lacks what is at `path`."""
    hint = part = _hint()
    for name in path[:-1]:
        part = part[name]
    del part[path[-1]]
    return json.dumps(hint)


def _with(value: object, *path: str) -> str:
    """Return a hint that has `value` at `path`."""
    hint = part = _hint()
    for name in path[:-1]:
        part = part[name]
    part[path[-1]] = value
    return json.dumps(hint)


NO_MESSAGES: dict[str, str | bytes] = {
    "no JSON": "no JSON",
    "no text": b"\xff\xfe",
    "empty": "",
    "a scalar": "1",
    "nothing": "null",
    "a list": "[1]",
    "a deep one": "[" * 100_000,
    "an empty object": "{}",
    "no properties": _without("properties"),
    "scalar properties": _with(1, "properties"),
    "no tag": _without("properties", "delivery_tag"),
    "a tag that is a list": _with([1], "properties", "delivery_tag"),
    "a tag that is true": _with(True, "properties", "delivery_tag"),
    "no delivery info": _without("properties", "delivery_info"),
    "unknown body encoding": _with("morse", "properties", "body_encoding"),
    "headers in a list": _with(["task"], "headers"),
}

NO_HINTS: dict[str, str | bytes] = {
    "no headers": _without("headers"),
    "no id": _without("headers", "id"),
    "an id that is a list": _with([1], "headers", "id"),
    "a task that is a list": _with([1], "headers", "task"),
    "an unknown task": _with("afterword.gone", "headers", "task"),
    "limits of the wrong shape": _with([1], "headers", "timelimit"),
    "no body": _without("body"),
    "a null body": _with(None, "body"),
    "a body of null": _with("null", "body"),
    "a short body": _with("[1]", "body"),
    "a scalar body": _with("1", "body"),
    "a body that is no JSON": _with("{my secret", "body"),
    "no content type": _without("content-type"),
    "pickle": _with("application/x-python-serialize", "content-type"),
    "arguments that are a scalar": _with("[1,{},{}]", "body"),
    "keywords that are a list": _with("[[],[],{}]", "body"),
    "too many arguments": _with("[[1,2,3],{},{}]", "body"),
    "embed that is a list": _with("[[],{},[1]]", "body"),
}


@pytest.fixture(scope="module")
def worker() -> Iterator[ProbeWorker]:
    with Valkey() as server, ProbeWorker(server, "-c", "2") as worker:
        yield worker


@pytest.mark.parametrize("what", [*NO_MESSAGES, *NO_HINTS])
def test_a_wrong_message_harms_no_other(worker: ProbeWorker, what: str) -> None:
    # More than there are slots, so that the test fails if each one takes a slot for good.
    for _ in range(3):
        worker.redis.lpush(REPLIES, (NO_MESSAGES | NO_HINTS)[what])
    good = f"noop:{what}"
    worker.hint(good)
    worker.wait_for(f"ended {good}")
    assert worker.process.poll() is None
    assert not worker.redis.exists(REPLIES)
    wait_until(lambda: worker.ask("reserved") == [], "none is kept")
    assert "my secret" not in worker.log
    assert "Connection to broker lost" not in worker.log


def test_bytes_that_are_no_message_harm_none_taken_with_them(worker: ProbeWorker) -> None:
    names = [f"noop:beside {number}" for number in range(len(NO_MESSAGES))]
    good = [hint_message(RUN_TASK, name, f"hint of {name}") for name in names]
    mixed = [wire for both in zip(good, NO_MESSAGES.values(), strict=True) for wire in both]
    worker.redis.lpush(REPLIES, *mixed)
    worker.wait_for(*[f"ended {name}" for name in names])
    assert worker.process.poll() is None


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
        assert worker.ask("stats")["pool"]["running"] == 0
