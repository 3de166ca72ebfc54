"""Lists that go on: the audit with its filters, and the jobs of a user."""

from __future__ import annotations

import itertools
import re

import httpx
import pytest

from afterword.shared.ledger import browsing
from afterword.shared.ledger.ledger import Ledger
from tests.kit.console_client import Browser
from tests.kit.ledger.builder import submit_and_answer

pytestmark = pytest.mark.redis


async def pages(browser: Browser, path: str, marks: str) -> list[list[str]]:
    """Return what each page of a list shows, following where it says that it goes on."""
    found = list[list[str]]()
    while path:
        text = (await browser.get(path)).text
        found.append(re.findall(marks, text))
        path = text.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
    return found


@pytest.fixture
async def entries(ledger: Ledger) -> int:
    for number in range(7):
        by, action = ("ann", "replay") if number % 2 else ("b & c", "gate_shut")
        await ledger.replay_runs.add_audit_entry(by, action, {"n": f"n{number}"}, f"t{number}")
    return 7


async def test_the_audit_is_shown_page_by_page(
    browser: Browser, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afterword.producer.web.views.governance._ENTRIES", 3)
    found = await pages(browser, "/audit", r"n: (n\d)")
    assert [len(page) for page in found] == [3, 3, 1]
    assert [*itertools.chain(*found)] == [f"n{number}" for number in reversed(range(entries))]


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("by=ann", ["n5", "n3", "n1"]),
        ("by=b+%26+c", ["n6", "n4", "n2", "n0"]),
        ("action=replay&by=ann", ["n5", "n3", "n1"]),
        ("action=replay&by=b+%26+c", []),
    ],
)
async def test_filters_choose_entries_on_every_page(
    browser: Browser, entries: int, asked: str, shown: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afterword.producer.web.views.governance._ENTRIES", 2)
    found = await pages(browser, f"/audit?{asked}", r"n: (n\d)")
    assert [*itertools.chain(*found)] == shown


async def test_a_filter_that_matches_little_looks_at_a_bounded_part(
    browser: Browser, entries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing, "MOST_ENTRIES_LOOKED_AT", 2)
    monkeypatch.setattr(browsing, "_AT_ONCE", 2)
    text = (await browser.get("/audit?action=nothing")).text
    assert "Looked at 2 entries" in text
    found = await pages(browser, "/audit?action=nothing", r"Looked at (\d)")
    assert len(found) == 4
    assert entries == 7


@pytest.mark.parametrize("after", ["x", "1", "-", "1-", "18446744073709551616-0"])
async def test_a_wrong_place_is_named(browser: Browser, after: str) -> None:
    answer = await browser.get("/audit", params={"after": after})
    assert answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY
    assert "after: must be the id of an event" in answer.text


async def test_the_jobs_of_a_user_are_shown_page_by_page_and_lead_to_their_stories(
    browser: Browser, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("afterword.producer.web.views.jobs._JOBS", 2)
    ids = [await submit_and_answer(ledger, user_id="ann & co", tenant="a/b") for _ in range(5)]
    await submit_and_answer(ledger, user_id="bea", tenant="a/b")
    path = "/users?tenant=a%2Fb&user_id=ann+%26+co"
    text = (await browser.get(path)).text
    table = text.partition('<table id="jobs">')[2].partition("</table>")[0]
    assert re.findall(r'href="/jobs/([^"]+)"', table) == ids[:-3:-1]
    seen, count = set[str](), 0
    while path:
        text = (await browser.get(path)).text
        table = text.partition('<table id="jobs">')[2].partition("</table>")[0]
        seen |= {*re.findall(r'href="/jobs/([^"]+)"', table)}
        path = text.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
        count += 1
    assert (seen, count) == (set(ids), 3)
    assert 'id="steps"' in (await browser.get(f"/jobs/{ids[0]}")).text
