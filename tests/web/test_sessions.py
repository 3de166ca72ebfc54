"""Sessions of the console: signed, shared by all consoles, ended at once by who may end them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest

from afterword.producer.web.sessions import IDLE_S, LIFETIME_S, Session, Sessions
from afterword.shared.ledger import console_sessions
from afterword.shared.ledger.access_keys import AccessKey, AccessScope
from afterword.shared.ledger.console_sessions import ConsoleSessions
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from tests.kit.console_client import LOOPBACK, WITH_KEY, Browser, console_client, new_key
from tests.kit.ledger.builder import LedgerInspector

pytestmark = pytest.mark.redis

COOKIE = "afterword_console"
KEY = AccessKey(
    id="0" * 12, name="bea", scopes=(AccessScope.READ,), created_by="ann", expires_at=None,
    created_at=datetime(2026, 5, 8, tzinfo=UTC),
)  # fmt: skip


def hand_over(one: Browser, other: Browser) -> None:
    """Let another console have the browser's next request, as a load balancer may."""
    other.client.cookies.set(COOKIE, one.client.cookies[COOKIE])
    other.csrf = one.csrf


def is_in(answer: httpx.Response) -> bool:
    assert answer.status_code in (httpx.codes.OK, httpx.codes.SEE_OTHER)
    return answer.status_code == httpx.codes.OK


@pytest.fixture
async def replicas(settings: Settings) -> AsyncIterator[tuple[Browser, Browser]]:
    """Give two consoles of one ledger, and somebody who is logged in at the first."""
    key = await new_key(settings, AccessScope.OPERATE)
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(console_client(settings, WITH_KEY))
        other = await stack.enter_async_context(console_client(settings, WITH_KEY))
        await one.log_in(key)
        await one.get("/gates")
        yield one, other


async def test_a_session_and_its_forms_outlive_the_console(
    settings: Settings, ledger: Ledger
) -> None:
    key = await new_key(settings, AccessScope.OPERATE)
    async with console_client(settings, WITH_KEY) as before:
        await before.log_in(key)
        await before.get("/gates")
    async with console_client(settings, WITH_KEY) as after:
        hand_over(before, after)
        done = await after.post("/gates/shut", name="recall", apply="yes")
        assert done.headers["location"] == "/gates"
        assert is_in(await after.get("/"))
    assert [gate.by[:5] for gate in await ledger.gates.not_open()] == ["bea ("]


async def test_requests_may_go_to_any_console(replicas: tuple[Browser, Browser]) -> None:
    one, other = replicas
    hand_over(one, other)
    done = await other.post("/gates/shut", name="recall", apply="yes")
    assert done.headers["location"] == "/gates"
    assert is_in(await one.get("/"))
    assert is_in(await other.get("/"))


async def test_logging_out_at_one_console_ends_the_session_at_all(
    replicas: tuple[Browser, Browser],
) -> None:
    one, other = replicas
    hand_over(one, other)
    answer = await other.post("/logout")
    assert answer.headers["location"] == "/login"
    assert f'{COOKIE}=""' in answer.headers["set-cookie"]
    assert not is_in(await one.get("/"))


async def test_revoking_a_key_ends_its_sessions_at_all_consoles(
    replicas: tuple[Browser, Browser], ledger: Ledger
) -> None:
    one, other = replicas
    hand_over(one, other)
    (key,) = await ledger.access_keys.all()
    await ledger.access_keys.remove(key.id)
    assert not is_in(await one.get("/"))
    assert not is_in(await other.get("/"))


async def test_a_key_that_loses_a_scope_loses_it_in_its_sessions(
    replicas: tuple[Browser, Browser], ledger: Ledger
) -> None:
    one, _ = replicas
    (key,) = await ledger.access_keys.all()
    stored = await ledger.access_keys.get(key.id)
    assert stored is not None
    await ledger.access_keys.remove(key.id)
    await ledger.access_keys.add(replace(stored, key=replace(key, scopes=(AccessScope.READ,))))
    assert (
        await one.post("/gates/shut", name="recall", apply="yes")
    ).status_code == httpx.codes.FORBIDDEN


async def test_without_the_secret_every_session_is_over(
    replicas: tuple[Browser, Browser], inspector: LedgerInspector
) -> None:
    one, other = replicas
    hand_over(one, other)
    inspector.redis.delete(inspector.keys.session_secret)
    assert not is_in(await one.get("/"))
    assert not is_in(await other.get("/"))
    assert len(inspector.redis.get(inspector.keys.session_secret) or "") == 64


