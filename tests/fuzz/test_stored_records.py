"""The door of Redis: records that another version, or a stranger, has written."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import strategies as st

from afterword.shared.errors import AfterwordError
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.order_records import OrderKind
from afterword.shared.ledger.orders import Whom
from afterword.shared.settings import Settings
from tests.kit.fuzz.broken import EXTREMES, junk
from tests.kit.fuzz.doors import door
from tests.kit.ledger.builder import LedgerInspector
from tests.kit.ledger.full_ledger import Stored, fill
from tests.kit.servers.valkey import Valkey

Read = Callable[[], Awaitable[Any]]


async def _all(items: AsyncIterator[Any]) -> list[Any]:
    return [item async for item in items]


def reads(ledger: Ledger, stored: Stored) -> dict[str, Read]:
    """Return every way in which a producer or an operator reads what is stored."""
    queries, runs, dead = ledger.queries, ledger.replay_runs, ledger.dead_letters
    return {
        "status": lambda: queries.status(stored.answered),
        "details": lambda: queries.details(stored.answered),
        "details of a failed job": lambda: queries.details(stored.job),
        "story": lambda: ledger.stories.of(stored.answered, content=True),
        "story of a failed job": lambda: ledger.stories.of(stored.job),
        "jobs of a user": lambda: ledger.stories.users.newest(
            "ann", "default", since=None, limit=20, after=None
        ),
        "status of a failed job": lambda: queries.status(stored.job),
        "reply": lambda: queries.reply(stored.answered),
        "progress and reply": lambda: queries.progress_and_reply(stored.answered),
        "events": lambda: queries.events(stored.answered, None),
        "usage": lambda: queries.usage("default", "ann"),
        "usage of a tenant": lambda: queries.usage("default", None),
        "dead letters": lambda: _all(dead.select(content=True)),
        "a turn": lambda: dead.get(stored.turn),
        "a failed job": lambda: dead.get(stored.job),
        "a run": lambda: runs.get(stored.run),
        "runs": lambda: runs.newest(10),
        "outcomes": lambda: _all(runs.outcomes(stored.run)),
        "audit": lambda: runs.audit_entries(10),
        "quarantine": lambda: ledger.quarantine.newest(10),
        "gates": ledger.gates.not_open,
        "orders": ledger.orders.in_force,
        "overview": ledger.maintenance.overview,
        "account": lambda: ledger.accounts.by_tenant(late_s=60.0),
        "tenants": ledger.tenants.loads,
    }


class Field(NamedTuple):
    """A field of a hash, and what stands in it; of an entry of a stream if there is an entry."""

    key: str
    name: str
    text: str


class Store:
    """A full ledger, whose fields a test breaks one at a time."""

    def __init__(self, server: Valkey) -> None:
        settings = Settings(
            redis_url=server.url, namespace=f"t-{uuid.uuid4().hex[:12]}", durability="none"
        )
        self.inspector = LedgerInspector(settings)
        self._runner = asyncio.Runner()
        self.ledger = self._runner.run(self._opened(settings))
        self.stored = self._runner.run(fill(self.ledger, self.inspector, "hello"))
        self._redis = self.inspector.redis
        self.fields = [
            Field(key, name, text)
            for key in sorted(self._redis.scan_iter(f"{settings.namespace}:*"))
            if self._redis.type(key) == "hash"
            for name, text in sorted(self._redis.hgetall(key).items())
        ]
        self.streams = [
            key
            for key in sorted(self._redis.scan_iter(f"{settings.namespace}:*"))
            if self._redis.type(key) == "stream"
        ]

    async def _opened(self, settings: Settings) -> Ledger:
        ledger = Ledger(settings, patience_s=5.0)
        limits = {"by": "op", "limits": {"weight": 2}}
        await ledger.orders.give(OrderKind.LIMITS, Whom("acme"), limits)
        return ledger

    def check_reads(self) -> None:
        """Read everything: each read gives something, or an error of ours."""
        for read in reads(self.ledger, self.stored).values():
            try:
                self._runner.run(_awaited(read))
            except AfterwordError as error:
                assert len(str(error)) < 300  # noqa: PT017 both are fine

    def close(self) -> None:
        self._runner.run(self.ledger.aclose())
        self.inspector.redis.delete(self.inspector.keys.behind("hello"))
        self.inspector.close()
        self._runner.close()


async def _awaited(read: Read) -> Any:
    return await read()


@pytest.fixture(scope="module")
def store(valkey: Valkey) -> Iterator[Store]:
    store = Store(valkey)
    yield store
    store.close()


TEXTS = (
    st.sampled_from([one for one in EXTREMES if isinstance(one, str) and len(one) < 1000])
    | st.text(max_size=20)
    | junk().map(lambda value: json.dumps(value)[:100_000])
).map(lambda text: text.encode(errors="replace").decode())


@door("stored fields", inputs=120, place=st.floats(0, 1, exclude_max=True), text=st.none() | TEXTS)
def test_a_broken_field_gives_an_error_of_ours(
    store: Store, place: float, text: str | None
) -> None:
    field = store.fields[int(place * len(store.fields))]
    redis = store.inspector.redis
    if text is None:
        redis.hdel(field.key, field.name)
    else:
        redis.hset(field.key, field.name, text)
    try:
        store.check_reads()
    finally:
        redis.hset(field.key, field.name, field.text)


def test_no_field_is_missed_without_an_error_of_ours(store: Store) -> None:
    redis = store.inspector.redis
    for field in store.fields:
        redis.hdel(field.key, field.name)
        try:
            store.check_reads()
        finally:
            redis.hset(field.key, field.name, field.text)


@door(
    "stored entries",
    inputs=120,
    place=st.floats(0, 1, exclude_max=True),
    other=TEXTS,
    text=st.none() | TEXTS,
)
def test_a_broken_entry_gives_an_error_of_ours(
    store: Store, place: float, other: str, text: str | None
) -> None:
    key = store.streams[int(place * len(store.streams))]
    redis = store.inspector.redis
    ((_, fields),) = redis.xrevrange(key, count=1)
    names = sorted(fields)
    broken = names[int(place * 1000) % len(names)]
    changed = {name: value for name, value in fields.items() if name != broken}
    changed |= {other: "x"} if text is None else {broken: text}
    entry = redis.xadd(key, changed)
    try:
        store.check_reads()
    finally:
        redis.xdel(key, entry)
