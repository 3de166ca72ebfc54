"""A ledger with something of every kind in it, every text of which is the one that a test gives."""

from __future__ import annotations

from dataclasses import dataclass

from afterword.shared.errors import Fault
from afterword.shared.ledger.dead_letter_records import ReplayPace, ReplayState
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import UnrecognisedMessage
from afterword.shared.names import REPLIES
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_lane,
    reply_to,
    submit_and_answer,
    submit_and_claim,
)

#: The idempotency key of the job that has its reply.
KEY = "k"


@dataclass(frozen=True, slots=True)
class Stored:
    """The ids of what stands in the ledger: a reply, two dead letters, and a run of both."""

    answered: str
    turn: str
    job: str
    run: str


async def fill(ledger: Ledger, inspector: LedgerInspector, text: str) -> Stored:
    """Store something of every kind, with this text wherever one can be."""
    claimed = await submit_and_claim(ledger, text, idempotency_key=KEY)
    await ledger.jobs.append_delta(claimed, 1, text)
    await ledger.jobs.finish(claimed, reply_to(claimed, text))
    turn = await submit_and_answer(ledger, text, user_id="eve")
    held = await claim_lane(ledger, inspector.job(turn)["lane"])
    await ledger.turns.begin(held, turn)
    await ledger.turns.bury(held, turn, text, Fault.REQUEST, text)
    failed = await submit_and_claim(ledger, text, user_id="mal")
    await ledger.jobs.fail(failed, text)
    letters = [letter.ref async for letter in ledger.dead_letters.select()]
    run = await ledger.replay_runs.begin(
        letters, by=text, criteria={"code": text}, pace=ReplayPace(), token="t"
    )
    await ledger.replay_runs.end(run, "t", ReplayState.STOPPED, text, by=text)
    await ledger.replay_runs.add_audit_entry(text, text, {text: text}, "x")
    await ledger.quarantine.add(UnrecognisedMessage(text, text, 1, text, text))
    now_ms = 1000 * inspector.redis.time()[0]
    inspector.redis.zadd(inspector.keys.workers, {f"{REPLIES} {text}": now_ms})
    inspector.redis.hset(inspector.keys.counts, f"turn:stored:{text}", 1)
    inspector.redis.zadd(inspector.keys.behind(text), {"lane": 1})
    return Stored(claimed.job_id, turn, failed.job_id, run)
