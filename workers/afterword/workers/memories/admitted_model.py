"""The model that extracts memories: its calls take what replies leave of the rate limit."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from afterword.shared.contracts import Usage
from afterword.shared.errors import RateLimited
from afterword.shared.tokens import estimated_tokens
from afterword.workers.ports import Answer, Model, ModelCheck, OnQuota, OnUsage, Prompt
from afterword.workers.quotas import QuotaClient, Wanted


class AdmittedModel:
    """A model each of whose calls is admitted first, after those of replies.

    A call that is not raises `NotAdmitted`; nothing was sent then, or the provider refused it.
    """

    def __init__(self, model: Model, quotas: QuotaClient) -> None:
        self._model = model
        self._quotas = quotas

    async def stream_answer(
        self,
        prompt: Prompt,
        on_usage: OnUsage | None = None,
        on_quota: OnQuota | None = None,  # noqa: ARG002 the port's signature
    ) -> AsyncGenerator[str | Answer, None]:
        """Stream one answer; see `afterword.workers.ports.Model`."""
        wanted = Wanted(lambda: _guess(prompt), prompt.max_tokens, reply=False)
        reservation = await self._quotas.reserve(prompt.model, wanted)
        usage: Usage | None = None
        try:
            answering = self._model.stream_answer(prompt, on_usage, reservation.note)
            async with aclosing(answering) as pieces:
                async for piece in pieces:
                    usage = piece.usage if isinstance(piece, Answer) else None
                    yield piece
        except RateLimited as error:
            raise reservation.judged(error) from None
        finally:
            reservation.settle(usage)

    async def check(self, model: str) -> ModelCheck:
        """Check a model; see `afterword.workers.ports.Model`."""
        return await self._model.check(model)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._model.aclose()


def _guess(prompt: Prompt) -> int:
    said = (*prompt.system, *(message.text for message in prompt.messages))
    return sum(map(estimated_tokens, said))
