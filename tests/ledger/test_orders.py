"""Orders of operators: whom each stops, how it ends, and what it never stops."""

from __future__ import annotations

import json
import secrets
from datetime import timedelta
from typing import Any

import pytest

from afterword.producer import AsyncOperator, Operator
from afterword.shared.clock import utc_now
from afterword.shared.contracts import Priority
from afterword.shared.errors import AfterwordError, Blocked, InvalidRequest, QueueFull
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.memory_requests import Hold
from afterword.shared.ledger.order_records import OrderKind, TenantLimits
from afterword.shared.ledger.orders import MOST_ORDERS, Orders, Whom
from afterword.shared.ledger.records import EraseClaim
from afterword.shared.names import lane_tag, memory_key, shard_of
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import (
    LedgerInspector,
    chat_request,
    claim_job,
    claim_lane,
    lane_of,
    reply_to,
    submit_and_answer,
    submit_and_claim,
    submit_job,
)

pytestmark = pytest.mark.redis

EVERYBODY, ACME = Whom(), Whom("a:c/me é")
ANN = Whom("a:c/me é", "ann")
REPLIES, MEMORIES = OrderKind.PAUSE_REPLIES, OrderKind.PAUSE_MEMORIES
BLOCKS = [(OrderKind.BLOCK, ACME), (OrderKind.BLOCK, ANN)]
LIVE = {"by": "op", "reason": "try"}


def of(whom: Whom) -> dict[str, Any]:
    """Return the fields of a request that an order concerns."""
    return {"tenant": whom.tenant or "other", "user_id": whom.user_id or "ann"}


async def claimed(ledger: Ledger, job_id: str) -> bool:
    return await ledger.jobs.claim(job_id, secrets.token_hex(4)) is not None


async def lane_claimed(ledger: Ledger, lane: str) -> bool:
    return await ledger.turns.claim_lane(lane, secrets.token_hex(4), max_turns=9) is not None


async def order(ledger: Ledger, kind: OrderKind, whom: Whom, **told: Any) -> None:
    times = {name: told.pop(name) for name in ("for_s", "until") if name in told}
    await ledger.orders.give(kind, whom, LIVE | told, **times)


def end_time(inspector: LedgerInspector) -> None:
    """Let the time of the one order that has an end be over."""
    ((name, _),) = inspector.redis.zrange(inspector.keys.order_ends, 0, -1, withscores=True)
    told = json.loads(inspector.redis.hget(inspector.keys.orders, name))
    inspector.redis.hset(inspector.keys.orders, name, json.dumps(told | {"until": 1}))
    inspector.redis.zadd(inspector.keys.order_ends, {name: 1})


@pytest.mark.parametrize(
    ("kind", "whom"), [(REPLIES, EVERYBODY), (REPLIES, ACME), (REPLIES, ANN), *BLOCKS]
)
async def test_a_stopped_job_waits_uncounted_and_comes_back_when_the_order_is_lifted(
    ledger: Ledger, inspector: LedgerInspector, kind: OrderKind, whom: Whom
) -> None:
    job_id = await submit_job(ledger, **of(whom))
    await order(ledger, kind, whom)

    assert not await claimed(ledger, job_id)
    assert inspector.places(job_id) == [("waiting", "replies.3")]
    assert inspector.job(job_id)["attempts"] == "0"
    assert inspector.job(job_id)["parked"].startswith(str(kind))
    assert [one.waiting for one in await ledger.orders.in_force()] == [1]

    assert await ledger.orders.lift(kind, whom)
    assert not await ledger.orders.lift(kind, whom)
    assert (await ledger.maintenance.sweep()).woken == 1
    assert inspector.places(job_id) == [("hinted", "replies.3")]
    assert (await claim_job(ledger, job_id)).attempt == 1
    assert "parked" not in inspector.job(job_id)
    await ledger.maintenance.sweep()
    assert not inspector.redis.exists(inspector.keys.orders, inspector.keys.ended_orders)
    assert not list(inspector.redis.scan_iter(inspector.keys.parked("*")))


