"""Budgets on the console: who has spent what, who is over, and a budget that is set from there."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from afterword.shared.contracts import Usage
from afterword.shared.ledger.access_keys import AccessScope
from afterword.shared.ledger.budget_rows import BudgetRow, BudgetRows
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from tests.kit.console_client import WITH_KEY, Browser, console_client, new_key
from tests.kit.ledger.builder import claim_job, reply_to, submit_job
from tests.kit.waiting import until

pytestmark = pytest.mark.redis

USED = Usage(input=80, output=20)
BUDGETS = '{"*": {"user_usd": 1}, "acme": {"tenant_usd": 2}, "globex": {"tenant_tokens": 100}}'


@pytest.fixture(params=[1, 3])
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    read = Settings.load({"AFTERWORD_BUDGETS": BUDGETS})
    changes: dict[str, Any] = {"budgets": read.budgets, "shards": request.param}
    return settings.model_copy(update=changes)


async def answer(ledger: Ledger, tenant: str, user: str, cost: int, usage: Usage = USED) -> None:
    claim = await claim_job(ledger, await submit_job(ledger, user_id=user, tenant=tenant))
    await ledger.jobs.finish(claim, reply_to(claim).model_copy(update={"usage": usage}), cost=cost)


@pytest.fixture
async def spent(ledger: Ledger) -> None:
    """Let `globex` spend all of its budget, `acme` some of it, and `free` have none."""
    await answer(ledger, "acme", "ann", 500_000)
    await answer(ledger, "acme", "bob & co", 100_000)
    await answer(ledger, "globex", "eve", 0, Usage(input=100))
    await answer(ledger, "free", "zoe", 70_000)


def cells(page: str, whose: str) -> list[str]:
    """Return the texts of the row of a tenant, or user."""
    rows = re.findall(r"<tr[^>]*>(?:(?!</tr>).)*</tr>", page, re.DOTALL)
    (row,) = [one for one in rows if f"<bdi>{whose}</bdi>" in one or f">{whose}</th>" in one]
    found = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.DOTALL)
    return [re.sub(r"<[^>]+>", "", one).strip() for one in found]


async def tenants_of(browser: Browser, path: str = "/budgets") -> str:
    """Return a page of all budgets once the tenants are there."""

    async def has_tenants() -> list[str]:
        page = (await browser.get(path)).text
        return [] if "Looking at what tenants" in page else [page]

    return (await until(has_tenants, "the tenants are there"))[0]


async def test_tenants_are_listed_those_nearest_to_their_budget_first(
    browser: Browser, spent: None
) -> None:
    page = await tenants_of(browser)
    assert re.findall(r'href="/budgets\?tenant=(\w+)"', page) == ["globex", "acme", "free"]
    heads = re.findall(r"<th[^>]*>([^<]*)</th>", page.partition("</thead>")[0])
    assert len(set(heads)) == len(heads), "each column has a name of its own"
    of_acme = ["30 %", "0.6000", "2.0000", "1.4000", "200", "-", "-", "setting"]
    assert cells(page, "acme")[1:] == of_acme
    assert cells(page, "free")[1:] == ["no budget", "0.0700", "-", "-", "100", "-", "-", "-"]
    assert "1 tenant has spent all" in page
    assert '<tr class="bad"><th scope="row"><a href="/budgets?tenant=globex">' in page


async def test_tenants_are_listed_page_by_page(
    browser: Browser, spent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afterword.producer.web.views.budgets.ROWS", 2)
    first = await tenants_of(browser)
    path = first.partition('rel="next" href="')[2].partition('"')[0]
    second = await tenants_of(browser, path)
    assert re.findall(r'href="/budgets\?tenant=(\w+)"', first + second) == [
        "globex",
        "acme",
        "free",
    ]
    assert 'rel="next"' not in second
    assert "1 tenant has spent all" in second, "also on a page that does not list it"
    wrong = await browser.get("/budgets", params={"after": "nobody"})
    assert wrong.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert "after: nobody is not in this list" in wrong.text


async def test_pages_share_one_look_at_what_all_tenants_have_spent(
    browser: Browser, spent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []

    async def counted(rows: BudgetRows) -> tuple[Sequence[BudgetRow], bool]:
        looked.append(1)
        return await read(rows)

    read = BudgetRows.tenants
    monkeypatch.setattr(BudgetRows, "tenants", counted)
    for path in ("/budgets", "/budgets", "/budgets?after=globex", "/"):
        await browser.get(path)
    assert len(looked) == 1


async def test_tenants_come_by_themselves_when_reading_takes_long(
    browser: Browser, spent: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as slow:
        slow.setattr("afterword.producer.web.console._BUDGETS_S", 0.0)
        page = (await browser.get("/budgets")).text
    assert "Looking at what tenants have spent" in page
    assert "data-live data-soon" in page
    assert "1 tenant has spent all" in (await tenants_of(browser))


async def users_of(browser: Browser, tenant: str) -> str:
    """Return the page of a tenant's budget once its users are there."""

    async def has_users() -> list[str]:
        page = (await browser.get("/budgets", params={"tenant": tenant})).text
        return [] if "Looking at what its users" in page else [page]

    return (await until(has_users, "the users are there"))[0]


