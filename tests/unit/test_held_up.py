"""What a replay says that it waits for: only what the work it does again depends on."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from afterword.producer.cli import held_up as module
from afterword.producer.cli.checks.finding import Finding, fail
from afterword.producer.cli.held_up import Concerned, held_up, told
from afterword.producer.cli.replay_progress import Progress
from afterword.shared.errors import Fault, LedgerUnavailable
from afterword.shared.ledger.dead_letter_records import ReplayPace, ReplayRun, ReplayState
from afterword.shared.ledger.order_records import OrderKind, SteeringOrder
from afterword.shared.ledger.records import Gate, GateState, Overview, WorkerSeen
from afterword.shared.settings import Settings
from afterword.shared.version import __version__
from tests.kit.waiting import until

NOW = datetime(2026, 5, 8, tzinfo=UTC)
TURNS, JOBS = Concerned(turns=True, jobs=False), Concerned(turns=False, jobs=True)
BOTH = [
    WorkerSeen("a@here", "replies", NOW, version=__version__, instance="a"),
    WorkerSeen("b@here", "memories", NOW, version=__version__, instance="b"),
]
RUN = ReplayRun(
    id="r1",
    by="ann",
    started_at=NOW,
    updated_at=NOW,
    filter={},
    pace=ReplayPace(),
    state=ReplayState.RUNNING,
    reason="",
    dead_letters=3,
    canary_passed=False,
)


def shut(name: str, state: GateState = GateState.SHUT) -> Gate:
    return Gate(name, state, "event_failed", Fault.PROVIDER, NOW, NOW)


def order(kind: OrderKind, tenant: str | None = None) -> SteeringOrder:
    return SteeringOrder(kind, "kim", NOW, until=None, tenant=tenant)


def found(
    concerned: Concerned,
    *,
    workers: list[WorkerSeen] = BOTH,
    gates: list[Gate] | None = None,
    orders: list[SteeringOrder] | None = None,
    memory: str = "embedded",
    fallbacks: str = "",
) -> list[str]:
    shards = [Overview(NOW, 0, 0, 0, 0, tuple(workers), {}, ())]
    told = {"memory": memory, "model": "first", "fallback_models": fallbacks}
    settings = Settings.model_validate(told)
    return [
        f"{one.check}: {one.detail}"
        for one in held_up(concerned, shards, gates or [], orders or [], settings)
    ]


def test_nothing_is_said_of_a_fleet_that_works() -> None:
    older = WorkerSeen("c@here", "replies", NOW, version=f"{__version__}.old")
    assert found(Concerned(turns=True, jobs=True), workers=[*BOTH, older]) == []


@pytest.mark.parametrize(
    ("concerned", "check"), [(TURNS, "memory workers"), (JOBS, "response workers")]
)
def test_a_kind_of_workers_that_is_missing_holds_up_its_work_only(
    concerned: Concerned, check: str
) -> None:
    assert found(concerned, workers=[]) == [f"{check}: none running"]


@pytest.mark.parametrize(
    ("concerned", "memory", "names"),
    [
        (TURNS, "hosted", ["remember"]),
        (TURNS, "selfhosted", ["remember", "claude/m"]),
        (JOBS, "hosted", ["claude/m"]),
    ],
)
def test_a_shut_gate_holds_up_what_goes_through_it(
    concerned: Concerned, memory: str, names: list[str]
) -> None:
    gates = [
        shut("recall"),
        shut("remember"),
        shut("claude/m"),
        shut("claude/n", GateState.OPENING),
    ]
    said = found(concerned, gates=gates, memory=memory)
    assert [one.partition(" is shut")[0] for one in said] == [f"gates: {name}" for name in names]
    assert all("event_failed (provider)" in one for one in said)


@pytest.mark.parametrize(
    ("fallbacks", "names", "held"),
    [("", ["first"], 1), ("second", ["first"], 0), ("second", ["first", "second"], 2)],
)
def test_a_gate_holds_up_no_job_while_a_fallback_replies(
    fallbacks: str, names: list[str], held: int
) -> None:
    gates = [shut(f"claude/{name}") for name in names]
    for concerned in (JOBS, Concerned(turns=True, jobs=True)):
        assert len(found(concerned, gates=gates, fallbacks=fallbacks)) == held


def test_an_order_holds_up_its_kind_of_work_of_its_tenant() -> None:
    orders = [
        order(OrderKind.PAUSE_MEMORIES),
        order(OrderKind.PAUSE_REPLIES, "acme"),
        order(OrderKind.BLOCK, "other"),
        order(OrderKind.LIMITS, "acme"),
    ]
    assert [one[:21] for one in found(TURNS, orders=orders)] == ["orders: pause-memorie"]
    assert len(found(JOBS, orders=orders)) == 2
    (said,) = found(Concerned(turns=False, jobs=True, tenant="acme"), orders=orders)
    assert "pause-replies" in said


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ({}, Concerned(turns=True, jobs=True)),
        ({"kind": "memory", "tenant": "acme"}, Concerned(turns=True, jobs=False, tenant="acme")),
        ({"kind": "reply"}, JOBS),
    ],
)
def test_of_a_run_only_the_filter_is_known(criteria: dict[str, str], expected: Concerned) -> None:
    assert Concerned.by_filter(criteria) == expected


async def test_what_holds_a_run_up_is_said_once_and_only_while_it_stands_still(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "LOOK_S", 0.01)
    monkeypatch.setattr(module, "STILL_S", 0.02)
    gate, looks = fail("gates", "remember is shut", "Nothing."), 0

    async def look(_: Concerned) -> list[Finding]:
        nonlocal looks
        looks += 1
        if looks == 2:
            raise LedgerUnavailable
        return [gate]

    monkeypatch.setattr(module, "look", look)
    progress = Progress()
    async with told(progress, TURNS):
        assert not progress.stands_still(0), "it has not begun"
        progress(RUN)
        await until(lambda: looks > 3, "it is looked at again and again")
    printed = capsys.readouterr().err
    assert printed.count("run r1: held up by gates: remember is shut\n  -> Nothing.\n") == 1
