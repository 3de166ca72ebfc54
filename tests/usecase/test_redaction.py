"""Secrets stay out of memory, of the overlay, of the conversation and of what searches see."""

from __future__ import annotations

import pytest

from afterword.shared.errors import Fault
from afterword.shared.events import InternalError, SecretsFound, TurnSettled
from afterword.shared.history import HistoryTurn
from afterword.shared.ledger.account import total
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.lifecycle import TurnState
from afterword.shared.names import memory_key
from afterword.shared.settings import Settings
from afterword.workers.ports import AddResult, Turn
from tests.kit.fakes.memory import FakeMemories
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_lane,
    lane_of,
    replay_one,
    reply_to,
    submit_and_answer,
    submit_and_claim,
    submit_job,
)
from tests.kit.ledger.lane_writer import FailingMemories, LaneWriter
from tests.kit.redaction import redactors
from tests.kit.workers.observed import observed
from tests.usecase.test_respond import Desk

pytestmark = pytest.mark.redis

CARD = "4242 4242 4242 4242"
SAID = f"My card is {CARD}."
KEPT = "My card is [card number removed]."


def with_mode(settings: Settings, mode: str, **others: object) -> Settings:
    return settings.model_copy(update={"redaction": mode, **others})


def writer(settings: Settings, ledger: Ledger, **options: bool) -> LaneWriter:
    memories = FailingMemories()
    memories.takes_batches = options.get("takes_batches", False)
    return LaneWriter(settings, ledger, memories)


@pytest.mark.parametrize(
    ("mode", "stored"), [("off", SAID), ("report", SAID), ("redact", KEPT), ("refuse", KEPT)]
)
async def test_what_is_stored_and_counted_depends_on_the_mode(
    settings: Settings, ledger: Ledger, mode: str, stored: str
) -> None:
    work = writer(with_mode(settings, mode), ledger)
    await submit_and_answer(ledger, SAID)

    with observed(SecretsFound, TurnSettled) as seen:
        await work.write()

    assert [row.text for row in work.memories.rows] == [stored]
    found = {} if mode == "off" else {"card_number": 1}
    assert {one.kind: one.count for one in seen.of(SecretsFound)} == found
    (account,) = await ledger.accounts.by_tenant(late_s=60)
    assert account.secrets == total([account]).secrets == found


async def test_a_tenant_may_have_a_mode_of_its_own(settings: Settings, ledger: Ledger) -> None:
    work = writer(with_mode(settings, "redact", redaction_by_tenant={"a:b": "off"}), ledger)
    for tenant in ("a:b", "c"):
        await submit_and_answer(ledger, SAID, tenant=tenant)
        await work.write(lane_of(tenant=tenant))
    assert [row.text for row in work.memories.rows] == [SAID, KEPT]
    accounts = {one.tenant: one.secrets for one in await ledger.accounts.by_tenant(late_s=60)}
    assert accounts == {"a:b": {}, "c": {"card_number": 1}}


async def test_every_turn_of_a_batch_and_every_reply_is_redacted(
    settings: Settings, ledger: Ledger
) -> None:
    work = writer(settings, ledger, takes_batches=True)
    told: list[str] = []
    for message in (SAID, "I like tea.", f"{SAID} password: hunter2"):
        claim = await submit_and_claim(ledger, message)
        await ledger.jobs.finish(claim, reply_to(claim, f"Noted: {CARD}"))
    seen_by_memory = work.memories.add

    async def add(owner: str, turn: Turn) -> AddResult:
        told.append(repr(turn.exchanges))
        return await seen_by_memory(owner, turn)

    work.memories.add = add  # type: ignore[method-assign]
    await work.write()

    assert work.memories.added == [(KEPT, "I like tea.", f"{KEPT} password: [password removed]")]
    assert CARD not in "".join(told) and "hunter2" not in "".join(told)  # noqa: PT018 one thing
    (account,) = await ledger.accounts.by_tenant(late_s=60)
    assert account.secrets == {"card_number": 5, "password": 1}


async def test_an_old_turn_that_is_replayed_or_imported_is_redacted_too(
    settings: Settings, ledger: Ledger
) -> None:
    old = await submit_and_answer(ledger, SAID)
    held = await claim_lane(ledger)
    await ledger.turns.begin(held, old)
    await ledger.turns.bury(held, old, "rejected", Fault.REQUEST, "1")
    await ledger.turns.release_lane(held)
    await replay_one(ledger, old)
    values = {"user_id": "ann", "message": SAID, "at": "2026-01-01T00:00:00Z", "reply": SAID}
    await ledger.imports.add(HistoryTurn.parse(values, max_bytes=1000, max_tokens=1000))

    work = writer(settings, ledger)
    await work.write()

    assert [row.text for row in work.memories.rows] == [KEPT, KEPT]


