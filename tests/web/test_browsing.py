"""What pages read of long lists: a bounded part, over all shards, and one sample a minute."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.web.sampler import Sampler
from afterword.shared.errors import Fault
from afterword.shared.ledger import browsing
from afterword.shared.ledger.browsing import Place
from afterword.shared.ledger.dead_letter_records import DeadLetterFilter
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.samples import MAX_SAMPLES, Sample
from afterword.shared.names import lane_id, memory_key, shard_of
from afterword.shared.settings import Settings
from tests.kit.console_client import console_client
from tests.kit.ledger.builder import claim_lane, submit_and_answer, submit_job

pytestmark = pytest.mark.redis

ALL = DeadLetterFilter()
SAMPLE = Sample(0, 0, 0, 0, 0.0, 0, 0, 0)


@pytest.fixture(params=[1, 3])
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    return settings.model_copy(update={"shards": request.param})


async def bury(ledger: Ledger, user: str, code: str = "rejected") -> str:
    owner = memory_key("default", user)
    held_by = lane_id(owner, shard_of(owner, ledger.settings.shards))
    turn_id = await submit_and_answer(ledger, user_id=user)
    held = await claim_lane(ledger, held_by)
    await ledger.turns.begin(held, turn_id)
    await ledger.turns.bury(held, turn_id, code, Fault.REQUEST, "0.1.0")
    await ledger.turns.release_lane(held)
    return turn_id


async def test_pages_of_dead_letters_are_of_one_list_newest_first(ledger: Ledger) -> None:
    ids = [await bury(ledger, f"user{number}") for number in range(7)]
    seen, before = list[str](), None
    while True:
        page = await ledger.browsing.dead_letter_page(ALL, 3, before)
        assert len(page.letters) <= 3
        seen += [letter.id for letter in page.letters]
        if (before := page.before) is None:
            break
    assert sorted(seen) == sorted(ids)
    letters = [await ledger.dead_letters.get(name) for name in seen]
    assert all(a.buried_at >= b.buried_at for a, b in itertools.pairwise(letters))


async def test_a_page_looks_at_a_bounded_part(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browsing, "MOST_LOOKED_AT", 4)
    wanted = await bury(ledger, "ann", "timeout")
    for number in range(6):
        await bury(ledger, f"user{number}")
    rare = DeadLetterFilter(code="timeout")
    first = await ledger.browsing.dead_letter_page(rare, 3, None)
    assert (first.letters, first.looked_at) == ([], 4)
    second = await ledger.browsing.dead_letter_page(rare, 3, first.before)
    assert [letter.id for letter in second.letters] == [wanted]
    assert second.before is None


async def test_jobs_and_lanes_are_listed_over_all_shards(ledger: Ledger) -> None:
    ids = [await submit_job(ledger, user_id=f"user{number}") for number in range(5)]
    found = await ledger.browsing.jobs_in(Place.READY, 50)
    assert sorted(row.id for row in found) == sorted(ids)
    assert len(await ledger.browsing.jobs_in(Place.READY, 2)) == 2
    for number in range(3):
        await submit_and_answer(ledger, user_id=f"late{number}")
    lanes = await ledger.browsing.lanes_in(Place.READY, 50)
    assert sorted((row.user_id, row.turns) for row in lanes) == [
        (f"late{number}", 1) for number in range(3)
    ]
    behind = await ledger.browsing.behind("default", 50)
    assert {row.user_id for row in behind} == {row.user_id for row in lanes}


async def test_of_several_consoles_one_takes_the_sample_of_a_minute(
    ledger: Ledger, settings: Settings
) -> None:
    await bury(ledger, "ann")
    async with CheckedLedger.open(settings) as checked:
        samplers = [Sampler(checked, 60.0) for _ in range(3)]
        assert [await one.sample_if_due() for one in samplers] == [True, False, False]
    ((_, sample),) = await ledger.samples.newest(10)
    assert sample == replace(SAMPLE, replied=1, dead_letters=1)


async def test_samples_are_bounded_and_drawn(ledger: Ledger, settings: Settings) -> None:
    for number in range(MAX_SAMPLES + 5):
        await ledger.samples.add(replace(SAMPLE, replied=number))
    found = await ledger.samples.newest(10 * MAX_SAMPLES)
    assert [sample.replied for _, sample in found] == [*range(5, MAX_SAMPLES + 5)]
    async with console_client(settings) as browser:
        assert 'aria-label="Users late in the last hour"' in (await browser.get("/")).text
