"""What operators see of tenants: who waits, since when, who is capped, who had how much lately."""

from __future__ import annotations

import asyncio
import json
import re

import pytest

from afterword.producer import AsyncOperator, InvalidRequest, TenantLoad
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.tenants import whole
from afterword.shared.settings import Settings
from tests.kit.command_line import Printed, afterword
from tests.kit.ledger.builder import LedgerInspector, submit_and_answer, submit_and_claim
from tests.ledger.test_fair_shares import Worker, submit, weigh

pytestmark = pytest.mark.redis


async def loads(ledger: Ledger) -> dict[str, TenantLoad]:
    return {one.tenant: one for one in await ledger.tenants.loads()}


async def test_each_tenant_is_shown_with_what_waits_and_runs(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await submit_and_answer(ledger, tenant="done")
    await submit_and_claim(ledger, tenant="acme")
    ids = await submit(ledger, "a:b", 3)
    inspector.redis.hincrby(inspector.keys.job(ids[0]), "created", -90_000)

    found = await loads(ledger)

    assert list(found) == ["a:b", "acme", "done"]
    assert (found["a:b"].waiting, found["a:b"].running) == (3, 0)
    assert 90 <= found["a:b"].oldest_wait_s < 150
    assert (found["acme"].waiting, found["acme"].running) == (0, 1)
    assert found["acme"].oldest_wait_s == 0


async def test_the_share_of_attempts_counts_each_of_them(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    for _ in range(3):
        await submit_and_answer(ledger, tenant="acme")
    await submit_and_answer(ledger, tenant="zeta")

    found = await loads(ledger)

    assert (found["acme"].begun, found["acme"].share) == (3, 0.75)
    assert (found["zeta"].begun, found["zeta"].share) == (1, 0.25)
    for slot in inspector.redis.keys(f"{inspector.keys.root}:begun:*"):
        assert 0 < inspector.redis.pttl(slot) <= 7_200_000


async def test_attempts_of_the_last_hour_count_and_older_ones_do_not(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    now = int(inspector.redis.time()[0]) // 600  # the next slot may begin meanwhile
    inspector.redis.hset(inspector.keys.begun(now - 4), "acme", 5)
    inspector.redis.hset(inspector.keys.begun(now - 6), "zeta", 9)

    assert {name: one.begun for name, one in (await loads(ledger)).items()} == {"acme": 5}


async def test_caps_and_weights_are_those_in_force(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    weigh(inspector, "acme", weight=3, most_running=2)
    capped = settings.model_copy(update={"max_running_per_tenant": 7})
    async with Ledger(capped, patience_s=5.0) as other:
        await submit(other, "acme", 4)
        await submit(other, "zeta", 1)
        worker = Worker(other, inspector)
        while inspector.hinted("replies.3"):
            await worker.take()
        found = await loads(other)
    assert (found["acme"].weight, found["acme"].most_running) == (3, 2)
    assert (found["acme"].running, found["acme"].waiting, found["acme"].at_cap) == (2, 2, True)
    assert (found["zeta"].weight, found["zeta"].most_running, found["zeta"].at_cap) == (1, 7, False)
    assert found["acme"].oldest_wait_s >= 0
    assert (await loads(ledger))["zeta"].most_running is None


@pytest.mark.parametrize("limits", [5, None, "x", [1]])
async def test_an_order_whose_limits_cannot_be_read_is_none(
    ledger: Ledger, inspector: LedgerInspector, limits: object
) -> None:
    order = {"id": "1", "until": 0, "limits": limits}
    inspector.redis.hset(inspector.keys.orders, "limits :acme", json.dumps(order))
    await submit(ledger, "acme", 1)
    assert (await loads(ledger))["acme"].weight == 1
    assert await Worker(ledger, inspector).take() is not None


async def test_what_waits_below_a_cap_has_a_wait_as_well(
    settings: Settings, inspector: LedgerInspector
) -> None:
    one = settings.model_copy(update={"max_running_per_tenant": 1})
    async with Ledger(one, patience_s=5.0) as ledger:
        ids = await submit(ledger, "acme", 3)
        worker = Worker(ledger, inspector)
        while inspector.hinted("replies.3"):
            await worker.take()
        for job_id in ids:
            inspector.redis.hincrby(inspector.keys.job(job_id), "created", -50_000)
        await ledger.jobs.cancel(ids[1])
        assert (await loads(ledger))["acme"].oldest_wait_s >= 50


async def test_tenants_of_all_shards_are_added_up(settings: Settings) -> None:
    many = settings.model_copy(update={"shards": 4, "max_running_per_tenant": 5})
    async with Ledger(many, patience_s=5.0) as ledger:
        for number in range(8):
            await submit(ledger, "acme", 1, user_id=f"user-{number}")
        (found,) = await ledger.tenants.loads()
    assert (found.waiting, found.most_running) == (8, 5)


async def test_many_tenants_are_read_a_part_at_a_time(ledger: Ledger) -> None:
    for number in range(120):
        await submit(ledger, f"tenant-{number:03}", 1)
    found = await ledger.tenants.loads()
    assert [one.tenant for one in found] == [f"tenant-{number:03}" for number in range(120)]


async def test_pages_follow_each_other_and_count_all(ledger: Ledger, settings: Settings) -> None:
    for number, tenant in enumerate(["one", "two", "three"]):
        await submit(ledger, tenant, 3 - number)
    async with AsyncOperator(settings) as operator:
        first = await operator.tenants.busiest(2)
        then = await operator.tenants.busiest(2, after=first.tenants[-1].tenant)
        assert [one.tenant for one in [*first.tenants, *then.tenants]] == ["one", "two", "three"]
        assert (first.more, then.more) == (True, False)
        assert first.count == then.count == first.waiting == 3
        assert (first.most_waiting, first.at_cap) == (3, 0)
        with pytest.raises(InvalidRequest, match="after") as refused:
            await operator.tenants.busiest(after="nobody")
        assert refused.value.field == "after"


def test_without_tenants_all_counts_are_nothing() -> None:
    found = whole([])
    assert (found.count, found.longest_wait_s, found.largest_share) == (0, 0.0, 0.0)


@pytest.fixture
def env(settings: Settings) -> dict[str, str]:
    return {
        "AFTERWORD_REDIS_URL": str(settings.redis_url),
        "AFTERWORD_NAMESPACE": settings.namespace,
        "AFTERWORD_DURABILITY": "none",
    }


async def test_the_command_prints_them_as_a_table_and_as_json(
    ledger: Ledger, env: dict[str, str]
) -> None:
    async def status(*words: str) -> Printed:
        return await asyncio.to_thread(afterword, "status", "--tenants", *words, env=env)

    assert (await status()).stdout.startswith("no tenant has jobs")
    await submit(ledger, "acme", 2)
    await submit(ledger, "zeta", 1)

    shown = await status("--limit", "1")
    assert "acme" in shown.stdout
    assert "zeta" not in shown.stdout
    assert "tenants: 2, 2 with waiting jobs, 0 at their cap" in shown.stdout
    assert "--after acme" in shown.stderr
    then = await status("--after", "acme")
    assert "zeta" in then.stdout
    assert "--after" not in then.stderr
    printed = json.loads((await status("--json")).stdout)
    assert [one["waiting"] for one in printed["tenants"]] == [2, 1]


async def test_metrics_tell_of_the_worst_tenant_and_name_none(
    ledger: Ledger, inspector: LedgerInspector, env: dict[str, str]
) -> None:
    weigh(inspector, "acme", most_running=1)
    ids = await submit(ledger, "acme", 4)
    worker = Worker(ledger, inspector)
    while inspector.hinted("replies.3"):
        await worker.take()
    await submit(ledger, "zeta", 1)
    for job_id in ids:
        inspector.redis.hincrby(inspector.keys.job(job_id), "created", -500_000)

    text = (await asyncio.to_thread(afterword, "metrics", env=env)).stdout

    found = dict(re.findall(r"^(afterword_tenant\w+) (\S+)$", text, re.MULTILINE))
    assert float(found.pop("afterword_tenant_wait_seconds_max")) >= 500
    assert {name: float(value) for name, value in found.items()} == {
        "afterword_tenants_waiting": 2,
        "afterword_tenants_at_cap": 1,
        "afterword_tenant_waiting_jobs_max": 3,
        "afterword_tenant_share_max": 1,
    }
    assert "acme" not in text


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["--limit", "3"], "limit"),
        (["--after", "acme"], "after"),
        ([f"j00_{1:032x}", "--tenants"], "tenants"),
        (["--tenants", "--after", "nobody"], "after"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    env: dict[str, str], words: list[str], field: str
) -> None:
    refused = afterword("status", *words, env=env)
    assert refused.code == 2
    assert field in refused.stderr
