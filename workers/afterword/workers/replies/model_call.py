"""One question to a model: to the first whose gate lets pass, and to the next if that fails."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

from afterword.shared.errors import AccessDenied, Fault, NoSuchModel, ProviderError
from afterword.shared.events import ModelAnswered, ModelCalled, ModelReplaced
from afterword.shared.observer import emit
from afterword.shared.settings import ReplySettings
from afterword.workers.gate import GateClient, GateShut, Permit, gate_of
from afterword.workers.ports import Answer, Model, Prompt


class ModelCaller:
    """Puts questions to the models of the settings, or to the one that a job names."""

    def __init__(self, settings: ReplySettings, model: Model, gates: GateClient) -> None:
        """Take who speaks for all models, and the gates before each of them."""
        self._model = model
        self._gates = gates
        self._models = (settings.model, *settings.fallback_models)
        # Until its first word, a canary recalls and waits for the model.
        self._canary_s = settings.first_token_timeout_s + settings.recall_budget_ms / 1000 + 1

    @asynccontextmanager
    async def admitted(self, named: str | None) -> AsyncIterator[ModelCall]:
        """Pass the gate of the first model that may be asked, and give way in the end.

        Raises the `GateShut` with the soonest time to come back if no gate lets pass.
        """
        models = self._models if named is None else (named,)
        call = ModelCall(self._model, self._gates, models, self._canary_s)
        await call.pass_a_gate()
        try:
            yield call
        finally:
            call.give_way()


class ModelCall:
    """A question on its way: which models are left for it, and why the others were not."""

    def __init__(
        self, model: Model, gates: GateClient, models: Sequence[str], canary_s: float
    ) -> None:
        """Take the models, the best come first, and how long a canary needs for a first word."""
        self._model = model
        self._gates = gates
        self._left = list(models)
        self._replaceable = len(models) > 1
        self._canary_s = canary_s
        self._refusals: list[GateShut] = []
        self._failures: list[ProviderError] = []
        self._pushed = False

    def give_way(self) -> None:
        """Let another one be the canary, if this one has nothing to say of its model."""
        self._permit.left()

    async def stream(self, told: Prompt, push: Callable[[str], None]) -> Answer:
        """Ask, and push the answer in pieces; before the first one, the next model may step in.

        Raises an `ProviderError`, or `GateShut` if no gate lets pass any more.
        """
        while True:
            try:
                return await self._stream_one(replace(told, model=self._asked), push)
            except ProviderError as said:
                error = self._counted(said)
                await self._go_on(error, await self._permit.failed(error))

    async def _stream_one(self, told: Prompt, push: Callable[[str], None]) -> Answer:
        emit(ModelCalled, model=told.model, canary=self._permit.canary)
        started = time.monotonic()
        first_text_s = 0.0
        async with aclosing(self._model.stream_answer(told)) as pieces:
            async for piece in pieces:
                self._note(piece)
                elapsed_s = time.monotonic() - started
                if isinstance(piece, Answer):
                    _report(piece, first_text_s or elapsed_s, elapsed_s)
                    return piece
                first_text_s = first_text_s or elapsed_s
                push(piece)
        raise AssertionError("a model ended without an answer and without an error")

    def _note(self, piece: str | Answer) -> None:
        """Tell the gate that the model answers, with its first word, and what its budget is."""
        if not self._pushed:
            self._permit.worked()
        if not isinstance(piece, Answer):
            self._pushed = True
        elif piece.pause_s > 0:
            self._permit.worked(piece.pause_s)

    def _counted(self, error: ProviderError) -> ProviderError:
        """Return what a failure counts as: a model that is gone is no request's fault.

        Not if nobody can stand in: then there is no use in waiting for it.
        """
        if self._replaceable and isinstance(error, NoSuchModel):
            return AccessDenied(error.code, request_id=error.request_id)
        return error

    async def _go_on(self, error: ProviderError, refusal: GateShut | None) -> None:
        """Turn to the next model; raise what went wrong if that is not to be, or there is none."""
        if error.fault is Fault.REQUEST:
            raise error
        if refusal is None:
            self._failures.append(error)
        else:
            self._refusals.append(refusal)
        if self._pushed:
            self._left.clear()
        failed = self._asked
        await self.pass_a_gate()
        emit(ModelReplaced, model=failed, code=error.code, replacement=self._asked)

    async def pass_a_gate(self) -> None:
        """Choose the next model whose gate lets pass; raise what speaks against all of them."""
        while self._left:
            self._asked = self._left.pop(0)
            try:
                self._permit: Permit = await self._gates.enter(
                    gate_of(self._asked), canary_s=self._canary_s
                )
            except GateShut as refusal:
                self._refusals.append(refusal)
            else:
                return
        if self._failures:  # of a model whose gate is open still: how long to wait is its matter
            raise self._failures[0]
        raise min(self._refusals, key=lambda refusal: refusal.retry_after_s)


def _report(answer: Answer, first_text_s: float, duration_s: float) -> None:
    usage = answer.usage
    emit(
        ModelAnswered,
        model=answer.model,
        stop_reason=answer.stop_reason,
        input_tokens=usage.input,
        output_tokens=usage.output,
        cache_read_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_write,
        first_text_s=first_text_s,
        duration_s=duration_s,
        request_id=answer.request_id or "",
    )
