"""Poison in the queues: noted and counted, and nothing that was accepted suffers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from afterword.producer.cli.main import cli
from afterword.shared.hints import envelope
from afterword.shared.ledger.quarantine import MOST_KEPT
from afterword.shared.names import MEMORIES, REPLIES, RUN_TASK, queue_prefix
from tests.kit.fault_runs.crash_run import Ground, ground
from tests.kit.fault_runs.load_run import PATIENCE_S, Siege
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until

pytestmark = [
    pytest.mark.system, pytest.mark.redis, pytest.mark.faults, pytest.mark.slow,
    pytest.mark.timeout(180),
]  # fmt: skip

HINT = json.loads(envelope(RUN_TASK, "canary", "h1"))

#: What is put into each queue, and what it is called afterwards.
POISON: dict[str, tuple[str | bytes, str]] = {
    "no JSON": ("canary", "no_message"),
    "NUL": (b"\0\0\0", "no_message"),
    "a list": ("[1]", "no_message"),
    "huge": (b"x" * 10_500_000, "too_large"),
    "a huge hint": (envelope(RUN_TASK, "canary" * 2_000_000, "h2"), "too_large"),
    "no headers": (json.dumps(HINT | {"headers": {}}), "no_task"),
    "unknown task": (
        json.dumps(HINT | {"headers": HINT["headers"] | {"task": "afterword.gone"}}),
        "unknown_task",
    ),
    "unknown content type": (json.dumps(HINT | {"content-type": "canary/x"}), "undecodable"),
    "pickle": (
        json.dumps(HINT | {"content-type": "application/x-python-serialize"}), "undecodable",
    ),
    "unknown encoding": (
        json.dumps(HINT | {"properties": HINT["properties"] | {"body_encoding": "morse"}}),
        "no_message",
    ),
    "no JSON inside": (json.dumps(HINT | {"body": "{canary"}), "undecodable"),
    "a body of a number": (json.dumps(HINT | {"body": "1"}), "malformed"),
    "an id that is a number": (json.dumps(HINT | {"body": "[[1],{},{}]"}), "malformed"),
    "too many ids": (json.dumps(HINT | {"body": '[["canary","b"],{},{}]'}), "malformed"),
}  # fmt: skip


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    with ground(tmp_path_factory.mktemp("quarantine")) as made:
        yield made


@pytest.fixture
def siege(on: Ground) -> Iterator[Siege]:
    with Valkey("--appendonly", "yes") as valkey, Siege(on, valkey) as made:
        made.start(2)
        yield made


def run(siege: Siege, *arguments: str) -> str:
    """Return what the command line prints."""
    ran = CliRunner(env=siege.environ).invoke(cli, arguments, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.output


def push(siege: Siege, wire: str | bytes, queue: str) -> None:
    """Put something into a queue of the siege's workers."""
    siege.valkey.client().lpush(queue_prefix(siege.settings.namespace) + queue, wire)


def notes(siege: Siege) -> list[dict[str, object]]:
    """Return what the command lists."""
    found: list[dict[str, object]] = json.loads(run(siege, "quarantine", "list", "--json"))
    return found


def test_poison_is_noted_counted_and_costs_nothing_else(siege: Siege) -> None:
    expected = set()
    for wire, reason in POISON.values():
        for queue in (REPLIES, MEMORIES):
            push(siege, wire, queue)
            data = wire if isinstance(wire, bytes) else wire.encode()
            expected.add((queue, reason, len(data), hashlib.sha256(data).hexdigest()))

    wait_until(lambda: len(notes(siege)) == 2 * len(POISON), "all is noted", PATIENCE_S)

    found = [note["found"] for note in notes(siege)]
    assert {(one["queue"], one["reason"], one["size"], one["sha256"]) for one in found} == expected  # type: ignore[index]
    assert {one["task"] for one in found} == {"", "afterword.gone"}  # type: ignore[index]
    counted = json.loads(run(siege, "status", "--json"))["quarantined"]
    assert sum(counted.values()) == 2 * len(POISON)
    assert counted["unknown_task"] == 2
    assert "2 unknown_task" in run(siege, "status")
    assert "afterword.gone" in run(siege, "quarantine", "list")
    assert run(siege, "quarantine", "clear") == f"cleared: {2 * len(POISON)}\n"
    assert notes(siege) == []
    assert json.loads(run(siege, "status", "--json"))["quarantined"] == counted
    everything = "".join(
        str(siege.book.redis.xrange(key)) for key in siege.book.redis.scan_iter("*:quarantine")
    )
    siege.answered_after_s()
    assert not siege.settle().wrong
    assert "canary" not in everything + siege.logs()


def test_no_more_notes_are_kept_than_the_newest(siege: Siege) -> None:
    many = MOST_KEPT + 50
    for number in range(many):
        push(siege, f"canary {number}", REPLIES)
    wait_until(
        lambda: siege.book.counts().get("quarantined:no_message:replies") == many,
        "all is counted", PATIENCE_S,
    )  # fmt: skip
    assert siege.book.redis.xlen(siege.book.keys.quarantine) == MOST_KEPT


def test_purged_queues_under_load_lose_nothing(siege: Siege) -> None:
    for number in range(200):
        siege.submit()
        if number in (50, 100, 199):
            siege.book.drop_hints()
    wrong = siege.settle().wrong
    assert not wrong, wrong
    assert len(siege.accepted) == 200