async def test_a_tenant_is_shown_with_its_users_and_what_each_may_spend(
    browser: Browser, spent: None
) -> None:
    page = await users_of(browser, "free")
    assert "no budget" in page
    assert "$1.0000" in page, "each user may spend a dollar"
    assert cells(page, "zoe")[:5] == ["zoe", "7 %", "0.0700", "1.0000", "0.9300"]
    page = await users_of(browser, "acme")
    whose = re.findall(r"<bdi>([^<]+)</bdi></a></th>", page)
    assert whose == ["ann", "bob &amp; co"]
    page = await users_of(browser, "globex")
    assert "All of it is spent" in page
    page = await users_of(browser, "nobody")
    assert "Nobody has spent anything" in page


async def test_a_budget_is_set_after_a_dry_run_and_lifted(
    browser: Browser, ledger: Ledger, spent: None
) -> None:
    await browser.get("/budgets?tenant=acme")
    wanted = {"tenant": "acme", "page": "budgets", "tenant_usd": "4", "reason": "paid more"}
    shown = (await browser.post("/orders/limit", **wanted)).text
    assert "It has spent 15% of that in this period already" in shown
    assert 'href="/budgets?tenant=acme"' in shown
    assert await ledger.orders.in_force() == [], "nothing has changed"

    done = await browser.post("/orders/limit", **wanted, apply="yes")
    page = (await browser.follow(done)).text
    assert done.headers["location"] == "/budgets?tenant=acme"
    assert cells(page, "all of it")[3] == "4.0000"
    assert "an order of ann@host" in page
    assert "paid more" in page
    assert "order of ann@host" in cells(await tenants_of(browser), "acme")[-1]
    (entry,) = await ledger.replay_runs.audit_entries(10)
    assert (entry.by, entry.action, entry.details["limits"]) == (
        "ann@host", "limits", {"tenant_usd": 4}
    )  # fmt: skip

    lift = {"kind": "limits", "tenant": "acme", "page": "budgets"}
    assert "would be lifted" in (await browser.post("/orders/lift", **lift)).text
    done = await browser.post("/orders/lift", **lift, apply="yes")
    page = (await browser.follow(done)).text
    assert cells(page, "all of it")[3] == "2.0000"
    assert "<code>AFTERWORD_BUDGETS</code>" in page


@pytest.mark.parametrize("limit", [{"tenant_usd": "0.1"}, {"tenant_tokens": "0"}])
async def test_a_budget_that_is_spent_already_says_so_before_it_is_set(
    browser: Browser, spent: None, limit: dict[str, str]
) -> None:
    await browser.get("/budgets?tenant=acme")
    shown = (await browser.post("/orders/limit", tenant="acme", **limit)).text
    assert "its new requests are refused at once" in shown


async def test_other_limits_say_nothing_of_budgets(browser: Browser, spent: None) -> None:
    await browser.get("/budgets?tenant=acme")
    shown = (await browser.post("/orders/limit", tenant="acme", weight="2", user_usd="1")).text
    assert "in this period" not in shown


@pytest.fixture
async def reader(settings: Settings) -> AsyncIterator[Browser]:
    key = await new_key(settings, AccessScope.CONTENT)
    async with console_client(settings, WITH_KEY) as browser:
        await browser.log_in(key)
        yield browser


async def test_who_may_only_read_sees_budgets_and_sets_none(
    reader: Browser, ledger: Ledger, spent: None
) -> None:
    page = await users_of(reader, "acme")
    assert "Set the budget" not in page
    await reader.get("/budgets")
    answer = await reader.post("/orders/limit", tenant="acme", tenant_usd="4", apply="yes")
    assert answer.status_code == httpx.codes.FORBIDDEN
    assert await ledger.orders.in_force() == []
