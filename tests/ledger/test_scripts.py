"""The text of the scripts: each is documented and used, and spells keys as Python does."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest

from afterword.shared.hints import TASK_OF
from afterword.shared.ledger import steps
from afterword.shared.names import MEMORIES, REPLIES, Keys, queue_list
from afterword.shared.transport.scripts import _definitions, _used, call_of, script
from afterword.shared.transport.signatures import (
    declared_scripts,
    declares,
    lua_source,
    parameters,
    script_names,
    taking,
)
from tests.kit.ledger.builder import LedgerInspector
from tests.kit.ledger.hint_messages import hint_message

SHARED, SINGLE, BATCHED = "_lib", "single", "batched"
STEPS = script_names()
ROOT = "ns:{0a}"
PRIORITIES = {"high": 0, "normal": 3, "low": 6}

#: Every key and channel, as Lua and as Python spell it.
KEYS: dict[str, Callable[[Keys], str]] = {
    "OPEN": lambda keys: keys.open,
    "DEAD_TURNS": lambda keys: keys.dead_turns,
    "FAILED_JOBS": lambda keys: keys.failed_jobs,
    "OPEN_COUNTS": lambda keys: keys.open_counts,
    "COUNTS": lambda keys: keys.counts,
    "FENCES": lambda keys: keys.fences,
    "FENCED": lambda keys: keys.fenced,
    "DUPLICATE_CHECKS": lambda keys: keys.duplicate_checks,
    "LATE_COPIES": lambda keys: keys.late_copies,
    "LOST_ATTEMPTS": lambda keys: keys.lost_attempts,
    "MEMORY_REQUESTS": lambda keys: keys.memory_requests,
    "ORDERS": lambda keys: keys.orders,
    "ORDER_ENDS": lambda keys: keys.order_ends,
    "ENDED_ORDERS": lambda keys: keys.ended_orders,
    "SLOTS": lambda keys: keys.slots,
    "parked_key('x')": lambda keys: keys.parked("x"),
    "ERASURES": lambda keys: keys.erasures,
    "WORKERS": lambda keys: keys.workers,
    "WORKER_STATUS": lambda keys: keys.worker_status,
    "QUARANTINE": lambda keys: keys.quarantine,
    "QUARANTINED": lambda keys: keys.quarantined,
    "NEWER_VERSION": lambda keys: keys.newer_version,
    "WITNESSES": lambda keys: keys.witnesses,
    "PUT_BACK": lambda keys: keys.put_back,
    "IDENTITY": lambda keys: keys.identity,
    "SEQUENCE": lambda keys: keys.sequence,
    "GATES": lambda keys: keys.gates,
    "GATE_NEWS": lambda keys: keys.gate_news,
    "REPLAY_RUNS": lambda keys: keys.replay_runs,
    "AUDIT": lambda keys: keys.audit,
    "AT_CAP": lambda keys: keys.at_cap,
    "CAP_PARTS": lambda keys: keys.cap_parts,
    "share_key('x')": lambda keys: keys.share("x"),
    "share_clock_key('x')": lambda keys: keys.share_clock("x"),
    "share_rest_key('x')": lambda keys: keys.share_rest("x"),
    "displaced_key('x')": lambda keys: keys.displaced("x"),
    "share_queue_key('x', 'y')": lambda keys: keys.share_queue("x", "y"),
    "begun_key('7')": lambda keys: keys.begun(7),
    "capped_key('x')": lambda keys: keys.capped("x"),
    "running_key('x')": lambda keys: keys.running("x"),
    "job_key('x')": lambda keys: keys.job("x"),
    "events_key('x')": lambda keys: keys.events("x"),
    "wake_channel('x')": lambda keys: keys.wake("x"),
    "idempotency_key('x')": lambda keys: keys.idempotency("x"),
    "lane_key('x')": lambda keys: keys.lane("x"),
    "erasure_key('x')": lambda keys: keys.erasure("x"),
    "behind_key('x')": lambda keys: keys.behind("x"),
    "conversation_key('x')": lambda keys: keys.conversation("x"),
    "conversation_queue_key('x')": lambda keys: keys.conversation_queue("x"),
    "usage_key('x')": lambda keys: keys.usage("x"),
    "story_key('x')": lambda keys: keys.story("x"),
    "tenant_usage_key('x')": lambda keys: keys.tenant_usage("x"),
    "memory_request_key('x')": lambda keys: keys.memory_request("x"),
    "mending_key('x')": lambda keys: keys.mending("x"),
    "given_key('x')": lambda keys: keys.given("x"),
    "MESSAGE_BATCHES": lambda keys: keys.message_batches,
    "message_batch_key('x')": lambda keys: keys.message_batch("x"),
    "message_batch_turns_key('x')": lambda keys: keys.message_batch_turns("x"),
    "migration_key('x')": lambda keys: keys.migration("x"),
    "user_jobs_key('x')": lambda keys: keys.user_jobs("x"),
    "imported_key('x')": lambda keys: keys.imported("x"),
    "place_key('held', 'x')": lambda keys: keys.place("held", "x"),
    "gate_key('x')": lambda keys: keys.gate("x"),
    "gate_failures_key('x')": lambda keys: keys.gate_failures("x"),
    "spent_key('x')": lambda keys: keys.spent("x"),
    "SPENDERS": lambda keys: keys.spenders,
    "quota_key('x')": lambda keys: keys.quota("x"),
    "run_key('x')": lambda keys: keys.replay_run("x"),
    "todo_key('x')": lambda keys: keys.replay_todo("x"),
    "outcomes_key('x')": lambda keys: keys.replay_outcomes("x"),
}

#: What only Python names.
ONLY_PYTHON = {
    "submitted", "root", "namespace", "shard", "reconciled", "access_keys", "samples", "sampled",
    "balanced", "session_secret", "ended_sessions",
}  # fmt: skip


def evaluate(
    inspector: LedgerInspector, body: str, *arguments: str | int, broker: str = "b:"
) -> Sequence[object]:
    """Run a few lines after what they use of the shared part; return what they return."""
    text = "".join(_used(_definitions(SHARED), body)) + body  # Lua takes no more than 200 locals
    return inspector.redis.eval(text, 1, inspector.keys.root, broker, *arguments)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", [SHARED, SINGLE, BATCHED, *STEPS])
def test_every_script_begins_with_what_it_does_takes_and_answers(name: str) -> None:
    lines = lua_source(name).splitlines()
    head = list(itertools.takewhile(lambda line: line.startswith("--"), lines))

    assert re.match(r"-- [A-Z].+", head[0]), "a sentence first"
    if name != SHARED:
        assert "Answers" in "\n".join(head)
    if name in STEPS:
        body = "\n".join(lines[len(head) :])
        assert "ARGV" not in body, "arguments have names"
        for parameter in parameters(name):
            assert re.search(rf"\b{parameter.name}\b", body), f"{parameter.name} is not used"


def test_python_declares_the_arguments_of_every_script_once() -> None:
    assert sorted(declared_scripts()) == list(STEPS)


class Misnamed(NamedTuple):
    lease: int
    leases: Sequence[tuple[str, str]]


class Mistyped(NamedTuple):
    lease_ms: str
    leases: Sequence[tuple[str, str]]


class Misordered(NamedTuple):
    leases: Sequence[tuple[str, str]]
    lease_ms: int


class Short(NamedTuple):
    lease_ms: int


@pytest.mark.parametrize("wrong", [Misnamed, Mistyped, Misordered, Short])
def test_arguments_that_the_head_does_not_declare_are_refused_at_import(
    wrong: type[tuple[object, ...]],
) -> None:
    with pytest.raises(TypeError, match=r"job/renew\.lua do not agree"):
        declares("job/renew")(wrong)


def test_arguments_are_sent_as_redis_takes_them() -> None:
    held = steps.RenewLeases(lease_ms=5, leases=[("j", "1"), ("l", "2")])
    snooze = steps.SnoozeJob(
        id="j", fence="1", delay_ms=0, counted=True, code="", tried=False, note="n"
    )

    assert call_of("r", "b", held).arguments == ("b", 5, "j", "1", "l", "2")
    assert call_of("r", "b", snooze).arguments == ("b", "j", "1", 0, 1, "", 0, "n")


@pytest.mark.redis
def test_arguments_arrive_under_their_names_and_types(inspector: LedgerInspector) -> None:
    code = taking("job/renew") + "return { type(lease_ms), leases[2].id, leases[2].fence, #leases }"
    found = inspector.redis.eval(code, 1, "k", "b:", 5, "j", "1", "l", "2")

    assert found == ["number", "l", "2", 2]
    code = taking("job/snooze") + "return { tostring(counted), tostring(tried), delay_ms + 1 }"
    assert inspector.redis.eval(code, 1, "k", "b:", "j", "1", 7, 1, "", 0) == ["true", "false", 8]


@pytest.mark.parametrize("name", STEPS)
def test_every_way_out_of_a_script_carries_the_hints_left_to_send(name: str) -> None:
    """Every top-level `return` goes through `answer`, or hints to a broker elsewhere are lost."""
    lines = lua_source(name).splitlines()
    outside = _outside_functions(lines)

    assert lines[-1].startswith("return ")
    for line in outside:
        for found in re.findall(r"\breturn\b(.*)", line):
            assert re.match(r" (answer|granted)\(", found), line


def _outside_functions(lines: list[str]) -> list[str]:
    kept, inside = [], False
    for line in lines:
        if re.match(r"local function", line):
            inside = not line.rstrip().endswith(" end")
        elif inside:
            inside = line.rstrip() != "end"
        else:
            kept.append(line)
    return kept


@pytest.mark.parametrize(
    ("name", "batched"), [*((name, False) for name in STEPS), ("job/submit", True)], ids=str
)
def test_a_script_carries_what_it_uses_of_the_shared_part_and_nothing_else(
    name: str, *, batched: bool
) -> None:
    text = re.sub(r"--.*", "", script(name, batched=batched).text)
    shared = lua_source(SHARED)
    for line in re.findall(r"^local (?:function )?(\w+(?:, \w+)*)", shared, re.MULTILINE):
        names = line.split(", ")
        carried = re.search(rf"^local (?:function )?{re.escape(line)}\b", text, re.MULTILINE)
        assert bool(carried) == any(len(re.findall(rf"\b{each}\b", text)) > 1 for each in names)


@pytest.mark.redis
def test_lua_and_python_spell_the_same_keys(inspector: LedgerInspector) -> None:
    lua = evaluate(inspector, f"return {{ {', '.join(KEYS)} }}")

    assert lua == [spelled(inspector.keys) for spelled in KEYS.values()]


def test_every_key_is_spelled_in_the_shared_part_and_compared_with_python() -> None:
    spelled = re.findall(r"^local (?:function )?(\w+).*root \.\.", lua_source(SHARED), re.MULTILINE)

    assert sorted(spelled) == sorted(name.partition("(")[0] for name in KEYS)
    assert not [name for name in STEPS if "root .." in lua_source(name)]
    members = {name for name in vars(Keys) if not name.startswith("_")} - ONLY_PYTHON
    assert len(members) == len(KEYS)


@pytest.mark.redis
@pytest.mark.parametrize("step", PRIORITIES.values())
def test_the_queues_have_the_names_that_kombu_means(inspector: LedgerInspector, step: int) -> None:
    (name, queue, told) = evaluate(inspector, f"return {{ queue_key('replies.{step}') }}")

    assert name == queue_list("b", REPLIES, step)
    assert (queue, told) == (REPLIES, str(step))


@pytest.mark.redis
@pytest.mark.parametrize("arg", [f"j00_{7:032x}", "l00_default/a%20b%22%5C~._-"])
@pytest.mark.parametrize(("queue", "step"), [(REPLIES, 0), (REPLIES, 6), (MEMORIES, 0)])
def test_the_message_is_the_same_byte_by_byte(
    inspector: LedgerInspector, queue: str, step: int, arg: str
) -> None:
    text = evaluate(inspector, f"return hint_message('{queue}', '{step}', ARGV[2], 7)", arg)

    assert text == hint_message(TASK_OF[queue], arg, f"{arg}.7", step=step)


@pytest.mark.redis
def test_no_two_messages_have_the_same_name(inspector: LedgerInspector) -> None:
    evaluate(inspector, "hint('replies.0', 'j') hint('replies.0', 'j')")

    assert len(set(inspector.redis.lrange("b:replies", 0, -1))) == 2


def test_a_shard_is_spelt_the_same_everywhere() -> None:
    assert Keys("ns", 10).root == ROOT
