"""Poison in the queues: noted and counted, and nothing that was accepted suffers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from afterword.producer.cli.main import cli
from afterword.shared.ledger.quarantine import MAX_NOTES
from afterword.shared.names import MEMORIES, REPLIES, RUN_TASK
from tests.kit.fault_runs.crash_run import SharedServers, shared_servers
from tests.kit.fault_runs.load_run import PATIENCE_S, LoadRun
from tests.kit.ledger.hint_messages import hint_list, hint_message
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until

pytestmark = [
    pytest.mark.system, pytest.mark.redis, pytest.mark.faults, pytest.mark.slow,
]  # fmt: skip

HINT = json.loads(hint_message(RUN_TASK, "canary", "h1"))

#: What is put into each queue, and what it is called afterwards.
POISON: dict[str, tuple[str | bytes, str]] = {
    "no JSON": ("canary", "not_a_hint"),
    "huge": (b"x" * 10_500_000, "too_large"),
    "no headers": (json.dumps(HINT | {"headers": {}}), "not_a_hint"),
    "unknown task": (
        hint_message(RUN_TASK, "canary", "h1").replace(RUN_TASK, "afterword.gone"), "unknown_task",
    ),
    "too many ids": (json.dumps(HINT | {"body": '[["canary","b"],{},{}]'}), "not_a_hint"),
}  # fmt: skip


@pytest.fixture(scope="module")
def on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedServers]:
    with shared_servers(tmp_path_factory.mktemp("quarantine")) as made:
        yield made


@pytest.fixture
def load_run(on: SharedServers) -> Iterator[LoadRun]:
    with Valkey("--appendonly", "yes") as valkey, LoadRun(on, valkey) as made:
        made.start(2)
        yield made


def run(load_run: LoadRun, *arguments: str) -> str:
    """Return what the command line prints."""
    ran = CliRunner(env=load_run.environ).invoke(cli, arguments, catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    return ran.output


def push(load_run: LoadRun, wire: str | bytes, queue: str) -> None:
    """Put something into a queue of the load_run's workers."""
    load_run.valkey.client().lpush(hint_list(queue, namespace=load_run.settings.namespace), wire)


def notes(load_run: LoadRun) -> list[dict[str, object]]:
    """Return what the command lists."""
    found: list[dict[str, object]] = json.loads(run(load_run, "quarantine", "list", "--json"))
    return found


def test_poison_is_noted_counted_and_costs_nothing_else(load_run: LoadRun) -> None:
    expected = set()
    for wire, reason in POISON.values():
        for queue in (REPLIES, MEMORIES):
            push(load_run, wire, queue)
            data = wire if isinstance(wire, bytes) else wire.encode()
            expected.add((queue, reason, len(data), hashlib.sha256(data).hexdigest()))

    wait_until(lambda: len(notes(load_run)) == 2 * len(POISON), "all is noted", PATIENCE_S)

    found = [note["found"] for note in notes(load_run)]
    assert {(one["queue"], one["reason"], one["size"], one["sha256"]) for one in found} == expected  # type: ignore[index]
    assert {one["task"] for one in found} == {"", "afterword.gone"}  # type: ignore[index]
    counted = json.loads(run(load_run, "status", "--json"))["quarantined"]
    assert sum(counted.values()) == 2 * len(POISON)
    assert counted["unknown_task"] == 2
    assert "2 unknown_task" in run(load_run, "status")
    assert "afterword.gone" in run(load_run, "quarantine", "list")
    assert "Add --apply" in run(load_run, "quarantine", "clear")
    assert notes(load_run), "it was dry"
    assert run(load_run, "quarantine", "clear", "--apply") == f"deleted: {2 * len(POISON)} notes\n"
    assert notes(load_run) == []
    assert json.loads(run(load_run, "status", "--json"))["quarantined"] == counted
    everything = "".join(
        str(load_run.inspector.redis.xrange(key))
        for key in load_run.inspector.redis.scan_iter("*:quarantine")
    )
    load_run.answered_after_s()
    assert not load_run.settle().wrong
    assert "canary" not in everything + load_run.logs()


def test_no_more_notes_are_kept_than_the_newest(load_run: LoadRun) -> None:
    many = MAX_NOTES + 50
    for number in range(many):
        push(load_run, f"canary {number}", REPLIES)
    wait_until(
        lambda: (
            load_run.inspector.redis.hget(load_run.inspector.keys.quarantined, "not_a_hint")
            == str(many)
        ),
        "all is counted", PATIENCE_S,
    )  # fmt: skip
    assert load_run.inspector.redis.xlen(load_run.inspector.keys.quarantine) == MAX_NOTES


def test_purged_queues_under_load_lose_nothing(load_run: LoadRun) -> None:
    for number in range(200):
        load_run.submit()
        if number in (50, 100, 199):
            load_run.inspector.drop_hints()
    wrong = load_run.settle().wrong
    assert not wrong, wrong
    assert len(load_run.accepted) == 200
