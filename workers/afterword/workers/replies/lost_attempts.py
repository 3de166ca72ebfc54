"""Counts what attempts used whose worker is gone: it cannot tell that any more."""

from __future__ import annotations

from pydantic import ValidationError

from afterword.shared.contracts import ChatRequest, Usage
from afterword.shared.events import LostAttemptCounted, tokens_told
from afterword.shared.ledger.jobs import Jobs
from afterword.shared.ledger.lost_attempts import LostAttempts
from afterword.shared.ledger.records import LostAttempt
from afterword.shared.names import user_of
from afterword.shared.observer import bound, emit
from afterword.shared.prices import micro_usd
from afterword.shared.settings import Settings
from afterword.shared.tenant_classes import class_of
from afterword.shared.tokens import BYTES_PER_TOKEN
from afterword.workers.replies import prompt
from afterword.workers.replies.prompt_limits import limits_of


class LostAttemptCounter:
    """Counts an estimate: all of the prompt, and the text that was published."""

    def __init__(self, settings: Settings, jobs: Jobs) -> None:
        self._settings = settings
        self._jobs = jobs
        self._limits = limits_of(settings)

    async def count_due(self, lost_attempts: LostAttempts) -> bool:
        """Count the last attempts of jobs that ended; return whether there may be more."""
        due = await lost_attempts.due()
        for attempt in due:
            kind = class_of(user_of(attempt.lane)[0], self._settings.tenant_classes)
            with bound(job_id=attempt.job_id, tenant_class=kind):
                await self._count_last(attempt)
        return bool(due)

    async def count(self, attempt: LostAttempt, request: ChatRequest) -> None:
        """Count what an attempt to answer a request probably used."""
        model = request.model or self._settings.model
        output = -(-attempt.published // BYTES_PER_TOKEN)
        guessed = prompt.guess(request, attempt.overlay, attempt.history, self._limits)
        usage = Usage(input=guessed, output=output)
        cost = micro_usd([(model, usage)], self._settings.model_prices)
        await self._jobs.count_usage(attempt, usage, cost)
        emit(LostAttemptCounted, model=model, **tokens_told(usage))

    async def _count_last(self, attempt: LostAttempt) -> None:
        try:
            request = ChatRequest.model_validate_json(attempt.body)
        except ValidationError:  # no model was asked
            await self._jobs.count_usage(attempt, Usage())
        else:
            await self.count(attempt, request)