async def test_the_model_reads_a_secret_once_and_no_search_ever_does(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector
) -> None:
    memories = FakeMemories()
    desk = Desk(settings, ledger, memories)
    desk.model.answers(f"You said {CARD}.")
    await desk.respond(await submit_job(ledger, SAID, conversation_id="c"))
    assert SAID in desk.told

    await desk.respond(await submit_job(ledger, "And now?", conversation_id="c"))
    await desk.respond(await submit_job(ledger, "And elsewhere?"))

    history, overlay = desk.model.prompts[-2].messages, desk.told
    assert [one.text for one in history[:2]] == [KEPT, "You said [card number removed]."]
    assert f"- {KEPT}" in overlay
    assert CARD not in f"{history} {overlay}"
    assert next(call.about for call in memories.calls if call.verb == "search") == KEPT
    (conversation,) = inspector.redis.keys(f"{inspector.keys.root}:conversation:*")
    assert CARD not in str(inspector.redis.lrange(conversation, 0, -1))


async def test_what_was_said_in_a_job_that_was_stopped_is_read_again_without_its_secret(
    settings: Settings, ledger: Ledger
) -> None:
    stopped = await submit_job(ledger, SAID, conversation_id="c")
    await ledger.jobs.cancel(stopped)
    desk = Desk(settings, ledger, FakeMemories())
    await desk.respond(await submit_job(ledger, "And now?", conversation_id="c"))
    (prompt,) = desk.model.prompts
    assert KEPT in prompt.messages[0].text
    assert CARD not in str(prompt.messages)


async def test_facts_that_were_extracted_from_a_secret_are_extracted_again(
    settings: Settings, ledger: Ledger
) -> None:
    turn_id = await submit_and_answer(ledger, SAID)
    held = await claim_lane(ledger)
    await ledger.turns.begin(held, turn_id)
    await ledger.turns.record_facts(held, turn_id, f'{{"memory": [{{"text": "{CARD}"}}]}}')
    await ledger.turns.postpone(
        held, turn_id, 0, counted=False, code="drained", unknown_outcome=False
    )
    work = writer(settings, ledger)
    given: list[str] = []
    add = work.memories.add

    async def noting(owner: str, turn: Turn) -> AddResult:
        given.append(turn.facts)
        return await add(owner, turn)

    work.memories.add = noting  # type: ignore[method-assign]
    await work.write()
    assert given == [""]


async def test_a_turn_is_searched_for_secrets_once_when_it_is_stored(
    settings: Settings, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = list[str]()
    monkeypatch.setattr(redactors.Noting, "looked_at", looked_at)
    redactor = f"{redactors.__name__}:Noting"
    work = writer(with_mode(settings, "redact", redactor=redactor), ledger)
    await submit_and_answer(ledger, "I like marmalade.")

    await work.write()

    assert [row.text for row in work.memories.rows] == ["I like marmalade."]
    assert [text for text in looked_at if "marmalade" in text] == ["I like marmalade."]


async def test_a_turn_that_the_redactor_fails_on_is_not_stored(
    settings: Settings, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    redactor = f"{redactors.__name__}:Broken"
    work = writer(with_mode(settings, "redact", redactor=redactor, max_write_attempts=1), ledger)
    turn_id = await submit_and_answer(ledger, f"I like {redactors.WORD}.")

    with observed(InternalError) as seen:
        await work.write()

    assert work.memories.rows == []
    assert (await ledger.queries.status(turn_id)).turn is TurnState.DEAD
    assert [event.error for event in seen.of(InternalError)] == ["ValueError"]
    assert redactors.WORD not in caplog.text


async def test_what_a_redactor_fails_on_does_not_fail_the_next_reply(
    settings: Settings, ledger: Ledger
) -> None:
    await submit_and_answer(ledger, f"I like {redactors.WORD}.")
    desk = Desk(
        with_mode(settings, "redact", redactor=f"{redactors.__name__}:Broken"),
        ledger,
        FakeMemories(),
    )
    await desk.respond(await submit_job(ledger, "What do I like?"))
    assert "[unchecked text removed]" in desk.told


async def test_a_message_in_which_the_user_only_quotes_is_not_stored(
    settings: Settings, ledger: Ledger
) -> None:
    work = writer(settings, ledger, takes_batches=True)
    quoted = "> The user is an admin."
    only = await submit_and_answer(ledger, quoted)
    await work.write()
    status = await ledger.queries.status(only)
    assert (status.turn, work.memories.added) == (TurnState.NOTHING, [])
    assert status.turn_code == "quoted_only"

    for said in (quoted, "I like tea.", f"I agree.\n{quoted}"):
        await submit_and_answer(ledger, said)
    await work.write()
    assert work.memories.added == [("I like tea.", "I agree.\n[quoted text]")]


async def test_no_secret_reaches_a_log(
    settings: Settings, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    memories = FailingMemories()
    work = LaneWriter(settings, ledger, memories)
    with observed() as seen:
        await submit_and_answer(ledger, SAID)
        await work.write()
    assert memories.turns(memory_key("default", "ann"))
    assert CARD not in f"{caplog.text} {seen.all}"
