"""A call to a model: the first one whose gate is open, then the next if that one fails."""

from __future__ import annotations

import time
from asyncio import CancelledError, Task, create_task
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace

from afterword.shared.errors import (
    Fault,
    LeaseLost,
    LedgerUnavailable,
    NoSuchModel,
    ProviderError,
    RateLimited,
    Rejected,
)
from afterword.shared.events import (
    AnswerFieldsDropped,
    ModelAnswered,
    ModelCalled,
    ModelFailed,
    ModelReplaced,
    tokens_told,
)
from afterword.shared.ledger.attempt_note import AttemptNote
from afterword.shared.names import gate_of
from afterword.shared.observer import emit
from afterword.shared.settings import ReplySettings
from afterword.workers.gate import GateClient, GateShut, Permit
from afterword.workers.ports import Answer, Model, Prompt
from afterword.workers.quotas import NotAdmitted, QuotaClient, Reservation, Wanted
from afterword.workers.rules.token_meter import TokenMeter


class ModelCaller:
    """Calls the models of the settings in their order, or only the model that a job names."""

    def __init__(
        self,
        settings: ReplySettings,
        model: Model,
        gates: GateClient,
        quotas: QuotaClient | None = None,
    ) -> None:
        self._model = model
        self._gates = gates
        self._quotas = quotas or QuotaClient()
        self._models = (settings.model, *settings.fallback_models)
        # A canary reports with its first text: until then it recalls, and waits for the model.
        self._canary_s = settings.first_token_timeout_s + settings.recall_budget_ms / 1000 + 1

    async def admit(self, named: str | None, wanted: Wanted) -> ModelCall:
        """Enter the gate of the first model that is not shut; its call is to `give_way` at its end.

        If all gates are shut, or their models' rate limits used up, raises the `GateShut` with the
        shortest time to retry.
        """
        models = self._models if named is None else (named,)
        configured = models[0] in self._models
        call = ModelCall(
            self._model,
            self._gates,
            self._quotas,
            models,
            wanted,
            self._canary_s,
            configured=configured,
        )
        await call.pass_a_gate()
        return call


class ModelCall:
    """A call in progress: the models that are left for it, and why others could not answer."""

    def __init__(  # noqa: PLR0913 what a call needs
        self,
        model: Model,
        gates: GateClient,
        quotas: QuotaClient,
        models: Sequence[str],
        wanted: Wanted,
        canary_s: float,
        *,
        configured: bool,
    ) -> None:
        self._model = model
        self._gates = gates
        self._quotas = quotas
        self._wanted = wanted
        self._reserving: Task[Reservation] | None = None
        self._left = list(models)
        self._configured = configured
        self._canary_s = canary_s
        self._refusals: list[GateShut] = []
        self._failures: list[ProviderError] = []
        self._pushed = False

    def give_way(self) -> None:
        """Leave the gate, so that another call can be the canary if this one had no outcome."""
        self._permit.release()
        if self._reserving is not None:
            self._quotas.drop(self._reserving)

    async def stream(
        self, told: Prompt, push: Callable[[str], None], meter: TokenMeter, note: AttemptNote
    ) -> Answer:
        """Send the prompt and push the answer in pieces; return it whole.

        `meter` counts the tokens of every call, `note` keeps how each ended. A model that fails
        before its first piece is replaced by the next one. Raises a `ProviderError`, or `GateShut`
        if no model is left that may be called.
        """
        while True:
            try:
                asked = told if told.model == self._asked else replace(told, model=self._asked)
                return await self._stream_one(asked, push, meter, note)
            except NotAdmitted as held:
                self._permit.release()
                await self._go_on(held, _as_shut(self._asked, held))
            except ProviderError as said:
                error = self._judged(said)
                await self._go_on(error, await self._permit.report_failure(error))

    async def _stream_one(
        self, told: Prompt, push: Callable[[str], None], meter: TokenMeter, note: AttemptNote
    ) -> Answer:
        self._reservation = reservation = await self._reserved()
        meter.begin(told.model)
        emit(ModelCalled, model=told.model, canary=self._permit.canary)
        pieces = self._model.stream_answer(told, meter.tell, reservation.note)
        outcome = _Outcome(told.model, reservation, meter, note)
        async with outcome, aclosing(pieces):
            async for piece in pieces:
                self._note(piece)
                if isinstance(piece, Answer):
                    outcome.report(piece)
                    return piece
                outcome.hear()
                meter.hear(piece)
                push(piece)
        raise AssertionError("a model ended without an answer and without an error")

    def _note(self, piece: str | Answer) -> None:
        """Tell the gate at the first piece that the model answers, at the end whether to pause."""
        if not self._pushed:
            self._permit.report_success()
        if not isinstance(piece, Answer):
            self._pushed = True
        elif piece.pause_s > 0 and not self._reservation.counts:
            self._permit.report_success(piece.pause_s)

    def _judged(self, error: ProviderError) -> ProviderError:
        """Return the error to act on: a model that only the request names is the request's fault.

        No operator could mend that, and waiting would not help.
        """
        if isinstance(error, NoSuchModel) and not self._configured:
            return Rejected("not_found", request_id=error.request_id)
        return error

    async def _go_on(self, error: ProviderError, refusal: GateShut | None) -> None:
        """Enter the gate of the next model; raise the error if there is none, or it is too late."""
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
        """Enter the gate of the next model that is not shut; raise why if there is none."""
        while self._left:
            self._asked = self._left.pop(0)
            try:
                self._permit: Permit = await self._gates.enter(
                    gate_of(self._asked), canary_s=self._canary_s
                )
                await self._reserve()
            except GateShut as refusal:
                self._refusals.append(refusal)
            except NotAdmitted as held:
                self._refusals.append(_as_shut(self._asked, held))
            else:
                return
        if self._failures:  # its gate is still open, so the error decides how long to wait
            raise self._failures[0]
        raise min(self._refusals, key=lambda refusal: refusal.retry_after_s)

    async def _reserve(self) -> None:
        """Begin to reserve what the call will use, beside recall if much of the limit is left.

        Else it is waited for, so that nothing is recalled in vain; leaves the gate if refused.
        """
        self._unlimited = self._quotas.unlimited(self._asked, self._wanted)
        if self._unlimited is not None:
            return
        self._reserving = create_task(self._quotas.reserve(self._asked, self._wanted))
        if not self._quotas.is_ample(self._asked):
            try:
                await self._reserving
            except BaseException:
                self._permit.release()
                raise

    async def _reserved(self) -> Reservation:
        if self._unlimited is not None:
            return self._unlimited
        assert self._reserving is not None, "a gate was passed"
        reserving, self._reserving = self._reserving, None
        return await reserving