@pytest.mark.parametrize(
    ("kind", "whom", "other"),
    [
        (REPLIES, ACME, {"tenant": "other"}),
        (REPLIES, ANN, {"tenant": ACME.tenant, "user_id": "bob"}),
        (OrderKind.BLOCK, ANN, {"tenant": "other", "user_id": "ann"}),
        (OrderKind.BLOCK, ACME, {"tenant": "other"}),
        (MEMORIES, EVERYBODY, {"tenant": "other"}),
        (MEMORIES, ACME, of(ANN)),
    ],
)
async def test_an_order_does_not_stop_the_replies_of_anybody_else(
    ledger: Ledger, kind: OrderKind, whom: Whom, other: dict[str, Any]
) -> None:
    await order(ledger, kind, whom)

    assert await claimed(ledger, await submit_job(ledger, **other))


@pytest.mark.parametrize(
    ("kind", "whom"), [(MEMORIES, EVERYBODY), (MEMORIES, ACME), (MEMORIES, ANN), *BLOCKS]
)
async def test_a_stopped_lane_waits_until_the_order_is_lifted(
    ledger: Ledger, inspector: LedgerInspector, kind: OrderKind, whom: Whom
) -> None:
    await submit_and_answer(ledger, **of(whom))
    lane = lane_of(of(whom)["user_id"], of(whom)["tenant"])
    await order(ledger, kind, whom)

    assert not await lane_claimed(ledger, lane)
    assert inspector.places(lane) == [("waiting", "memories.0")]

    await ledger.orders.lift(kind, whom)
    await ledger.maintenance.sweep()
    assert inspector.places(lane) == [("hinted", "memories.0")]
    assert len((await claim_lane(ledger, lane)).turns) == 1


@pytest.mark.parametrize("whom", [EVERYBODY, ACME, ANN])
async def test_paused_replies_leave_memory_writes_going(ledger: Ledger, whom: Whom) -> None:
    await submit_and_answer(ledger, **of(whom))
    await order(ledger, REPLIES, whom)

    assert await lane_claimed(ledger, lane_of(of(whom)["user_id"], of(whom)["tenant"]))


@pytest.mark.parametrize("kind", [MEMORIES, OrderKind.BLOCK])
async def test_an_erasure_goes_on_under_any_order(ledger: Ledger, kind: OrderKind) -> None:
    await submit_and_answer(ledger, **of(ANN))
    lane = lane_of("ann", ACME.tenant or "")
    await order(ledger, kind, ANN)
    assert not await lane_claimed(ledger, lane)

    await ledger.erasures.begin(lane, "op")

    claim = await ledger.turns.claim_lane(lane, "t", max_turns=1)
    assert isinstance(claim, EraseClaim)