async def test_a_session_that_needed_no_key_opens_no_console_that_needs_one(
    settings: Settings,
) -> None:
    async with (
        console_client(settings, LOOPBACK) as free,
        console_client(settings, WITH_KEY) as one,
    ):
        await free.get("/gates")
        hand_over(free, one)
        assert not is_in(await one.get("/"))
        answer = await one.post("/gates/shut", name="recall", apply="yes")
        assert answer.status_code == httpx.codes.UNAUTHORIZED


# -- the cookie


class Now:
    """The time of day of a test."""

    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def sessions(ledger: Ledger, now: Now) -> Sessions:
    async def shared() -> ConsoleSessions:
        return ledger.console_sessions

    async def find(key_id: str) -> AccessKey | None:
        return KEY if key_id == KEY.id else None

    return Sessions(shared, find, None, now)


async def test_a_session_ends_unused(sessions: Sessions, now: Now) -> None:
    cookie = (await sessions.begin(KEY)).cookie
    now.at += IDLE_S
    assert await sessions.get(cookie) is not None
    now.at += 1
    assert await sessions.get(cookie) is None


async def test_a_session_that_is_used_ends_after_its_longest_time(
    sessions: Sessions, now: Now
) -> None:
    session: Session | None = await sessions.begin(KEY)
    for _ in range(LIFETIME_S // IDLE_S):
        now.at += IDLE_S
        assert session is not None
        session = await sessions.get(session.cookie)
    assert session is not None
    now.at += 1
    assert await sessions.get(session.cookie) is None


async def test_a_cookie_says_once_a_minute_that_it_was_used(sessions: Sessions, now: Now) -> None:
    begun = await sessions.begin(KEY)
    now.at += 59
    same = await sessions.get(begun.cookie)
    now.at += 1
    used = await sessions.get(begun.cookie)
    assert same is not None
    assert used is not None
    assert same.cookie == begun.cookie != used.cookie
    assert (used.id, used.csrf) == (begun.id, begun.csrf)


@pytest.mark.parametrize("part", range(6))
async def test_a_cookie_that_was_changed_is_refused(sessions: Sessions, part: int) -> None:
    parts = (await sessions.begin(KEY)).cookie.split(".")
    assert await sessions.get(".".join(parts)) is not None
    last = parts[part][-1]
    parts[part] = parts[part][:-1] + ("1" if last != "1" else "2")
    assert await sessions.get(".".join(parts)) is None


@pytest.mark.parametrize("cookie", ["", "s1", "s1.....", "x" * 10_000, "s1.\u0661.\u0661.1.1.1"])
async def test_what_is_no_cookie_is_refused(sessions: Sessions, cookie: str) -> None:
    assert await sessions.get(cookie) is None


async def test_a_form_of_another_session_is_refused(sessions: Sessions) -> None:
    one, other = await sessions.begin(KEY), await sessions.begin(KEY)
    assert one.accepts(one.csrf)
    assert not one.accepts(other.csrf)
    assert not one.accepts("")


async def test_consoles_that_begin_at_once_agree_on_the_secret(
    settings: Settings, ledger: Ledger
) -> None:
    async with Ledger(settings, patience_s=5.0) as other:
        asked = [one.console_sessions.secret() for one in (ledger, other) for _ in range(5)]
        found = await asyncio.gather(*asked)
    assert len({*found}) == 1
    assert len(found[0]) == 32


async def test_a_console_whose_clock_is_early_revives_no_session_that_was_ended(
    ledger: Ledger, sessions: Sessions, now: Now
) -> None:
    session = await sessions.begin(KEY)
    cookie = session.cookie
    await sessions.end(session)
    early_s = now.at + LIFETIME_S + 60
    await ledger.console_sessions.end("another", early_s, early_s + LIFETIME_S)
    assert await sessions.get(cookie) is None


async def test_ended_sessions_are_kept_within_bounds(
    ledger: Ledger, inspector: LedgerInspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console_sessions, "MOST_ENDED", 3)
    ended = ledger.console_sessions
    await ended.end("old", 100.0, 150.0 - console_sessions.CLOCKS_S)
    for number in range(5):
        await ended.end(f"s{number}", 200.0, 300.0 + number)
    kept = inspector.redis.zrange(inspector.keys.ended_sessions, 0, -1)
    assert kept == ["s2", "s3", "s4"]
    assert await ended.is_ended("s4")
    assert not await ended.is_ended("old")
