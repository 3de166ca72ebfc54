"""The page of retention: it names every kind of key, and Redis expires them as it says."""

from __future__ import annotations

import inspect
import re

import pytest

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.names import Keys
from afterword.shared.settings import Settings
from tests.conftest import ROOT
from tests.kit.ledger.builder import LedgerInspector, lane_of, submit_and_answer, submit_job
from tests.kit.ledger.fixtures import inspector, ledger, settings
from tests.kit.ledger.full_ledger import fill

__all__ = ["inspector", "ledger", "settings"]

PAGE = ROOT / "docs/reference/retention.md"
PLACES = ("hinted", "waiting", "leased", "held")
DAY_S = 86_400.0

#: How long Redis keeps what expires, at most, in seconds or by the name of a setting.
LONGEST: dict[str, str | float] = {
    "job:": "dead_retention_s",
    "events:": "stream_retention_s",
    "conversation:": "conversation_s",
    "idempotency:": "idempotency_s",
    "memory-request:": 700.0,
    "given:": "retention_s",
    "story:": "story_s",
    "user-jobs:": 90 * DAY_S,
    "running:": "retention_s",
    "mending:": 2.0,
    "usage:": 90 * DAY_S,
    "imported:": 90 * DAY_S,
    "erasure:": 90 * DAY_S,
    "newer-version": 300.0,
    "reconciled": "reconcile_s",
    "sampled": 60.0,
    "gate:": DAY_S,
    "gate-failures:": DAY_S,
    "quota:": DAY_S,
    "begun:": 7200.0,
    "balanced": 2.0,
    "spent:": 90 * DAY_S,
    "replay-run:": "dead_retention_s",
    "replay-todo:": "dead_retention_s",
    "replay-outcomes:": "dead_retention_s",
    "message-batch:": 30 * DAY_S,
    "message-batch-turns:": 30 * DAY_S,
    "migration:": 90 * DAY_S,
}


def rows() -> dict[str, str]:
    """Return the kinds of keys on the page, each with what it says about its expiry."""
    found = re.findall(r"^\| (`.+?) \| .+? \| (yes|ended|no) \| ", PAGE.read_text(), re.MULTILINE)
    return {kind: word for names, word in found for kind in re.findall(r"`([^`]+)`", names)}


def kinds() -> set[str]:
    """Return all kinds of keys that the code names: channels are none."""
    keys, found = Keys("ns", 0), set[str]()
    for name, member in vars(Keys).items():
        if name.startswith("_") or name in ("root", "namespace", "shard", "place"):
            continue
        function = member.fget if isinstance(member, property) else member
        if "CHANNEL" in (function.__doc__ or ""):
            continue
        if isinstance(member, property):
            found.add(getattr(keys, name).removeprefix(f"{keys.root}:"))
        else:
            count = len(inspect.signature(member).parameters) - 1
            found.add(member(keys, *["x"] * count).removeprefix(f"{keys.root}:").split("x")[0])
    return found | {f"{place}:" for place in PLACES}


def kind_of(key: str, root: str) -> str:
    name = key.removeprefix(f"{root}:")
    return name.partition(":")[0] + ":" if ":" in name else name


def test_every_kind_of_key_is_on_the_page_once() -> None:
    assert set(rows()) == kinds()


def test_what_expires_has_a_longest_time_here() -> None:
    assert set(LONGEST) == {kind for kind, word in rows().items() if word != "no"}


@pytest.mark.redis
async def test_redis_expires_keys_as_the_page_says(
    ledger: Ledger, settings: Settings, inspector: LedgerInspector
) -> None:
    await ledger.check(founds=True)
    done = await fill(ledger, inspector, "said")
    waiting = await submit_job(ledger, "again", user_id="ann", conversation_id="c")
    await ledger.memory_requests.ask(lane_of(), "list", {}, 60)
    await (await ledger.migrations.begin("m")).leave()
    late = await submit_and_answer(ledger, "I like tea.", user_id="tea")
    await ledger.message_batches.open(ledger.message_batches.new_name(0), [late], 60)
    await ledger.maintenance.claim_reconciliation(round(settings.reconcile_s * 1000))
    redis, root = inspector.redis, inspector.keys.root
    seen = dict[str, list[int]]()
    for key in redis.scan_iter(f"{root}:*"):
        seen.setdefault(kind_of(key, root), []).append(redis.pttl(key))
    said = rows()
    assert set(seen) <= set(said)
    for kind, left in seen.items():
        most_ms = max(_longest_s(settings, kind) * 1000, 1)
        if said[kind] == "no":
            assert set(left) == {-1}, kind
        elif said[kind] == "yes":
            assert all(0 < each <= most_ms for each in left), kind
        else:
            assert all(each == -1 or 0 < each <= most_ms for each in left), kind
    assert redis.pttl(inspector.keys.job(waiting)) == -1, "nothing that is open expires"
    assert redis.pttl(inspector.keys.job(done.turn)) == -1, "a dead turn is kept"
    assert redis.pttl(inspector.keys.job(done.job)) > 0
    assert len(seen) > 20


def _longest_s(settings: Settings, kind: str) -> float:
    longest = LONGEST.get(kind, 0.0)
    return float(getattr(settings, longest)) if isinstance(longest, str) else longest