def _as_shut(model: str, held: NotAdmitted) -> GateShut:
    return GateShut(gate_of(model), held.retry_after_s or 0.0, held.code)


class _Outcome:
    """Reports how one call ended, and settles its reservation by what the provider told."""

    def __init__(
        self, model: str, reservation: Reservation, meter: TokenMeter, note: AttemptNote
    ) -> None:
        self._model = model
        self._reservation = reservation
        self._meter = meter
        self._note = note
        self._started = time.monotonic()
        self._first_text_s = 0.0

    async def __aenter__(self) -> None:
        """Nothing has to be done: the call is made inside."""

    def hear(self) -> None:
        """Note when the first piece of text comes."""
        if not self._first_text_s:
            self._first_text_s = self._took_s()

    def report(self, answer: Answer) -> None:
        """Report the whole answer."""
        took_s = self._took_s()
        self._meter.end()
        self._note.add_call(self._model, answer.request_id, "", took_s)
        if answer.dropped:
            emit(AnswerFieldsDropped, model=answer.model, fields=" ".join(answer.dropped))
        emit(
            ModelAnswered,
            model=answer.model,
            stop_reason=answer.stop_reason,
            **tokens_told(answer.usage),
            first_text_s=self._first_text_s or took_s,
            duration_s=took_s,
            request_id=answer.request_id or "",
            asked_model=self._model,
        )

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: object
    ) -> None:
        """Settle; report a call without a whole answer: the provider's fault, or it is stopped."""
        self._reservation.settle(self._meter.call if error is None else None)
        match error:
            case RateLimited():
                judged = self._reservation.judged(error)
                self._report_failure(judged.code, judged.request_id)
                raise judged from None
            case ProviderError():
                self._report_failure(error.code, error.request_id)
            case CancelledError() | LeaseLost() | LedgerUnavailable():
                self._report_failure("cancelled", None)

    def _report_failure(self, code: str, request_id: str | None) -> None:
        took_s = self._took_s()
        self._note.add_call(self._model, request_id, code, took_s)
        emit(
            ModelFailed,
            model=self._model,
            code=code,
            duration_s=took_s,
            request_id=request_id or "",
            **tokens_told(self._meter.call),
        )

    def _took_s(self) -> float:
        return time.monotonic() - self._started
