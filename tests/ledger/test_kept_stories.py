"""What is told of a job whose record is gone: its steps for longer, what was said no longer."""

from __future__ import annotations

from typing import Any

import pytest

from afterword.producer import (
    JobNotFound,
    JobState,
    MemoryGiven,
    MemoryUsed,
    StepKind,
    TurnState,
    Usage,
)
from afterword.shared.errors import NewerRecord
from afterword.shared.ledger.attempt_note import AttemptNote, NotedRecall
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.memory_requests import Hold
from afterword.shared.ledger.records import EraseClaim
from afterword.shared.ledger.spending import ExtractionCost
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_lane,
    lane_of,
    reply_to,
    submit_and_claim,
)

pytestmark = pytest.mark.redis

SECRET = "marmalade"
K = StepKind


async def answer(ledger: Ledger, memory: str = "m5", **fields: Any) -> str:
    """Answer a job that says, and is told, a secret; return it."""
    claim = await submit_and_claim(ledger, f"I like {SECRET}.", **fields)
    note = AttemptNote()
    note.recall = NotedRecall("fresh", "", 7, 1, 0, 12, (("m6", "no_place"),))
    memories = [MemoryUsed(id=memory, text=SECRET, score=0.5)]
    reply = reply_to(claim, f"Noted: {SECRET}.", memories=memories)
    await ledger.jobs.finish(claim, reply, note=note.text)
    return claim.job_id


async def store(ledger: Ledger, *memory_ids: str, paid: ExtractionCost | None = None) -> None:
    lane = await claim_lane(ledger)
    await ledger.turns.begin(lane, lane.turns[0].id, worker="m:1")
    await ledger.turns.settle(
        lane,
        lane.turns[0].id,
        TurnState.STORED,
        memory_ids=memory_ids or ("m1",),
        paid=paid,
    )
    await ledger.turns.release_lane(lane)


def outlive(inspector: LedgerInspector, job_id: str) -> None:
    """Let the time pass for which the job is kept."""
    assert inspector.redis.delete(inspector.keys.job(job_id)) == 1


