"""A user's memories, seen and changed through the ledger: what was deleted never comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from afterword.shared.contracts import MemoryUsed
from afterword.shared.errors import Fault, Unavailable
from afterword.shared.ledger.dead_letter_records import ReplayOutcome
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.memory_requests import MAX_OPEN, Hold, MemoryAction
from afterword.shared.lifecycle import TurnState
from afterword.shared.names import RECALL_GATE, REMEMBER_GATE, memory_key
from afterword.shared.settings import Settings
from afterword.workers.background.late_copies import LateCopyRemover
from afterword.workers.kept_text import KeptText
from afterword.workers.memories import requests
from afterword.workers.memories.erase import Eraser
from afterword.workers.memories.lane import LaneProcessor
from afterword.workers.memories.requests import RequestAnswerer
from afterword.workers.ports import AddOutcome, RecalledMemory, Turn
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_job,
    claim_lane,
    lane_of,
    reply_to,
    submit_and_answer,
    submit_and_claim,
    submit_job,
)
from tests.kit.ledger.lane_writer import FailingMemories, LaneWriter
from tests.kit.waiting import until

pytestmark = pytest.mark.redis

ANN = memory_key("default", "ann")
BEN = memory_key("default", "ben")
AT = datetime(2026, 5, 8, tzinfo=UTC)
TEXT = "I prefer Celsius."


class Desk:
    """A memory worker that writes lanes and answers requests, before a fake memory."""

    def __init__(self, settings: Settings, ledger: Ledger, inspector: LedgerInspector) -> None:
        self.ledger = ledger
        self.settings = settings
        self.inspector = inspector
        self.memories = FailingMemories()
        self.writer = LaneWriter(settings, ledger, self.memories)
        self.answerer = self._answerer(self.memories)
        self._remover = LateCopyRemover(ledger.memory_requests, self.memories, 5)

    def _answerer(self, memories: FailingMemories | None) -> RequestAnswerer:
        requests, turns = self.ledger.memory_requests, self.ledger.turns
        kept = KeptText.of(self.settings)
        gates = self.writer.gates
        return RequestAnswerer(
            requests, turns, memories, self.writer.leases, kept, gates, limit_s=5
        )

    def switch_memory_off(self) -> None:
        self.answerer = self._answerer(None)

    async def asked(
        self, action: MemoryAction, *, lane: str | None = None, **said: Any
    ) -> Mapping[str, Any]:
        """Ask, let a worker answer, and return its answer."""
        request_id, word = await self.ledger.memory_requests.ask(
            lane or lane_of(), action, said, 5.0
        )
        assert word == "asked"
        await self.answerer.process(request_id)
        answer = await self.ledger.memory_requests.answer_to(request_id)
        assert answer is not None
        return answer

    async def texts(self, lane: str | None = None) -> list[str]:
        """Return all that is listed."""
        answer = await self.asked("list", lane=lane, limit=50, after=None)
        return [row["text"] for row in answer["result"]["memories"]]

    async def stored(self, text: str = TEXT, **fields: object) -> tuple[str, str]:
        """Store a turn; return its id and that of its memory."""
        turn_id = await submit_and_answer(self.ledger, text, **fields)
        await self.writer.write()
        return turn_id, self.memories.rows[-1].id

    async def half_stored(self, text: str = TEXT) -> tuple[str, str]:
        """Let mem0 store a turn without a word of it, as if the worker had died; return ids."""
        self.memories.fail_after("add", Unavailable("cut", unknown_outcome=True))
        turn_id, memory_id = await self.stored(text)
        assert self.inspector.job(turn_id)["turn"] == "pending"
        return turn_id, memory_id

    async def write_again(self) -> None:
        """Let the time pass until the lane is due, and write what it holds."""
        self.inspector.make_due(lane_of())
        await self.writer.write()

    async def look_for_late_copies(self) -> None:
        """Let the time pass until every mended turn is checked."""
        key = self.inspector.keys.late_copies
        for name in self.inspector.redis.zrange(key, 0, -1):
            self.inspector.redis.zadd(key, {name: 0})
        await self._remover.check_due_turns()


@pytest.fixture
def desk(settings: Settings, ledger: Ledger, inspector: LedgerInspector) -> Desk:
    return Desk(settings, ledger, inspector)


def own(text: str, memory_id: str, owner: str = ANN) -> RecalledMemory:
    return RecalledMemory(memory_id, owner, text, None, AT)


# -- reading


async def test_all_memories_are_listed_page_by_page(desk: Desk) -> None:
    desk.memories.rows = [own(f"fact {number}", f"m{number}") for number in range(5)]
    first = (await desk.asked("list", limit=3, after=None))["result"]
    rest = (await desk.asked("list", limit=3, after=first["next"]))["result"]
    found = [row["text"] for row in (*first["memories"], *rest["memories"])]
    assert found == [f"fact {number}" for number in (4, 3, 2, 1, 0)]
    assert rest["next"] is None


async def test_a_memory_names_its_turn_and_the_turn_its_memory(desk: Desk) -> None:
    turn_id, memory_id = await desk.stored(conversation_id="c")
    shown = (await desk.asked("show", id=memory_id))["result"]
    assert (shown["text"], shown["job_id"], shown["conversation_id"]) == (TEXT, turn_id, "c")
    status = await desk.ledger.queries.status(turn_id)
    assert (status.memory_ids, status.turn) == ((memory_id,), TurnState.STORED)


async def test_a_memory_names_the_replies_that_were_given_it(desk: Desk) -> None:
    _, memory_id = await desk.stored()
    given = []
    for number in range(3):
        claim = await submit_and_claim(desk.ledger, f"And now {number}?", remember=False)
        used = MemoryUsed(id=memory_id if number != 1 else "other", text=TEXT, score=1.0)
        await desk.ledger.jobs.finish(claim, reply_to(claim, memories=(used,)))
        given.append(claim.job_id)
    shown = (await desk.asked("show", id=memory_id))["result"]
    assert shown["given_to"] == [given[2], given[0]]
    desk.inspector.redis.delete(desk.inspector.keys.job(given[2]))
    assert (await desk.asked("show", id=memory_id))["result"]["given_to"] == [given[0]]


async def test_a_search_finds_and_drops_what_is_of_others(desk: Desk) -> None:
    desk.memories.rows = [own(TEXT, "mine"), own(TEXT, "theirs", BEN)]
    desk.memories.plant(ANN, own(TEXT, "theirs", BEN))
    found = (await desk.asked("search", query="Celsius", limit=5))["result"]
    assert [row["id"] for row in found["memories"]] == ["mine"]
    assert found["dropped"] == 1


@pytest.mark.parametrize("action", ["show", "edit", "delete"])
async def test_the_memory_of_another_is_not_found(desk: Desk, action: MemoryAction) -> None:
    desk.memories.rows = [own(TEXT, "theirs", BEN)]
    answer = await desk.asked(action, id="theirs", text="something else")
    assert answer == {"code": "not_found", "may_be_done": False}
    assert desk.memories.rows == [own(TEXT, "theirs", BEN)]


async def test_without_memory_a_worker_says_so(desk: Desk) -> None:
    desk.switch_memory_off()
    answer = await desk.asked("list", limit=5, after=None)
    assert answer == {"code": "memory_off", "may_be_done": False}


async def test_a_page_after_no_page_is_refused(desk: Desk) -> None:
    assert (await desk.asked("list", limit=5, after="x"))["code"] == "bad_cursor"


@pytest.mark.parametrize(
    ("gate", "action", "other"),
    [(RECALL_GATE, "list", "delete"), (REMEMBER_GATE, "delete", "list")],
)
async def test_while_mem0s_gate_is_shut_the_answer_comes_at_once(
    desk: Desk, gate: str, action: MemoryAction, other: MemoryAction
) -> None:
    _, memory_id = await desk.stored()
    desk.memories.calls.clear()
    said: dict[str, Any] = {"id": memory_id, "limit": 5, "after": None}
    await desk.ledger.gates.shut(gate, by="ann", reason="", for_s=60)
    await desk.writer.gates.refresh()
    answer = await desk.asked(action, **said)
    assert answer == {"code": "gate_shut", "may_be_done": False}
    assert desk.memories.calls == []
    assert "result" in await desk.asked(other, **said)


async def test_what_a_request_finds_of_mem0_is_told_to_its_gate(desk: Desk) -> None:
    for _ in range(5):
        desk.memories.fail("page", Unavailable("mem0_down"))
        assert (await desk.asked("list", limit=5, after=None))["code"] == "mem0_down"
        await desk.writer.gates.flush()
    assert (await desk.asked("list", limit=5, after=None))["code"] == "gate_shut"


async def test_a_deletion_that_mem0_cannot_make_is_told_to_its_gate(desk: Desk) -> None:
    ids = [(await desk.stored())[1] for _ in range(6)]
    for memory_id in ids[:5]:
        desk.memories.fail("remove", Unavailable("mem0_down"))
        answer = await desk.asked("delete", id=memory_id)
        assert answer == {"code": "mem0_down", "may_be_done": True}
        await desk.writer.gates.flush()
    assert (await desk.asked("delete", id=ids[5]))["code"] == "gate_shut"


async def test_a_page_of_long_memories_has_fewer_of_them(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_PAGE_BYTES", 250)
    texts = [*(letter * 100 for letter in "abcde"), "ö" * 200]
    desk.memories.rows = [own(text, text[0]) for text in texts]
    pages: list[list[str]] = []
    after: str | None = None
    for _ in texts:
        page = (await desk.asked("list", limit=4, after=after))["result"]
        pages.append([row["id"] for row in page["memories"]])
        after = page["next"]
        if after is None:
            break
    assert pages == [["ö"], ["e", "d"], ["c"], ["b", "a"]], "four, two, or one of them"


async def test_a_search_for_long_memories_finds_the_best_of_them(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests, "MAX_PAGE_BYTES", 250)
    desk.memories.rows = [own(f"tea {letter * 100}", letter) for letter in "abcd"]
    whole = (await desk.asked("search", query="tea", limit=2))["result"]
    assert len(whole["memories"]) == 2
    found = (await desk.asked("search", query="tea", limit=4))["result"]
    assert found["memories"] == whole["memories"]
    monkeypatch.setattr(requests, "MAX_PAGE_BYTES", 10)
    (best,) = (await desk.asked("search", query="tea", limit=4))["result"]["memories"]
    assert best == whole["memories"][0]


# -- what was deleted stays deleted, what was edited stays edited


async def test_a_memory_is_deleted(desk: Desk) -> None:
    turn_id, memory_id = await desk.stored()
    assert (await desk.asked("delete", id=memory_id)) == {"result": {}}
    assert desk.memories.rows == []
    assert (await desk.ledger.queries.status(turn_id)).memory_ids == ()
    assert desk.inspector.places(lane_of()) == []


async def test_no_retry_brings_a_deleted_memory_back(desk: Desk) -> None:
    turn_id, memory_id = await desk.half_stored()
    await desk.asked("delete", id=memory_id)
    assert desk.inspector.lane(lane_of()) == []
    await desk.write_again()
    assert desk.memories.rows == []
    status = await desk.ledger.queries.status(turn_id)
    assert (status.turn, status.turn_code) == (TurnState.SKIPPED, "deleted")


async def test_no_retry_brings_back_what_an_edited_memory_was(desk: Desk) -> None:
    turn_id, memory_id = await desk.half_stored()
    edited = (await desk.asked("edit", id=memory_id, text="I prefer Fahrenheit."))["result"]
    assert (edited["id"], edited["text"]) == (memory_id, "I prefer Fahrenheit.")
    await desk.write_again()
    assert await desk.texts() == ["I prefer Fahrenheit."]
    status = await desk.ledger.queries.status(turn_id)
    assert (status.turn, status.memory_ids) == (TurnState.STORED, (memory_id,))


async def test_no_replay_brings_a_deleted_memory_back(desk: Desk) -> None:
    turn_id, memory_id = await desk.half_stored()
    desk.inspector.make_due(lane_of())
    held = await claim_lane(desk.ledger)
    await desk.ledger.turns.begin(held, turn_id)
    await desk.ledger.turns.bury(held, turn_id, "x", Fault.REQUEST, "1")
    await desk.ledger.turns.release_lane(held)
    letter = await desk.ledger.dead_letters.get(turn_id)

    await desk.asked("delete", id=memory_id)

    outcome = await desk.ledger.dead_letters.replay(letter.ref, "run")
    assert outcome is not ReplayOutcome.WAITING
    await desk.writer.write()
    assert desk.memories.rows == []
    assert (await desk.ledger.queries.status(turn_id)).turn is TurnState.SKIPPED


async def test_a_deleted_memory_is_in_no_overlay(desk: Desk) -> None:
    _, memory_id = await desk.half_stored()
    await desk.asked("delete", id=memory_id)
    claim = await claim_job(desk.ledger, await submit_job(desk.ledger, "What do I prefer?"))
    assert claim.overlay == ()


async def test_what_a_paused_writer_adds_later_is_removed(desk: Desk) -> None:
    turn_id, memory_id = await desk.stored()
    kept = own("My dog is called Rex.", "other")
    desk.memories.rows.append(kept)
    await desk.asked("delete", id=memory_id)
    await desk.memories.add(ANN, Turn(turn_id, TEXT, "Noted.", AT, attempt="late"))
    assert await desk.texts() == [TEXT, kept.text]

    await desk.look_for_late_copies()

    assert await desk.texts() == [kept.text]
    assert desk.inspector.redis.zcard(desk.inspector.keys.late_copies) == 0


async def test_an_edited_memory_outlives_the_look_for_late_copies(desk: Desk) -> None:
    turn_id, memory_id = await desk.stored()
    await desk.asked("edit", id=memory_id, text="I prefer Fahrenheit.")
    await desk.memories.add(ANN, Turn(turn_id, TEXT, "Noted.", AT, attempt="late"))
    await desk.look_for_late_copies()
    assert await desk.texts() == ["I prefer Fahrenheit."]


async def test_migrated_memories_of_a_changed_turn_are_known_by_their_old_ids(desk: Desk) -> None:
    turn_id, memory_id = await desk.stored()
    await desk.asked("edit", id=memory_id, text="I prefer Kelvin.")
    (edited,) = desk.memories.rows
    gone = replace(edited, id="deleted-before", text="I prefer Rankine.")
    desk.memories.rows.clear()
    for one in (edited, gone):
        await desk.memories.copy(ANN, one)
    await desk.look_for_late_copies()
    assert await desk.memories.find(ANN, turn_id) == [desk.memories.rows[0].id]
    assert await desk.texts() == ["I prefer Kelvin."]


async def test_a_deletion_that_mem0_refuses_is_completed_later(desk: Desk) -> None:
    _, memory_id = await desk.stored()
    desk.memories.fail("remove", Unavailable("down"))
    answer = await desk.asked("delete", id=memory_id)
    assert answer == {"code": "down", "may_be_done": True}
    assert await desk.texts() == [TEXT]
    await desk.look_for_late_copies()
    assert await desk.texts() == []


async def test_a_look_that_mem0_refuses_is_repeated(desk: Desk) -> None:
    _, memory_id = await desk.stored()
    desk.memories.fail("remove", Unavailable("down"))
    await desk.asked("delete", id=memory_id)
    desk.memories.fail("find", Unavailable("down"))
    await desk.look_for_late_copies()
    await desk.look_for_late_copies()
    assert await desk.texts() == []


async def test_a_memory_of_no_turn_is_edited_and_deleted(desk: Desk) -> None:
    desk.memories.rows = [own(TEXT, "m1")]
    await desk.asked("edit", id="m1", text="I prefer Fahrenheit.")
    assert await desk.texts() == ["I prefer Fahrenheit."]
    await desk.asked("delete", id="m1")
    assert await desk.texts() == []


async def test_a_turn_that_mem0_still_works_on_is_left_alone(desk: Desk) -> None:
    desk.memories.polls = 5
    turn_id = await submit_and_answer(desk.ledger, TEXT)
    await desk.writer.write()
    assert "event" in desk.inspector.job(turn_id)
    desk.memories.rows = [replace(own(TEXT, "m1"), turn_id=turn_id)]
    answer = await desk.asked("delete", id="m1")
    assert answer == {"code": "being_stored", "may_be_done": False}
    assert [row.id for row in desk.memories.rows] == ["m1"]


@pytest.mark.parametrize(("unknown", "may_be_done"), [(True, True), (False, False)])
async def test_an_edit_that_failed_says_whether_it_may_be_done(
    desk: Desk, unknown: bool, may_be_done: bool
) -> None:
    _, memory_id = await desk.stored()
    desk.memories.fail("edit", Unavailable("down", unknown_outcome=unknown))
    answer = await desk.asked("edit", id=memory_id, text="I prefer Fahrenheit.")
    assert answer == {"code": "down", "may_be_done": may_be_done}


@pytest.mark.parametrize("action", ["edit", "delete"])
async def test_what_says_the_same_is_removed_with_a_memory(
    desk: Desk, action: MemoryAction
) -> None:
    first, _ = await desk.stored("I like tea.")
    await desk.stored("I like coffee.")
    _, memory_id = await desk.stored("i LIKE  tea.")
    desk.memories.rows.append(own("I like tea.", "theirs", BEN))
    await desk.asked(action, id=memory_id, text="I like milk.")
    kept = ["I like coffee.", *(["I like milk."] if action == "edit" else [])]
    assert sorted(await desk.texts()) == kept
    assert [row.id for row in desk.memories.rows if row.owner == BEN] == ["theirs"]
    status = await desk.ledger.queries.status(first)
    assert (status.memory_ids, status.turn_code) == ((), "deleted")
    await desk.memories.add(ANN, Turn(first, "I like tea.", "Noted.", AT, attempt="late"))
    await desk.look_for_late_copies()
    assert sorted(await desk.texts()) == kept


async def test_an_edit_that_is_repeated_removes_nothing_else(desk: Desk) -> None:
    _, other = await desk.stored("I like milk.")
    _, memory_id = await desk.stored("I like tea.")
    for _ in range(2):
        await desk.asked("edit", id=memory_id, text="I like milk.")
    assert {row.id for row in desk.memories.rows} == {other, memory_id}


async def test_a_repeat_that_cannot_be_removed_leaves_the_memory_to_try_again(desk: Desk) -> None:
    await desk.stored("I like tea.")
    _, memory_id = await desk.stored("I like tea.")
    desk.memories.fail("remove", Unavailable("down"))
    assert (await desk.asked("delete", id=memory_id))["may_be_done"]
    assert memory_id in {row.id for row in desk.memories.rows}
    await desk.asked("delete", id=memory_id)
    assert await desk.texts() == []


async def test_what_nobody_sees_of_a_new_text_is_not_stored(desk: Desk) -> None:
    _, memory_id = await desk.stored()
    edited = await desk.asked("edit", id=memory_id, text="I \u200bprefer\u202e Kelvin.\r\n")
    assert edited["result"]["text"] == "I prefer Kelvin.\n"
    blank = await desk.asked("edit", id=memory_id, text="\u200b \u2060")
    assert blank == {"code": "blank_text", "may_be_done": False}


async def test_a_new_text_may_look_quoted(desk: Desk) -> None:
    _, memory_id = await desk.stored()
    edited = (await desk.asked("edit", id=memory_id, text="> I prefer Kelvin."))["result"]
    assert edited["text"] == "> I prefer Kelvin."


async def test_a_secret_in_a_new_text_is_not_stored(desk: Desk) -> None:
    _, memory_id = await desk.stored()
    secret = "https://ann:hunter2@example.com/"
    edited = (await desk.asked("edit", id=memory_id, text=f"My feed is {secret}"))["result"]
    assert "hunter2" not in edited["text"]
    assert "removed]" in edited["text"]
    assert await desk.texts() == [edited["text"]]


# -- beside the writer of the lane


async def test_a_change_waits_for_the_writer_and_comes_before_the_next(
    desk: Desk, inspector: LedgerInspector
) -> None:
    _, memory_id = await desk.stored()
    await submit_and_answer(desk.ledger, "My dog is called Rex.")
    held = await claim_lane(desk.ledger)
    asking = asyncio.create_task(desk.asked("delete", id=memory_id))
    mending = inspector.keys.mending(lane_of())
    await until(lambda: inspector.redis.persist(mending), "the change waits for the lane")
    await desk.ledger.turns.release_lane(held)
    assert await desk.ledger.turns.claim_lane(lane_of(), "another", max_turns=5) is None

    assert (await asking) == {"result": {}}

    await desk.write_again()
    assert await desk.texts() == ["My dog is called Rex."]


async def test_who_waits_for_a_lane_in_vain_learns_it_before_giving_up(desk: Desk) -> None:
    _, memory_id = await desk.stored()
    await submit_and_answer(desk.ledger, "My dog is called Rex.")
    await claim_lane(desk.ledger)
    requests = desk.ledger.memory_requests
    asked, _ = await requests.ask(lane_of(), "delete", {"id": memory_id}, 0.8)
    await desk.answerer.process(asked)
    withdrawn = await requests.withdraw(asked)
    assert withdrawn.answer == {"code": "lane_busy", "may_be_done": False}


async def test_a_lane_that_is_held_for_a_change_is_written_by_nobody(desk: Desk) -> None:
    await submit_and_answer(desk.ledger, TEXT)
    held = await desk.ledger.memory_requests.hold(lane_of(), "me")
    assert isinstance(held, Hold)
    assert await desk.ledger.memory_requests.hold(lane_of(), "me") == held
    assert await desk.ledger.memory_requests.hold(lane_of(), "you") == "taken"
    await desk.writer.write()
    assert desk.memories.rows == []


async def test_a_change_keeps_the_pause_of_its_lane(desk: Desk, inspector: LedgerInspector) -> None:
    _, memory_id = await desk.stored()
    desk.memories.fail("add", Unavailable("down"))
    await submit_and_answer(desk.ledger, "My dog is called Rex.")
    await desk.writer.write()
    inspector.redis.zincrby(inspector.keys.place("waiting", "memories.0"), 30_000, lane_of())
    await desk.asked("delete", id=memory_id)
    assert inspector.waits_s(lane_of()) > 20


async def test_a_change_keeps_a_long_pause_unless_it_takes_away_what_waits(
    desk: Desk, inspector: LedgerInspector
) -> None:
    _, stored = await desk.stored()
    await desk.half_stored("I prefer Kelvin.")
    waiting = desk.memories.rows[-1].id
    inspector.redis.zincrby(inspector.keys.place("waiting", "memories.0"), 3_600_000, lane_of())

    await desk.asked("delete", id=stored)
    assert inspector.waits_s(lane_of()) > 3500, "the pause that was asked for"
    await submit_and_answer(desk.ledger, "My dog is called Rex.")
    await desk.asked("delete", id=waiting)
    assert inspector.waits_s(lane_of()) <= 60


async def test_a_user_who_is_being_erased_is_refused(desk: Desk) -> None:
    desk.memories.rows = [own(TEXT, "m1")]
    requests = desk.ledger.memory_requests
    before, _ = await requests.ask(lane_of(), "delete", {"id": "m1"}, 5)
    await desk.ledger.erasures.begin(lane_of(), "me")
    assert (await requests.ask(lane_of(), "list", {}, 5))[1] == "erasing"
    await desk.answerer.process(before)
    answer = await requests.answer_to(before)
    assert answer == {"code": "being_erased", "may_be_done": False}


async def test_an_erasure_removes_requests_answers_and_lineage(
    desk: Desk, settings: Settings, inspector: LedgerInspector
) -> None:
    _, memory_id = await desk.stored()
    claim = await submit_and_claim(desk.ledger, "What do I prefer?", remember=False)
    used = MemoryUsed(id=memory_id, text=TEXT, score=1.0)
    await desk.ledger.jobs.finish(claim, reply_to(claim, memories=(used,)))
    await desk.texts()
    await desk.ledger.memory_requests.ask(lane_of(), "search", {"query": TEXT}, 5)
    await desk.ledger.memory_requests.ask(lane_of("ben"), "search", {"query": TEXT}, 5)
    await desk.ledger.erasures.begin(lane_of(), "me")
    eraser = Eraser(desk.ledger.erasures, desk.memories, 1)
    await LaneProcessor(desk.ledger.turns, desk.writer.leases, None, eraser).process(lane_of())
    keys = inspector.keys
    assert inspector.redis.keys(f"{keys.given('')}*") == []
    (left,) = inspector.redis.keys(f"{keys.memory_request('')}*")
    assert inspector.redis.hget(left, "lane") == lane_of("ben")


# -- the request itself


async def test_a_request_goes_ahead_of_all_turns(desk: Desk, inspector: LedgerInspector) -> None:
    for user in ("ben", "cleo"):
        await submit_and_answer(desk.ledger, TEXT, user_id=user)
    request_id, _ = await desk.ledger.memory_requests.ask(lane_of(), "list", {}, 5)
    assert inspector.hinted("memories.0")[0] == request_id


async def test_an_answer_is_given_once_and_kept_for_a_while(
    desk: Desk, inspector: LedgerInspector
) -> None:
    request_id, _ = await desk.ledger.memory_requests.ask(
        lane_of(), "list", {"limit": 5, "after": None}, 5
    )
    key = inspector.keys.memory_request(request_id)
    assert 5_000 < inspector.redis.pttl(key) <= 65_000
    await asyncio.gather(*(desk.answerer.process(request_id) for _ in range(3)))
    assert len([call for call in desk.memories.calls if call.verb == "page"]) == 1
    assert 0 < inspector.redis.pttl(key) <= 60_000
    assert inspector.places(request_id) == []
    assert inspector.open_ends() == set()


async def test_a_lost_hint_of_a_request_is_sent_again(
    desk: Desk, inspector: LedgerInspector
) -> None:
    request_id, _ = await desk.ledger.memory_requests.ask(lane_of(), "list", {}, 5)
    inspector.drop_hints()
    inspector.pass_time(60)
    await desk.ledger.maintenance.sweep()
    assert inspector.hinted("memories.0") == [request_id]


async def test_a_worker_that_knows_no_requests_finds_a_lane_without_turns(
    desk: Desk, inspector: LedgerInspector
) -> None:
    request_id, _ = await desk.ledger.memory_requests.ask(
        lane_of(), "list", {"limit": 5, "after": None}, 5
    )
    await desk.writer.write(request_id)
    assert await desk.ledger.memory_requests.answer_to(request_id) is None
    await desk.ledger.memory_requests.remind(request_id)
    assert inspector.hinted("memories.0")[-1] == request_id
    await desk.answerer.process(request_id)
    assert await desk.ledger.memory_requests.answer_to(request_id) is not None


async def test_a_request_is_taken_back(desk: Desk, inspector: LedgerInspector) -> None:
    requests = desk.ledger.memory_requests
    asked, _ = await requests.ask(lane_of(), "list", {}, 5)
    assert await requests.withdraw(asked) == (False, None)
    await desk.answerer.process(asked)
    assert await requests.answer_to(asked) is None
    assert inspector.open_ends() == set()

    begun, _ = await requests.ask(lane_of(), "list", {}, 5)
    request = await requests.claim(begun, "me")
    assert request is not None
    assert await requests.withdraw(begun) == (True, None)
    await requests.answer(request, {"result": {}})
    assert inspector.open_ends() == set()

    answered, _ = await requests.ask(lane_of(), "list", {"limit": 5, "after": None}, 5)
    await desk.answerer.process(answered)
    assert (await requests.withdraw(answered)).answer is not None


async def test_of_a_crashed_worker_another_takes_the_request_over(
    desk: Desk, inspector: LedgerInspector
) -> None:
    request_id, _ = await desk.ledger.memory_requests.ask(
        lane_of(), "list", {"limit": 5, "after": None}, 5
    )
    assert await desk.ledger.memory_requests.claim(request_id, "crashed") is not None
    await desk.answerer.process(request_id)
    assert await desk.ledger.memory_requests.answer_to(request_id) is None
    inspector.make_due(request_id)
    await desk.ledger.maintenance.sweep()
    await desk.answerer.process(request_id)
    assert await desk.ledger.memory_requests.answer_to(request_id) is not None


async def test_so_many_requests_may_be_open(desk: Desk, inspector: LedgerInspector) -> None:
    requests = desk.ledger.memory_requests
    later = inspector.redis.time()[0] * 1000 + 60_000
    inspector.redis.zadd(
        inspector.keys.memory_requests, {f"r{number}": later for number in range(MAX_OPEN)}
    )
    assert (await requests.ask(lane_of(), "list", {}, 5))[1] == "full"
    inspector.redis.zadd(inspector.keys.memory_requests, {"r0": 1})
    assert (await requests.ask(lane_of(), "list", {}, 5))[1] == "asked"


async def test_a_request_of_a_newer_version_is_held(desk: Desk, inspector: LedgerInspector) -> None:
    request_id, _ = await desk.ledger.memory_requests.ask(lane_of(), "list", {}, 5)
    inspector.redis.hset(inspector.keys.memory_request(request_id), "version", 99)
    await desk.answerer.process(request_id)
    assert inspector.places(request_id) == [("waiting", "memories.0")]


async def test_nothing_is_stored_of_what_was_deleted_while_mem0_found_nothing(desk: Desk) -> None:
    desk.memories.outcome = AddOutcome.NOTHING
    turn_id = await submit_and_answer(desk.ledger, TEXT)
    await desk.writer.write()
    assert (await desk.ledger.queries.status(turn_id)).memory_ids == ()
