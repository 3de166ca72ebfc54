"""What a ledger is stands in it: a process whose settings do not fit is refused."""

from __future__ import annotations

import pytest

from afterword.producer import AsyncOperator, AsyncProducer
from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import Misconfigured
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.names import LAYOUT_VERSION
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import LedgerInspector

pytestmark = [pytest.mark.redis, pytest.mark.finding(26)]


async def refused(settings: Settings, *, founds: bool = True, **other: int) -> Misconfigured:
    async with Ledger(settings.model_copy(update=other), patience_s=5.0) as ledger:
        with pytest.raises(Misconfigured) as caught:
            await ledger.check(founds=founds)
    return caught.value


async def test_a_new_ledger_is_what_the_first_process_is_set_to(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await ledger.check(founds=True)
    found = inspector.redis.hgetall(inspector.keys.identity)
    await ledger.check(founds=True)

    assert found.pop("name")
    assert found == {
        "layout": str(LAYOUT_VERSION),
        "shards": "1",
        "records": str(RECORD_VERSION),
    }
    assert inspector.redis.hgetall(inspector.keys.identity).keys() - found.keys() == {"name"}


@pytest.mark.parametrize("founds", [True, False])
async def test_another_number_of_shards_is_refused(
    ledger: Ledger, settings: Settings, *, founds: bool
) -> None:
    await ledger.check(founds=True)

    error = await refused(settings, founds=founds, shards=2)

    assert error.setting == "AFTERWORD_SHARDS"
    assert error.reason.startswith("is 2 here, and this ledger has 1;")


async def test_other_keys_are_refused_and_left_alone(
    ledger: Ledger, settings: Settings, inspector: LedgerInspector
) -> None:
    await ledger.check(founds=True)
    newer = {"layout": str(LAYOUT_VERSION + 1), "records": "0"}
    inspector.redis.hset(inspector.keys.identity, mapping=newer)

    error = await refused(settings)

    assert error.setting == "AFTERWORD_NAMESPACE"
    assert f"version {LAYOUT_VERSION + 1}" in error.reason
    assert inspector.redis.hget(inspector.keys.identity, "records") == "0"


@pytest.mark.parametrize(("stands", "then"), [("0", RECORD_VERSION), ("99", 99)])
async def test_the_newest_version_of_records_stands_there_and_refuses_nobody(
    ledger: Ledger, inspector: LedgerInspector, stands: str, then: int
) -> None:
    await ledger.check(founds=True)
    inspector.redis.hset(inspector.keys.identity, "records", stands)

    await ledger.check(founds=True)

    assert inspector.redis.hget(inspector.keys.identity, "records") == str(then)


async def test_a_read_only_check_does_not_create_the_identity(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await ledger.check()

    assert not inspector.redis.exists(inspector.keys.identity)


async def test_a_producer_and_an_operator_are_refused_before_they_write(
    ledger: Ledger, settings: Settings, inspector: LedgerInspector
) -> None:
    await ledger.check(founds=True)
    before = set(inspector.redis.scan_iter(f"{settings.namespace}:*"))
    other = settings.model_copy(update={"shards": 4})

    async with AsyncProducer(other) as producer:
        with pytest.raises(Misconfigured, match=r"AFTERWORD_SHARDS: is 4 here.*has 1"):
            await producer.submit(user_id="ann", message="hello")
    async with AsyncOperator(other) as operator:
        with pytest.raises(Misconfigured, match=r"AFTERWORD_SHARDS: is 4 here.*has 1"):
            await operator.forget("ann")

    assert set(inspector.redis.scan_iter(f"{settings.namespace}:*")) == before


async def test_the_number_may_be_changed_on_purpose(
    ledger: Ledger, settings: Settings, inspector: LedgerInspector
) -> None:
    """As docs/how-to/redis.md says it; the ledger keeps its name."""
    await ledger.check(founds=True)
    name = inspector.redis.hget(inspector.keys.identity, "name")
    inspector.redis.hdel(inspector.keys.identity, "shards", "layout")

    async with Ledger(settings.model_copy(update={"shards": 4}), patience_s=5.0) as four:
        await four.check(founds=True)

    assert (await refused(settings)).reason.startswith("is 1 here, and this ledger has 4;")
    assert inspector.redis.hget(inspector.keys.identity, "name") == name


async def test_a_ledger_that_may_have_other_shards_is_new_to_those_that_read(
    ledger: Ledger, settings: Settings, inspector: LedgerInspector
) -> None:
    await ledger.check(founds=True)
    inspector.redis.hdel(inspector.keys.identity, "shards", "layout")

    async with Ledger(settings.model_copy(update={"shards": 2}), patience_s=5.0) as other:
        await other.check()
        assert other.identity is None
        await other.check(founds=True)
        assert other.identity is not None