async def test_the_story_of_a_job_outlives_it_without_what_was_said(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await answer(ledger)
    await store(ledger)
    before = await ledger.stories.of(job_id)
    outlive(inspector, job_id)

    story = await ledger.stories.of(job_id, content=True)

    assert (before.job_kept, story.job_kept) == (True, False)
    assert [step.kind for step in story.steps] == [step.kind for step in before.steps]
    assert [step.kind for step in story.steps][-2:] == [K.STORING, K.STORED]
    assert (story.state, story.turn) == (JobState.SUCCEEDED, TurnState.STORED)
    assert (story.user_id, story.memory, story.memory_ids) == ("ann", "fresh", ("m1",))
    assert [one.id for one in story.left_out] == ["m6"]
    assert (story.message, story.reply) == (None, None)
    assert story.memories == (MemoryGiven("m5", None, None),), "its id, no text and no score"
    assert story.steps == before.steps
    assert SECRET not in str(inspector.redis.hgetall(inspector.keys.story(job_id)))


@pytest.mark.parametrize("conversation", ["c-1", 'a "quoted" \\ one', "m/conversation_id", None])
async def test_the_conversation_of_a_job_is_told_for_as_long(
    ledger: Ledger, inspector: LedgerInspector, conversation: str | None
) -> None:
    others = {"conversation_id": "another", "at": "conversation_id"}
    job_id = await answer(ledger, conversation_id=conversation, metadata=others, remember=False)
    outlive(inspector, job_id)

    assert (await ledger.stories.of(job_id)).conversation_id == conversation


async def test_what_extraction_took_is_told_for_as_long(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await answer(ledger)
    await store(ledger, paid=ExtractionCost(Usage(input=9, output=3), 1200))
    before = (await ledger.stories.of(job_id)).extraction
    outlive(inspector, job_id)

    assert before is not None
    assert (before.cost_usd, before.facts) == (0.0012, 1)
    assert (await ledger.stories.of(job_id)).extraction == before


async def test_the_memories_of_a_reply_are_found_among_those_of_the_same_moment(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    others = [await answer(ledger, memory=f"m{number}", remember=False) for number in range(6, 9)]
    mine = await answer(ledger)
    (*_, (last, row)) = inspector.redis.xrange(inspector.keys.given(lane_of()))
    inspector.redis.delete(inspector.keys.given(lane_of()))
    moment_ms = last.partition("-")[0]
    for number, one in enumerate([others[0], mine, others[1]], start=1):
        memories = row["memories"] if one == mine else '["other"]'
        entry = {"job": one, "memories": memories}
        inspector.redis.xadd(inspector.keys.given(lane_of()), entry, id=f"{moment_ms}-{number}")
    await store(ledger)
    outlive(inspector, mine)

    assert [one.id for one in (await ledger.stories.of(mine)).memories] == ["m5"]


async def test_the_list_of_a_user_goes_on_with_what_is_told_of_jobs_that_are_gone(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await answer(ledger)
    await store(ledger)
    options: dict[str, Any] = {"since": None, "limit": 20, "after": None}
    before = await ledger.stories.users.newest("ann", "default", **options)
    outlive(inspector, job_id)

    assert await ledger.stories.users.newest("ann", "default", **options) == before
    assert (before.jobs[0].memory, before.jobs[0].memories) == ("fresh", 1)


async def test_a_turn_that_was_skipped_is_told_for_as_long(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await answer(ledger, remember=False)
    outlive(inspector, job_id)

    story = await ledger.stories.of(job_id)
    assert (story.turn, story.steps[-1].kind) == (TurnState.NONE, K.REPLIED)


async def test_stories_and_lists_are_kept_as_their_setting_says_and_jobs_as_theirs(
    ledger: Ledger, inspector: LedgerInspector, settings: Settings
) -> None:
    job_id = await answer(ledger)
    await store(ledger)

    def left_s(key: str) -> float:
        return float(inspector.redis.pttl(key)) / 1000

    keys = inspector.keys
    assert settings.story_s == 2 * settings.retention_s
    assert 0 < left_s(keys.job(job_id)) <= settings.retention_s, "content is not kept for longer"
    for key in (keys.story(job_id), keys.user_jobs(lane_of())):
        assert settings.retention_s < left_s(key) <= settings.story_s
    await ledger.jobs.cancel((await submit_and_claim(ledger)).job_id)
    assert left_s(keys.user_jobs(lane_of())) > settings.retention_s, "never made shorter"


async def test_no_story_is_kept_twice_if_jobs_are_kept_as_long(
    settings: Settings, inspector: LedgerInspector
) -> None:
    same = settings.model_copy(update={"story_retention_s": settings.retention_s})
    async with Ledger(same, patience_s=5.0) as ledger:
        job_id = await answer(ledger)
        await store(ledger)

        assert not inspector.redis.exists(inspector.keys.story(job_id))
        outlive(inspector, job_id)
        with pytest.raises(JobNotFound):
            await ledger.stories.of(job_id)


async def test_a_memory_that_its_user_deletes_leaves_the_story_as_well(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await answer(ledger)
    await store(ledger, "m1", "m2")
    outlive(inspector, job_id)
    for kept in (["m2"], []):
        hold = await ledger.memory_requests.hold(lane_of(), f"token {kept}")
        assert isinstance(hold, Hold)
        await ledger.memory_requests.mend(hold.claim, job_id, kept)
        await ledger.turns.release_lane(hold.claim)

        assert (await ledger.stories.of(job_id)).memory_ids == tuple(kept)

    story = await ledger.stories.of(job_id)
    assert story.turn_code == "deleted"
    assert [step.kind for step in story.steps][-2:] == [K.CORRECTED, K.CORRECTED]


async def test_a_memory_of_turns_that_were_stored_together_leaves_the_story_of_each(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    jobs = [await answer(ledger) for _ in range(2)]
    lane = await claim_lane(ledger)
    await ledger.turns.begin(lane, *jobs, worker="m:1")
    await ledger.turns.settle(lane, jobs[0], TurnState.STORED, memory_ids=("m1", "m2"))
    await ledger.turns.release_lane(lane)
    for job_id in jobs:
        outlive(inspector, job_id)
    hold = await ledger.memory_requests.hold(lane_of(), "token")
    assert isinstance(hold, Hold)

    await ledger.memory_requests.mend(hold.claim, jobs[0], ["m2"])

    for job_id in jobs:
        assert (await ledger.stories.of(job_id)).memory_ids == ("m2",)


async def test_the_story_of_a_mended_turn_is_kept_as_it_is_then(
    ledger: Ledger, inspector: LedgerInspector, settings: Settings
) -> None:
    job_id = await answer(ledger)
    await store(ledger, "m1")
    hold = await ledger.memory_requests.hold(lane_of(), "token")
    assert isinstance(hold, Hold)
    await ledger.memory_requests.mend(hold.claim, job_id, [])
    assert inspector.redis.pttl(inspector.keys.story(job_id)) > settings.retention_s * 1000
    outlive(inspector, job_id)

    assert (await ledger.stories.of(job_id)).memory_ids == ()


@pytest.mark.parametrize("gone", [True, False], ids=["job gone", "job kept"])
async def test_an_erasure_leaves_no_story(
    ledger: Ledger, inspector: LedgerInspector, gone: bool
) -> None:
    mine = await answer(ledger)
    await store(ledger)
    other = await answer(ledger, user_id="bob", remember=False)
    if gone:
        outlive(inspector, mine)
    await ledger.erasures.begin(lane_of(), "test")
    held = await ledger.turns.claim_lane(lane_of(), "eraser", max_turns=1)
    assert isinstance(held, EraseClaim)

    await ledger.erasures.remove_records(held)

    assert inspector.redis.keys(inspector.keys.story("*")) == [inspector.keys.story(other)]
    if gone:
        with pytest.raises(JobNotFound):
            await ledger.stories.of(mine)


async def test_a_story_of_a_newer_version_is_named_and_not_guessed(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    job_id = await answer(ledger, remember=False)
    outlive(inspector, job_id)
    inspector.redis.hset(inspector.keys.story(job_id), "state", "enchanted")

    with pytest.raises(NewerRecord):
        await ledger.stories.of(job_id)
