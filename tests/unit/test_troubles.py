"""What needs attention on the overview: each trouble is told, with the page that mends it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from afterword.producer.web.app import PAGES
from afterword.producer.web.troubles import HOLDING_UP, missing_kinds, order_text, troubles
from afterword.shared.errors import Fault
from afterword.shared.ledger.order_records import OrderKind, SteeringOrder, TenantLimits
from afterword.shared.ledger.records import Gate, GateState

AT = datetime(2026, 5, 8, tzinfo=UTC)
IDLE = {"ready": 0, "delayed": 0, "running": 0, "oldest_ready_s": 0.0}


def worker(queue: str, *, draining: bool = False) -> dict[str, Any]:
    seen = {"memory": "hosted", "memory_place": "a"}
    return {"queue": queue, "name": f"host:{queue}", "draining": draining} | seen


def status(**changes: Any) -> dict[str, Any]:
    well = {
        "queues": {"replies": IDLE, "memories": IDLE},
        "workers": [worker("replies"), worker("memories")],
        "gates": [],
        "orders": [],
    }
    return well | changes


def told(found: dict[str, Any], **changes: Any) -> list[tuple[str, str, str]]:
    options: dict[str, Any] = {"problems": [], "over_budget": 0, "remembers": True} | changes
    return [(one.tone, one.text, one.path) for one in troubles(found, **options)]


def order(kind: OrderKind, **changes: Any) -> SteeringOrder:
    return SteeringOrder(kind, "olga", AT, None, **changes)


def test_a_fleet_that_is_well_says_nothing() -> None:
    assert told(status()) == []


def test_workers_with_different_memories_are_told() -> None:
    other = worker("memories") | {"memory": "embedded"}
    ((tone, text, path),) = told(status(workers=[worker("replies"), other]))
    assert (tone, path) == ("late", "/workers")
    assert "host:memories uses embedded, host:replies uses hosted" in text

    elsewhere = worker("memories") | {"memory_place": "b"}
    ((_, text, _),) = told(status(workers=[worker("replies"), elsewhere]))
    assert "uses hosted at another address" in text
    older = worker("memories") | {"memory": "", "memory_place": ""}
    assert told(status(workers=[worker("replies"), older])) == []


@pytest.mark.parametrize(
    ("workers", "kinds"),
    [
        ([], ["responses", "memories"]),
        ([worker("replies")], ["memories"]),
        ([worker("memories")], ["responses"]),
        ([worker("replies+memories")], []),
        ([worker("replies"), worker("memories", draining=True)], ["memories"]),
    ],
)
def test_a_kind_of_workers_of_which_none_takes_work_is_missing(
    workers: list[dict[str, Any]], kinds: list[str]
) -> None:
    assert missing_kinds(status(workers=workers), remembers=True) == kinds


def test_a_missing_kind_is_bad_once_something_waits_for_it() -> None:
    found = status(workers=[worker("replies")])
    ((tone, text, path),) = told(found)
    assert (tone, path) == ("late", "/workers")
    assert "start one with afterword worker memories" in text
    found["queues"] = {"replies": IDLE, "memories": IDLE | {"delayed": 1}}
    assert told(found)[0][:2] == (
        "bad",
        "No memory worker takes work, and 1 waits: start one with afterword worker memories.",
    )


def test_without_a_memory_backend_no_memory_worker_is_missed() -> None:
    found = status(workers=[worker("replies")])
    assert told(found, remembers=False) == []
    found["queues"] = {"replies": IDLE, "memories": IDLE | {"ready": 2}}
    assert [tone for tone, *_ in told(found, remembers=False)] == ["bad"]


def test_gates_that_are_not_open_are_told() -> None:
    shut = Gate("claude/m", GateState.SHUT, "overloaded", Fault.PROVIDER, AT, AT)
    opening = Gate("recall", GateState.OPENING, "timeout", Fault.PROVIDER, AT, AT)
    found = told(status(gates=[shut, opening]))
    assert [(tone, path) for tone, _, path in found] == [("bad", "/gates"), ("late", "/gates")]
    assert "Gate claude/m is shut, overloaded (provider)." in found[0][1]


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (order(OrderKind.PAUSE_REPLIES), "Replies to everybody are paused by olga"),
        (
            order(OrderKind.PAUSE_MEMORIES, tenant="acme", waiting=1200, reason="mem0 moves"),
            "Writes to memory of tenant acme are paused by olga; 1,200 wait: mem0 moves",
        ),
        (
            order(OrderKind.BLOCK, tenant="acme", user_id="bob"),
            "User bob of acme is blocked by olga",
        ),
        (
            order(OrderKind.SLOW, tenant="acme", every_s=5.0),
            "Tenant acme gets one reply in 5.0 s by olga",
        ),
    ],
)
def test_who_is_held_up_by_an_order_is_told(given: SteeringOrder, text: str) -> None:
    assert order_text(given) == text
    assert told(status(orders=[given])) == [("late", f"{text}.", "/orders")]


def test_orders_that_hold_up_nobody_are_not_told() -> None:
    limits = order(OrderKind.LIMITS, tenant="acme", limits=TenantLimits(weight=2))
    drain = order(OrderKind.DRAIN, worker="host:1")
    assert told(status(orders=[limits, drain])) == []
    assert {limits.kind, drain.kind} | set(HOLDING_UP) == set(OrderKind)


def test_of_many_orders_those_are_told_for_which_most_waits() -> None:
    orders = [order(OrderKind.BLOCK, tenant=f"t{n}", waiting=n) for n in range(9)]
    found = [text for _, text, _ in told(status(orders=orders))]
    assert [text.split()[1] for text in found[:5]] == ["t8", "t7", "t6", "t5", "t4"]
    assert found[5:] == ["4 more are paused, blocked or slowed down; 6 wait."]


def test_tenants_that_have_spent_their_budget_are_counted() -> None:
    assert told(status(), over_budget=1)[0][1:] == (
        "One tenant has spent all of the budget: new requests of it are refused.",
        "/budgets",
    )
    assert "1,200 tenants have spent" in told(status(), over_budget=1200)[0][1]


def test_what_stops_everything_comes_first_and_every_link_leads_to_a_page() -> None:
    found = told(
        status(workers=[], orders=[order(OrderKind.PAUSE_REPLIES)]),
        problems=["maxmemory-policy is allkeys-lru"],
        over_budget=2,
    )
    assert [path for *_, path in found] == [
        "/workers", "/workers", "/workers", "/orders", "/budgets"
    ]  # fmt: skip
    assert "maxmemory-policy" in found[0][1]
    assert {path for *_, path in found} <= {page.path for page in PAGES}
