"""Each complaint of the page "Explain a reply" is staged, and solved from what the story prints."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from afterword.producer.admin.explanation import explained
from afterword.producer.cli.story_text import print_story, print_user_jobs
from afterword.shared.errors import Rejected, Unavailable
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.memory_requests import Hold
from afterword.shared.names import memory_key
from afterword.shared.settings import Settings
from afterword.workers.ports import Turn
from tests.kit.command_line import afterword
from tests.kit.complaints import StagedFleet
from tests.kit.ledger.builder import LedgerInspector, lane_of, submit_and_answer

pytestmark = pytest.mark.redis

ANN = memory_key("default", "ann")
AT = datetime(2026, 5, 8, tzinfo=UTC)
FACT = "I moved to Lisbon."
ASKED = "Where do I live? Lisbon?"


class Fleet(StagedFleet):
    """The staged fleet, and what an operator sees of it in a terminal."""

    def __init__(
        self, settings: Settings, ledger: Ledger, capsys: pytest.CaptureFixture[str]
    ) -> None:
        super().__init__(settings, ledger)
        self.capsys = capsys

    async def told(self, job_id: str) -> Sequence[str]:
        """Return the lines of `afterword job`."""
        print_story(await self.ledger.stories.of(job_id))
        lines = self.capsys.readouterr().out.splitlines()
        assert not [line for line in lines if "Lisbon" in line], "no content was requested"
        return lines


@pytest.fixture
def fleet(settings: Settings, ledger: Ledger, capsys: pytest.CaptureFixture[str]) -> Fleet:
    return Fleet(settings, ledger, capsys)


def line_of(lines: Sequence[str], *words: str) -> str:
    """Return the one line that holds all these words."""
    (found,) = [line for line in lines if all(word in line for word in words)]
    return found


async def test_the_jobs_of_the_user_are_found_first(fleet: Fleet, ledger: Ledger) -> None:
    said, asked = await fleet.answer(FACT), await fleet.answer(ASKED)

    page = await ledger.stories.users.newest("ann", "default", since=None, limit=20, after=None)
    print_user_jobs(page)

    lines = fleet.capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [asked, said]
    assert "Lisbon" not in "".join(lines)


async def test_a_memory_was_late_because_its_lane_waited_for_a_turn_that_became_a_dead_letter(
    fleet: Fleet, inspector: LedgerInspector
) -> None:
    bad, said = await fleet.answer("I own a boat."), await fleet.answer(FACT)
    fleet.memories.fail("add", Unavailable("store_busy"))
    await fleet.store()

    waiting = await fleet.told(said)
    assert "store_busy" in line_of(waiting, "waited behind", bad)

    fleet.memories.fail("add", Rejected("not_accepted"), times=1)
    inspector.make_due(lane_of())
    inspector.redis.hincrby(inspector.keys.job(said), "ended", -600_000)
    await fleet.store()

    late = line_of(await fleet.told(said), "waited behind", bad)
    assert "not_accepted" in late
    assert re.search(r" for 1\d\.\d min,", late)
    assert "turn dead" in late
    assert "not_accepted" in line_of(await fleet.told(bad), "buried")


async def test_a_recall_was_cut_off_at_its_budget(fleet: Fleet) -> None:
    fleet.budget_s = 0.01
    fleet.memories.hang("search")
    asked = await fleet.answer(ASKED)

    lines = await fleet.told(asked)

    recalled = line_of(lines, "recalled", "over_budget")
    assert "memory degraded" in recalled
    assert "found 0" in recalled
    assert "memory of the reply: degraded" in lines


@pytest.mark.parametrize(
    ("message", "fields", "turn"),
    [
        (ASKED, {}, "turn: skipped (question_only)"),
        ("Thank you!", {}, "turn: skipped (pleasantry)"),
        ("Write a haiku about winter.", {}, "turn: skipped (request_only)"),
        (FACT, {"remember": False}, "turn: none"),
    ],
)
async def test_what_was_said_was_not_to_be_remembered(
    fleet: Fleet, message: str, fields: dict[str, object], turn: str
) -> None:
    fleet.settings = fleet.settings.model_copy(update={"memory": "embedded"})
    assert turn in await fleet.told(await fleet.answer(message, **fields))


async def test_what_was_said_was_a_secret_and_is_stored_without_it(fleet: Fleet) -> None:
    said = await fleet.answer("My card is 4111 1111 1111 1111.")
    await fleet.store()

    assert "secrets" in line_of(await fleet.told(said), "stored", "memories 1")


async def test_a_memory_was_found_and_had_no_place_among_better_ones(fleet: Fleet) -> None:
    said = await fleet.answer(FACT)
    await fleet.store()
    for number in range(6):
        better = Turn(f"t{number}", f"Where do I live, Lisbon? {number}", "", AT)
        await fleet.memories.add(ANN, better)
    asked = await fleet.answer("Where do I live then?")

    (memory,) = [row.id for row in fleet.memories.rows if row.turn_id == said]
    made = await fleet.told(said)
    lines = await fleet.told(asked)

    assert f"  {memory}" in made
    assert not [line for line in made if "recalled later" in line]
    assert f"  left out {memory}: no_place" in lines
    assert "given 5" in line_of(lines, "recalled ")


async def test_a_memory_that_was_given_is_told_on_both_sides(fleet: Fleet) -> None:
    said = await fleet.answer(FACT)
    await fleet.store()
    asked = await fleet.answer(ASKED)

    (memory,) = [row.id for row in fleet.memories.rows]
    assert line_of(await fleet.told(asked), "given", memory)
    assert line_of(await fleet.told(said), "recalled later", asked)


async def test_its_user_had_deleted_the_memory(fleet: Fleet, ledger: Ledger) -> None:
    said = await fleet.answer(FACT)
    await fleet.store()
    hold = await ledger.memory_requests.hold(lane_of(), "token")
    assert isinstance(hold, Hold)
    assert await ledger.memory_requests.mend(hold.claim, said, []) == "ok"

    lines = await fleet.told(said)

    assert "deleted" in line_of(lines, "corrected")
    assert "memories that came of it:" not in lines


async def test_the_user_was_erased(fleet: Fleet, ledger: Ledger) -> None:
    said = await fleet.answer(FACT)
    await ledger.erasures.begin(lane_of(), "olga")
    await fleet.store()

    lines = await fleet.told(said)

    assert "turn: erased" in lines
    assert line_of(lines, "erased", "Z ")
    assert not [line for line in lines if "ann" in line]


async def test_a_gate_was_shut(fleet: Fleet, ledger: Ledger) -> None:
    for gate in ("recall", "remember"):
        await ledger.gates.shut(gate, by="olga", reason="move", for_s=None)
    said = await fleet.answer(FACT)
    await fleet.store()

    lines = await fleet.told(said)

    assert "memory degraded" in line_of(lines, "recalled", "shut_by_hand")
    assert line_of(lines, "lane waits", "shut_by_hand")
    assert line_of(lines, "waits for: shut_by_hand until")


async def test_a_reply_of_a_worker_that_knew_no_stories_is_told_all_the_same(
    fleet: Fleet, ledger: Ledger, inspector: LedgerInspector
) -> None:
    said = await submit_and_answer(ledger, FACT)
    inspector.redis.hdel(inspector.keys.job(said), "story")

    assert line_of(await fleet.told(said), "replied")


async def test_the_command_says_in_words_what_the_console_says(
    fleet: Fleet, settings: Settings
) -> None:
    fleet.settings = settings.model_copy(update={"memory": "embedded"})
    job_id = await fleet.answer(ASKED)
    story = await fleet.ledger.stories.of(job_id)
    (one,) = explained(story)

    lines = await fleet.told(job_id)
    assert lines[lines.index("in words:") + 1] == f"  - {one.text}"

    env = {
        "AFTERWORD_REDIS_URL": str(settings.redis_url),
        "AFTERWORD_NAMESPACE": settings.namespace,
        "AFTERWORD_DURABILITY": "none",
    }
    printed = await asyncio.to_thread(afterword, "job", job_id, "--json", env=env)
    assert json.loads(printed.stdout)["explanation"] == [{"text": one.text, "about": None}]