async def test_a_reply_in_flight_finishes_under_a_pause(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    claim = await submit_and_claim(ledger)
    await order(ledger, REPLIES, EVERYBODY)

    await ledger.jobs.finish(claim, reply_to(claim))

    assert inspector.job(claim.job_id)["state"] == "succeeded"


async def test_a_block_refuses_new_requests_but_not_one_that_was_accepted(ledger: Ledger) -> None:
    known = await submit_job(ledger, **of(ANN), idempotency_key="k")
    for whom, scope in ((ACME, "tenant"), (ANN, "user")):
        await order(ledger, OrderKind.BLOCK, whom)
        with pytest.raises(Blocked) as refused:
            await submit_job(ledger, **of(ANN))
        assert refused.value.scope == scope
        assert (refused.value.http_status, refused.value.may_be_accepted) == (403, False)
        assert "try" not in str(refused.value), "the reason is for operators"
        assert await submit_job(ledger, **of(ANN), idempotency_key="k") == known
        await ledger.orders.lift(OrderKind.BLOCK, whom)

    await submit_job(ledger, **of(ANN))


async def test_each_of_many_at_once_is_refused_or_accepted_by_itself(ledger: Ledger) -> None:
    await order(ledger, OrderKind.BLOCK, ANN)
    requests = [chat_request(user_id=user, tenant=ACME.tenant) for user in ("ann", "bob", "ann")]

    found = await ledger.jobs.submit_many([(ledger.jobs.new_id(one), one) for one in requests])

    assert [isinstance(one, AfterwordError) for one in found] == [True, False, True]


async def test_an_expired_job_is_not_brought_back(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger)
    await order(ledger, REPLIES, EVERYBODY)
    assert not await claimed(ledger, job_id)
    inspector.redis.zadd(inspector.keys.open, {job_id: 1})

    assert (await ledger.maintenance.sweep()).expired == 1
    await ledger.orders.lift(REPLIES, EVERYBODY)
    await ledger.maintenance.sweep()

    assert inspector.job(job_id)["state"] == "expired"
    assert inspector.places(job_id) == []


@pytest.mark.parametrize(("kind", "whom"), [(REPLIES, EVERYBODY), (OrderKind.BLOCK, ANN)])
async def test_an_order_is_over_by_the_clock_of_redis(
    ledger: Ledger, inspector: LedgerInspector, kind: OrderKind, whom: Whom
) -> None:
    job_id = await submit_job(ledger, **of(whom))
    await order(ledger, kind, whom, for_s=3000.0)
    assert not await claimed(ledger, job_id)
    assert 2900 < inspector.waits_s(job_id) <= 3000, "it comes back by itself then"

    end_time(inspector)
    assert await ledger.orders.in_force() == []
    assert await claimed(ledger, job_id)
    await ledger.maintenance.sweep()
    assert not inspector.redis.exists(inspector.keys.orders, inspector.keys.order_ends)


async def test_an_order_in_place_of_another_wakes_what_waited_for_that(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger)
    await order(ledger, REPLIES, EVERYBODY, until=utc_now() + timedelta(hours=9))
    assert not await claimed(ledger, job_id)

    await order(ledger, REPLIES, EVERYBODY, for_s=60.0, reason="shorter")
    await ledger.maintenance.sweep()

    assert inspector.places(job_id) == [("hinted", "replies.3")]
    assert not await claimed(ledger, job_id)
    assert inspector.waits_s(job_id) <= 60
    ((found),) = await ledger.orders.in_force()
    assert (found.by, found.reason, found.scope) == ("op", "shorter", "everyone")


@pytest.mark.parametrize("text", ["broken", "[]", "{}", '{"until": "soon"}', '{"until": null}'])
async def test_what_is_no_order_stops_nobody_and_can_be_lifted(
    ledger: Ledger, inspector: LedgerInspector, text: str
) -> None:
    names = ("pause-replies *", "block :default", "limits :default")
    inspector.redis.hset(inspector.keys.orders, mapping=dict.fromkeys(names, text))

    assert await claimed(ledger, await submit_job(ledger))
    assert await ledger.orders.in_force() == []
    assert not await ledger.orders.lift(REPLIES, EVERYBODY)
    assert inspector.redis.hlen(inspector.keys.orders) == len(names) - 1


@pytest.mark.parametrize("name", ["pause-replies *", "slow :default", "limits :default"])
@pytest.mark.parametrize(
    "wrong",
    [
        {"id": None},
        {"id": [1]},
        {"interval_ms": "soon"},
        {"interval_ms": {}},
        {"interval_ms": -1},
        *({"limits": {limit: "many"}} for limit in TenantLimits.__dataclass_fields__),
        *({"limits": {limit: None}} for limit in TenantLimits.__dataclass_fields__),
    ],
    ids=str,
)
async def test_a_part_of_an_order_that_cannot_be_read_stops_nobody(
    ledger: Ledger, inspector: LedgerInspector, name: str, wrong: dict[str, object]
) -> None:
    told: dict[str, object] = {"id": "1", "by": "op", "since": 1, "until": 0, "reason": ""}
    told |= ({"interval_ms": 1} if name.startswith("slow") else {}) | wrong
    stops = name.startswith("pause") and "limits" in wrong
    inspector.redis.hset(inspector.keys.orders, name, json.dumps(told))

    assert bool(await claimed(ledger, await submit_job(ledger))) is not stops
    if name.startswith("limits"):
        whom = Whom(tenant="default")
        limits = {"limits": {"weight": 2}, "by": "op", "reason": ""}
        given = await ledger.orders.give(OrderKind.LIMITS, whom, limits)
        assert given.limits == TenantLimits(weight=2)


async def test_what_waits_for_something_else_by_now_is_not_woken(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await submit_job(ledger)
    await order(ledger, REPLIES, EVERYBODY)
    assert not await claimed(ledger, job_id)
    inspector.redis.zincrby(inspector.keys.place("waiting", "replies.3"), 5, job_id)

    await ledger.orders.lift(REPLIES, EVERYBODY)
    await ledger.maintenance.sweep()

    assert inspector.places(job_id) == [("waiting", "replies.3")]


async def test_many_that_wait_are_woken_some_at_a_time(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_ids = [await submit_job(ledger) for _ in range(100)]
    await order(ledger, REPLIES, EVERYBODY)
    for job_id in job_ids:
        assert not await claimed(ledger, job_id)
    await ledger.orders.lift(REPLIES, EVERYBODY)

    woken = [(await ledger.maintenance.sweep()).woken for _ in range(4)]

    assert woken == [40, 40, 20, 0]
    hinted = inspector.redis.zrange(inspector.keys.place("hinted", "replies.3"), 0, -1)
    assert sorted(hinted) == sorted(job_ids)


async def test_who_is_slowed_gets_one_reply_in_each_interval_in_order(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await order(ledger, OrderKind.SLOW, ACME, every_ms=600_000)
    first, second, third = [
        await submit_job(ledger, tenant=ACME.tenant, user_id=f"u{number}") for number in range(3)
    ]

    assert await claimed(ledger, first)
    assert not await claimed(ledger, second)
    assert not await claimed(ledger, third)
    assert not await claimed(ledger, second), "its time is its own"
    waits = [inspector.job(name)["slot"].partition(" ")[2] for name in (second, third)]
    assert int(waits[1]) - int(waits[0]) == 600_000
    assert inspector.waits_s(second) <= 600
    assert await claimed(ledger, await submit_job(ledger, tenant="other"))

    order_id, _, at = inspector.job(second)["slot"].partition(" ")
    inspector.redis.hset(inspector.keys.job(second), "slot", f"{order_id} {int(at) - 600_000}")
    assert await claimed(ledger, second)
    assert "slot" not in inspector.job(second)

    await ledger.orders.lift(OrderKind.SLOW, ACME)
    await ledger.maintenance.sweep()
    assert await claimed(ledger, third)
    await ledger.maintenance.sweep()
    assert not inspector.redis.exists(inspector.keys.slots)


async def test_what_expires_before_its_time_takes_nobodys(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await order(ledger, OrderKind.SLOW, ANN, every_ms=600_000)
    assert await claimed(ledger, await submit_job(ledger, **of(ANN)))
    for _ in range(3):
        assert not await claimed(ledger, await submit_job(ledger, **of(ANN), expires_in=300.0))
    last = await submit_job(ledger, **of(ANN))

    assert not await claimed(ledger, last)
    assert inspector.waits_s(last) <= 600


async def test_the_narrower_of_two_orders_that_slow_counts(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await order(ledger, OrderKind.SLOW, ACME, every_ms=2_000_000)
    await order(ledger, OrderKind.SLOW, ANN, every_ms=600_000)
    assert await claimed(ledger, await submit_job(ledger, **of(ANN)))
    second = await submit_job(ledger, **of(ANN))

    assert not await claimed(ledger, second)
    assert inspector.waits_s(second) <= 600


async def test_an_operators_limit_counts_in_place_of_the_setting(ledger: Ledger) -> None:
    limits = TenantLimits(most_open=2, weight=3)
    await order(ledger, OrderKind.LIMITS, ACME, limits=limits.set_ones())
    jobs = [await submit_job(ledger, **of(ANN)) for _ in range(2)]

    with pytest.raises(QueueFull) as refused:
        await submit_job(ledger, **of(ANN))
    assert (refused.value.scope, refused.value.setting) == ("tenant", "")
    assert refused.value.http_status == 429
    await submit_job(ledger, tenant="other")

    await order(ledger, OrderKind.LIMITS, ACME, limits={"most_bytes": 10, "most_open": 3})
    with pytest.raises(QueueFull, match="bytes"):
        await submit_job(ledger, **of(ANN))
    (found,) = await ledger.orders.in_force()
    assert found.limits == TenantLimits(weight=3, most_open=3, most_bytes=10)

    await ledger.orders.lift(OrderKind.LIMITS, ACME)
    for job_id in [*jobs, await submit_job(ledger, **of(ANN))]:
        assert await claimed(ledger, job_id)


@pytest.mark.parametrize("priority", ["high", "normal", "low"])
async def test_a_job_waits_and_comes_back_in_its_own_queue(
    ledger: Ledger, inspector: LedgerInspector, priority: Priority
) -> None:
    job_id = await submit_job(ledger, priority=priority)
    (hinted,) = inspector.places(job_id)
    await order(ledger, REPLIES, EVERYBODY)
    assert not await claimed(ledger, job_id)
    await ledger.orders.lift(REPLIES, EVERYBODY)
    await ledger.maintenance.sweep()

    assert inspector.places(job_id) == [hinted]


async def test_a_lane_that_was_held_meanwhile_does_not_wait_for_an_order_that_is_over(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await submit_and_answer(ledger)
    await order(ledger, MEMORIES, EVERYBODY)
    assert not await lane_claimed(ledger, lane_of())

    held = await ledger.memory_requests.hold(lane_of(), "t")
    await ledger.orders.lift(MEMORIES, EVERYBODY)
    await ledger.maintenance.sweep()

    assert isinstance(held, Hold)
    assert held.due_s <= 60


async def test_a_shard_keeps_so_many_orders_and_no_more(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    inspector.redis.hset(
        inspector.keys.orders, mapping={f"block :t{n}": "{}" for n in range(MOST_ORDERS)}
    )

    with pytest.raises(InvalidRequest, match="orders"):
        await order(ledger, REPLIES, EVERYBODY)


async def test_an_end_that_is_over_is_refused(ledger: Ledger) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await order(ledger, REPLIES, EVERYBODY, until=utc_now() - timedelta(hours=1))

    assert refused.value.field == "until"
    assert await ledger.orders.in_force() == []


async def test_orders_reach_every_shard_that_they_concern(settings: Settings) -> None:
    several = settings.model_copy(update={"shards": 3, "namespace": f"{settings.namespace}-3"})
    ledger = Ledger(several, patience_s=5.0)
    try:
        users = {shard_of(memory_key("acme", user), 3): user for user in map(str, range(40))}
        job_ids = [await submit_job(ledger, tenant="acme", user_id=one) for one in users.values()]
        await order(ledger, REPLIES, Whom("acme"))
        await order(ledger, OrderKind.BLOCK, Whom("acme", users[2]))
        await order(ledger, OrderKind.SLOW, Whom("acme"), every_ms=1000)
        assert [await claimed(ledger, job_id) for job_id in job_ids] == [False] * 3
        found = {one.kind: one for one in await ledger.orders.in_force()}
        pause, block, slow = found[REPLIES], found[OrderKind.BLOCK], found[OrderKind.SLOW]
        assert (pause.waiting, slow.every_s) == (3, 1.0)
        assert (block.user_id, block.scope) == (users[2], "user")
    finally:
        await ledger.aclose()


async def test_the_details_of_a_job_name_the_order_that_it_or_its_turn_waits_for(
    ledger: Ledger,
) -> None:
    answered = await submit_and_answer(ledger, **of(ANN))
    queued = await submit_job(ledger, **of(ANN))
    await order(ledger, MEMORIES, ACME, for_s=3000.0)
    await order(ledger, REPLIES, ANN)
    assert not await lane_claimed(ledger, lane_of("ann", ACME.tenant or ""))
    assert not await claimed(ledger, queued)

    turn, job = [await ledger.queries.details(job_id) for job_id in (answered, queued)]

    assert (turn["waits_for"], turn["waits_until"] is None) == (
        "an order: pause-memories by op", False,
    )  # fmt: skip
    assert (job["waits_for"], job["waits_until"]) == ("an order: pause-replies by op", None)


async def test_a_worker_drains_if_it_is_the_process_that_was_named(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    async def beat(instance: str, worker: str = "host:1") -> bool:
        drains = await ledger.maintenance.record_heartbeat("replies", worker, [], instance=instance)
        # However long this test takes, it is not gone.
        inspector.redis.zincrby(inspector.keys.workers, 3_600_000, f"replies {worker}")
        return drains

    async with AsyncOperator(settings, by="kim") as operator:
        with pytest.raises(InvalidRequest, match="worker: no worker"):
            await operator.steering.drain("host:1")
        assert not await beat("", "host:old")
        with pytest.raises(InvalidRequest, match="SIGTERM"):
            await operator.steering.drain("host:old")
        assert not await beat("a")
        assert not await beat("c", "host:2")

        assert (await operator.steering.drain("host:1")).scope == "worker"
        assert await operator.audit() != []
        assert await beat("a")
        assert not await beat("c", "host:2")
        assert not await beat("b"), "a later process of the same name"
        assert await beat("a"), "until it has ended"

        await ledger.maintenance.forget_worker("replies", "host:1")
        assert await operator.steering.orders() == []
        assert [one.name for one in await operator.steering.workers()] == ["host:2", "host:old"]
    await ledger.maintenance.sweep()
    assert not inspector.redis.exists(inspector.keys.orders, inspector.keys.ended_orders)


async def test_each_call_of_an_operator_is_in_the_audit(settings: Settings) -> None:
    async with AsyncOperator(settings, by="kim") as operator:
        steering = operator.steering
        given = [
            await steering.pause("memories", reason="mem0 moves", for_s=3600.0),
            await steering.pause("replies", user_id="ann"),
            await steering.strike("acme", every_s=2.0),
            await steering.limit("acme", TenantLimits(weight=2)),
        ]
        assert [order.scope for order in given] == ["everyone", "user", "tenant", "tenant"]
        assert (given[1].tenant, given[1].user_id) == ("default", "ann")
        assert await steering.orders() == given
        assert (await steering.strike("acme")).kind is OrderKind.BLOCK
        kinds = [one.kind for one in await steering.orders() if one.tenant == "acme"]
        assert kinds == [OrderKind.LIMITS, OrderKind.BLOCK], "a block takes the slowdown's place"
        lifted = [
            await steering.resume("memories"),
            await steering.resume("replies", user_id="ann"),
            await steering.lift_strike("acme"),
            await steering.lift_limits("acme"),
        ]
        assert lifted == [True] * 4
        assert await steering.orders() == []
        assert not await steering.resume("memories")
        audit = list(reversed(await operator.audit()))

    assert [(one.by, one.action) for one in audit] == [
        ("kim", action)
        for action in (
            *("pause", "pause", "strike", "limits", "strike"),
            *("resume", "resume", "lift_strike", "lift_limits"),
        )
    ], "what was not in force was not lifted"
    assert audit[0].details == {"order": "pause-memories", "reason": "mem0 moves", "for_s": 3600.0}
    assert audit[1].details["user"] == lane_tag(lane_of("ann")), "not the id: erasures are complete"


async def test_an_order_that_is_refused_is_not_in_the_audit(
    settings: Settings, inspector: LedgerInspector
) -> None:
    full = {f"block :t{number}": "{}" for number in range(MOST_ORDERS)}
    inspector.redis.hset(inspector.keys.orders, mapping=full)
    over = utc_now() - timedelta(seconds=5)
    async with AsyncOperator(settings, by="kim") as operator:
        for steering in (operator.steering, operator.steering.dry_run()):
            with pytest.raises(InvalidRequest, match="orders: there are 1000"):
                await steering.limit("acme", TenantLimits(most_open=5))
            with pytest.raises(InvalidRequest, match="until"):
                await steering.pause("replies", until=over)
        assert await operator.audit() == []
        assert await operator.steering.orders() == []


async def test_an_order_that_was_recorded_before_it_was_refused_is_recorded_as_refused(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    give = Orders.give

    async def refuse(orders: Orders, *order: Any, rehearsed: bool = False, **ends: Any) -> Any:
        if not rehearsed:
            raise InvalidRequest("orders", "another operator was faster")
        return await give(orders, *order, rehearsed=True, **ends)

    monkeypatch.setattr(Orders, "give", refuse)
    async with AsyncOperator(settings, by="kim") as operator:
        with pytest.raises(InvalidRequest, match="faster"):
            await operator.steering.strike("acme")
        refused, given = await operator.audit()
    assert (given.action, refused.action) == ("strike", "strike_refused")
    assert given.details == refused.details == {"order": "block", "tenant": "acme"}


async def test_a_dry_run_says_what_would_be_in_force(settings: Settings) -> None:
    async with AsyncOperator(settings, by="kim") as operator:
        await operator.steering.limit("acme", TenantLimits(weight=2))
        planned = await operator.steering.dry_run().limit("acme", TenantLimits(most_open=5))
        assert planned.limits == TenantLimits(weight=2, most_open=5)
        (kept,) = await operator.steering.orders()
        assert kept.limits == TenantLimits(weight=2)


def test_an_operator_without_a_loop_steers_alike(settings: Settings) -> None:
    with Operator(settings, by="kim") as operator:
        steering = operator.steering
        given = [
            steering.pause("replies", tenant="acme", until=utc_now() + timedelta(hours=1)),
            steering.strike("acme", user_id="ann"),
            steering.limit("acme", TenantLimits(most_open=5), for_s=3600.0),
        ]
        assert steering.orders() == given
        assert steering.resume("replies", tenant="acme")
        assert steering.lift_strike("acme", user_id="ann")
        assert steering.lift_limits("acme")
        with pytest.raises(InvalidRequest, match="until"):
            steering.pause("replies", for_s=5.0, until=utc_now())
