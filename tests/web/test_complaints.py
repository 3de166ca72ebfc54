"""Each complaint of the page "Explain a reply" is solved from the console: user, job, cause."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from html import unescape

import httpx
import pytest

from afterword.shared.errors import Rejected, Unavailable
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.memory_requests import Hold
from afterword.shared.names import memory_key
from afterword.shared.settings import Settings
from afterword.workers.ports import Turn
from tests.kit.complaints import StagedFleet
from tests.kit.console_client import Browser
from tests.kit.ledger.builder import LedgerInspector, lane_of

pytestmark = pytest.mark.redis

FACT = "I moved to Lisbon."
ASKED = "Where do I live? Lisbon?"


@pytest.fixture
def fleet(settings: Settings, ledger: Ledger) -> StagedFleet:
    return StagedFleet(settings, ledger)


async def jobs_of_ann(browser: Browser) -> Sequence[str]:
    """Return where the page of the user leads to, the newest job first."""
    found = await browser.follow(await browser.get("/jobs", params={"user_id": "ann"}))
    table = found.text.partition('<table id="jobs">')[2].partition("</table>")[0]
    return list(dict.fromkeys(re.findall(r'href="(/jobs/[^"]+)"', table)))


async def told(browser: Browser, path: str) -> str:
    """Return what the page of a job says in words."""
    answer = await browser.get(path)
    assert answer.status_code == httpx.codes.OK
    assert "Lisbon" not in answer.text, "no content was requested"
    words = answer.text.partition('<ul id="told">')[2].partition("</ul>")[0]
    return unescape(words)


async def test_a_memory_was_late_behind_a_turn_that_became_a_dead_letter(
    fleet: StagedFleet, browser: Browser, inspector: LedgerInspector
) -> None:
    bad, said = await fleet.answer("I own a boat."), await fleet.answer(FACT)
    fleet.memories.fail("add", Unavailable("store_busy"))
    await fleet.store()
    path, behind = await jobs_of_ann(browser)
    assert (path, behind) == (f"/jobs/{said}", f"/jobs/{bad}")
    waiting = await told(browser, path)
    assert "is not in memory yet" in waiting
    assert "store_busy" in waiting

    fleet.memories.fail("add", Rejected("not_accepted"), times=1)
    inspector.make_due(lane_of())
    inspector.redis.hincrby(inspector.keys.job(said), "ended", -600_000)
    await fleet.store()

    late = await told(browser, path)
    assert re.search(
        r"had to wait 1\d\.\d min for an earlier turn of the same user until that became a dead "
        r"letter \(not_accepted\)",
        late,
    )
    assert behind in late, "the sentence leads to the other job"
    assert "could not be stored and is a dead letter: not_accepted" in await told(browser, behind)


async def test_a_recall_was_cut_off_at_its_budget(fleet: StagedFleet, browser: Browser) -> None:
    fleet.budget_s = 0.01
    fleet.memories.hang("search")
    await fleet.answer(ASKED)

    (path,) = await jobs_of_ann(browser)
    words = await told(browser, path)
    assert "written without what memory holds" in words
    assert "took longer than AFTERWORD_RECALL_BUDGET_MS" in words


@pytest.mark.parametrize(
    ("message", "fields", "why"),
    [
        (ASKED, {}, "is not in memory: it only asks"),
        ("Thank you!", {}, "is not in memory: it only greets, thanks"),
        (FACT, {"remember": False}, "was not to be remembered"),
    ],
)
async def test_what_was_said_was_not_to_be_remembered(
    fleet: StagedFleet, browser: Browser, message: str, fields: dict[str, object], why: str
) -> None:
    fleet.settings = fleet.settings.model_copy(update={"memory": "embedded"})
    await fleet.answer(message, **fields)

    (path,) = await jobs_of_ann(browser)
    assert why in await told(browser, path)


async def test_what_was_said_was_a_secret_and_is_stored_without_it(
    fleet: StagedFleet, browser: Browser
) -> None:
    await fleet.answer("My card is 4111 1111 1111 1111.")
    await fleet.store()

    (path,) = await jobs_of_ann(browser)
    words = await told(browser, path)
    assert "stored without the secrets in it" in words
    assert "4111" not in words


async def test_a_memory_was_found_and_had_no_place_among_better_ones(
    fleet: StagedFleet, browser: Browser
) -> None:
    said = await fleet.answer(FACT)
    await fleet.store()
    for number in range(6):
        better = Turn(
            f"t{number}", f"Where do I live, Lisbon? {number}", "", datetime(2026, 5, 8, tzinfo=UTC)
        )
        await fleet.memories.add(memory_key("default", "ann"), better)
    await fleet.answer("Where do I live then?")

    asked, of_fact = await jobs_of_ann(browser)
    (memory,) = [row.id for row in fleet.memories.rows if row.turn_id == said]
    words = await told(browser, asked)
    assert f"Memory {memory} was found and not given to the model: others fitted better" in words
    assert "was given 5 memories" in words
    assert memory in (await browser.get(of_fact)).text, "the other job says that it made it"


async def test_its_user_had_deleted_the_memory(
    fleet: StagedFleet, ledger: Ledger, browser: Browser
) -> None:
    said = await fleet.answer(FACT)
    await fleet.store()
    hold = await ledger.memory_requests.hold(lane_of(), "token")
    assert isinstance(hold, Hold)
    assert await ledger.memory_requests.mend(hold.claim, said, []) == "ok"

    (path,) = await jobs_of_ann(browser)
    assert "The user changed memories of it: deleted" in await told(browser, path)


async def test_a_job_of_which_only_the_story_is_kept_is_explained_and_says_what_is_gone(
    fleet: StagedFleet, browser: Browser, inspector: LedgerInspector
) -> None:
    await fleet.answer(FACT)
    await fleet.store()
    asked = await fleet.answer(ASKED, conversation_id="c-7")
    assert inspector.redis.delete(inspector.keys.job(asked)) == 1

    path, _ = await jobs_of_ann(browser)
    page = (await browser.get(path)).text
    assert "The model was given 1 memory." in await told(browser, path)
    assert "Only the story of this job is kept" in page
    assert "are gone" in page
    assert "It is no longer kept." in page
    assert "/content" not in page, "nothing is offered that is gone"
    assert "c-7" in page
    assert "fresh" in page
    (given,) = fleet.memories.rows
    assert f"<code>{given.id}</code>" in page
    shown = await browser.post(f"{path}/content")
    assert (shown.status_code, "Lisbon" in shown.text) == (httpx.codes.OK, False)


async def test_the_user_was_erased(fleet: StagedFleet, ledger: Ledger, browser: Browser) -> None:
    said = await fleet.answer(FACT)
    await ledger.erasures.begin(lane_of(), "olga")
    await fleet.store()

    found = await browser.get("/users", params={"user_id": "ann"})
    assert "requested by olga" in found.text
    assert "The user was erased" in await told(browser, f"/jobs/{said}")


async def test_a_gate_was_shut(fleet: StagedFleet, ledger: Ledger, browser: Browser) -> None:
    for gate in ("recall", "remember"):
        await ledger.gates.shut(gate, by="olga", reason="move", for_s=None)
    await fleet.answer(FACT)
    await fleet.store()

    (path,) = await jobs_of_ann(browser)
    words = await told(browser, path)
    assert "somebody shut the gate of recall" in words
    assert "somebody shut the gate of memory" in words
    assert "shut by olga: move" in (await browser.get("/gates")).text


async def test_a_reply_that_was_given_the_memory_says_so(
    fleet: StagedFleet, browser: Browser
) -> None:
    await fleet.answer(FACT)
    await fleet.store()
    await fleet.answer(ASKED)

    asked, said = await jobs_of_ann(browser)
    assert "The model was given 1 memory." in await told(browser, asked)
    assert "is not in memory" not in await told(browser, said)
