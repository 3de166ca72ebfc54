"""The console in a real browser: dead letters replayed, a run aborted, pages that stay current."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from afterword.producer.web.app import PAGES
from afterword.shared.errors import Fault
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from tests.kit.console_client import LOOPBACK
from tests.kit.ledger.builder import (
    claim_lane,
    lane_of,
    reply_to,
    submit_and_answer,
    submit_and_claim,
)
from tests.kit.ledger.lane_drainer import LaneDrainer
from tests.kit.served_console import PATIENCE_MS, ServedConsole, chromium, served_console

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

    from tests.kit.servers.valkey import Valkey

# A browser takes more of the machine than any other test, and waits for it less patiently.
pytestmark = [pytest.mark.redis, pytest.mark.serial, pytest.mark.slow]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def console(valkey: Valkey) -> Iterator[ServedConsole]:
    """Serve a console on a ledger of its own."""
    settings = Settings(
        redis_url=valkey.url,
        namespace=f"t-{uuid.uuid4().hex[:12]}",
        durability="none",
        memory="embedded",
    )
    with served_console(settings, LOOPBACK) as served:
        yield served


@pytest.fixture
def page(browser: Browser, console: ServedConsole) -> Iterator[Page]:
    """Give a page of the console: it loads nothing from elsewhere, and no script of it fails."""
    context = browser.new_context(base_url=console.url)
    context.set_default_timeout(PATIENCE_MS)
    opened = context.new_page()
    wrong: list[str] = []
    opened.on("pageerror", lambda error: wrong.append(str(error)))
    opened.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    opened.on(
        "request",
        lambda sent: None if sent.url.startswith(console.url) else wrong.append(sent.url),
    )
    yield opened
    context.close()
    assert wrong == []


async def bury(settings: Settings, code: str, *users: str) -> str:
    """Bury a turn of each user, and return the id of the last one."""
    turn_id = ""
    async with Ledger(settings, patience_s=30.0) as ledger:
        for user in users:
            turn_id = await submit_and_answer(ledger, "hello", user_id=user)
            held = await claim_lane(ledger, lane_of(user))
            await ledger.turns.begin(held, turn_id)
            await ledger.turns.bury(held, turn_id, code, Fault.REQUEST, "0.1.0")
            await ledger.turns.release_lane(held)
    return turn_id


@contextmanager
def storing(console: ServedConsole, *users: str) -> Iterator[None]:
    """Store what stands in the lanes of these users, as a memory worker does."""
    ledger = Ledger(console.settings, patience_s=30.0)
    drainer = LaneDrainer(ledger, [lane_of(user) for user in users])
    console.run(drainer.__aenter__())
    try:
        yield
    finally:
        console.run(drainer.__aexit__())
        console.run(ledger.aclose())


def begin_replay(page: Page, code: str, count: int) -> None:
    """Filter dead letters, make a dry run, and replay it."""
    page.goto("/dead-letters")
    page.get_by_label("Code contains").fill(code)
    page.get_by_role("button", name="Filter", exact=True).click()
    page.get_by_role("button", name="Dry run of a replay").click()
    page.get_by_role("button", name=f"Replay {count}", exact=True).click()
    page.wait_for_url("**/runs/*")


def test_a_filtered_set_is_replayed_while_its_page_stays_current(
    console: ServedConsole, page: Page
) -> None:
    console.run(bury(console.settings, "rejected", "ann", "bea", "cyd"))
    console.run(bury(console.settings, "timeout", "dan"))
    begin_replay(page, "rejected", 3)
    page.get_by_text("not passed yet").wait_for()  # the canary waits: nobody stores it
    with storing(console, "ann", "bea", "cyd"):
        page.get_by_text("3 of 3").wait_for()  # without a reload
        page.locator(".badge", has_text="done").wait_for()
    page.keyboard.press("g")
    page.keyboard.press("a")
    page.wait_for_url("**/audit")
    rows = page.locator("tbody tr").all_inner_texts()
    assert [row.split("\t")[2] for row in rows] == ["done", "replay"]
    page.goto("/dead-letters")
    assert page.locator("#letters tbody tr").count() == 1


def test_a_run_is_aborted_and_the_audit_says_by_whom(console: ServedConsole, page: Page) -> None:
    console.run(bury(console.settings, "rejected", "ann", "bea"))
    begin_replay(page, "rejected", 2)
    page.get_by_role("button", name="Abort").click()
    page.locator(".badge", has_text="aborted").wait_for()
    page.get_by_role("button", name="Resume").wait_for()
    page.goto("/audit")
    rows = page.locator("tbody tr").all_inner_texts()
    assert [row.split("\t")[1:3] for row in rows] == [
        ["ann@host", "aborted"],
        ["ann@host", "replay"],
    ]


def test_an_overview_shows_what_has_happened_since_it_was_loaded(
    console: ServedConsole, page: Page
) -> None:
    page.goto("/")
    figure = page.locator(".card", has_text="Dead letters").locator(".figure")
    assert figure.inner_text() == "0"
    turn_id = console.run(bury(console.settings, "rejected", "ann"))
    figure.get_by_text("1", exact=True).wait_for()
    page.keyboard.press("/")
    page.keyboard.type(turn_id)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/jobs/{turn_id}")


async def spend(settings: Settings, tenant: str, cost: int) -> None:
    """Let a tenant spend so much, in millionths of a dollar, where spending is counted."""
    counted = settings.model_copy(update={"budgets": {"*": {}}})
    async with Ledger(counted, patience_s=30.0) as ledger:
        claim = await submit_and_claim(ledger, user_id="ann", tenant=tenant)
        await ledger.jobs.finish(claim, reply_to(claim), cost=cost)


def test_a_budget_is_found_and_set_by_keyboard(console: ServedConsole, page: Page) -> None:
    console.run(spend(console.settings, "acme", 1_500_000))
    page.goto("/")
    page.keyboard.press("g")
    page.keyboard.press("b")
    page.wait_for_url("**/budgets")
    page.get_by_role("link", name="acme").focus()
    page.keyboard.press("Enter")
    page.locator("#users").get_by_role("link", name="ann").wait_for()  # comes by itself
    page.get_by_label("US dollars", exact=True).focus()
    page.keyboard.type("2")
    page.keyboard.press("Enter")
    page.get_by_text("It has spent 75% of that in this period already").wait_for()
    page.get_by_role("button", name="Set limits").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**/budgets?tenant=acme")
    page.locator("#budget").get_by_text("75 %").wait_for()
    page.goto("/audit")
    (row,) = page.locator("tbody tr").all_inner_texts()
    assert row.split("\t")[1:3] == ["ann@host", "limits"]


def test_every_page_fits_a_narrow_window(console: ServedConsole, page: Page) -> None:
    job_id = console.run(bury(console.settings, "rejected", "ann"))
    console.run(spend(console.settings, "a-tenant-with-quite-a-long-name.example", 1_500_000))
    page.set_viewport_size({"width": 600, "height": 800})
    paths = {one.path for one in PAGES if one.method == "GET" and one.scope and "{" not in one.path}
    for path in (
        *sorted(paths - {"/users"}),
        f"/jobs/{job_id}",
        "/users?user_id=ann",
        "/budgets?tenant=acme",
    ):
        page.goto(path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 600, path
        assert page.locator("h1").count() == 1, path
