"""One reply from claim to finish, and the rules of its message, as the guard counts them.

The model and the memory are stand-ins that answer at once: what is counted is ours.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime

from afterword.shared.contracts import ChatRequest, Usage
from afterword.shared.ledger.ledger import Ledger
from afterword.workers.gate import GateClient
from afterword.workers.leases import Leases
from afterword.workers.ports import (
    Answer,
    ModelCheck,
    OnQuota,
    OnUsage,
    Prompt,
    RecalledMemory,
    SearchResult,
)
from afterword.workers.quotas import QuotaClient
from afterword.workers.replies.model_call import ModelCaller
from afterword.workers.replies.recall import RecallBudget, Recaller
from afterword.workers.replies.respond import Responder
from afterword.workers.rules.asked_days import asked_days
from afterword.workers.rules.dates import with_dates
from afterword.workers.rules.remembering import reason_in

ASKED = {"user_id": "user-1", "message": "What is a good temperature?"}

_TODAY = date(2026, 12, 1)
_AT = datetime(2026, 10, 1, tzinfo=UTC)
_USED = Usage(input=100, output=10)

#: A statement, a question, and one between a greeting and a reason, in two languages.
_MESSAGES = (
    "I prefer all temperatures in Celsius.",
    "What is a good temperature for the bedroom?",
    "Hello! My dog Otto has a cold, what can I give him? Thanks.",
    "Hallo! Was kann ich meinem Hund geben, wenn er erkältet ist?",
)


class _Memories:
    """Finds three memories."""

    async def search(self, owner: str, query: str, limit: int) -> SearchResult:  # noqa: ARG002 - the port's signature
        return SearchResult(
            tuple(
                RecalledMemory(
                    id=f"m{n}", owner=owner, text=f"The user prefers {n} degrees Celsius",
                    score=0.5, created_at=_AT, turn_id=f"j00_{n:032x}",
                )
                for n in range(3)
            )
        )  # fmt: skip


class _Model:
    """Answers in two pieces, and tells its tokens as Claude does."""

    async def stream_answer(
        self, prompt: Prompt, on_usage: OnUsage | None = None, on_quota: OnQuota | None = None
    ) -> AsyncGenerator[str | Answer, None]:
        del on_quota
        for piece in ("Twenty-one ", "degrees."):
            yield piece
        if on_usage is not None:
            on_usage(_USED)
        yield Answer("Twenty-one degrees.", "end_turn", prompt.model, _USED)

    async def check(self, model: str) -> ModelCheck:
        return ModelCheck(f"a stand-in answers for {model}")

    async def aclose(self) -> None:
        """Close nothing."""


def responder_on(ledger: Ledger) -> Responder:
    """Return a responder as a worker has it, between the stand-ins."""
    settings, gates = ledger.settings, GateClient(ledger.gates)
    recaller = Recaller(
        _Memories(),
        gates,
        budget=RecallBudget(settings.recall_budget_ms / 1000),
        limit=settings.recall_top_k,
        least_score=settings.recall_min_score,
    )
    model_caller = ModelCaller(settings, _Model(), gates, QuotaClient(ledger.quotas))
    leases = Leases(ledger.jobs.renew_leases, settings.lease_s)
    return Responder(settings, ledger.jobs, model_caller, recaller, leases, b"tag key")


async def queued_job(ledger: Ledger) -> str:
    """Submit a job; return its id."""
    request = ChatRequest.parse(ASKED, max_bytes=65_536, max_tokens=16_000)
    job_id = ledger.jobs.new_id(request)
    await ledger.jobs.submit_many([(job_id, request)])
    return job_id


def judge_messages() -> None:
    """Decide of a few messages whether they are worth remembering."""
    for message in _MESSAGES:
        reason_in(message, pleasantries=False)


def read_days() -> None:
    """Look for days in a few messages, as the embedded memory does to store and to search."""
    for message in _MESSAGES:
        asked_days(message, _TODAY)
        with_dates(message, _TODAY)
