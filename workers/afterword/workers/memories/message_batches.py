"""Extraction in message batches: gather prompts, send them together, record what is answered.

A turn waits in its lane meanwhile and spends no attempt. What was sent stands in the ledger before
it is sent, so a worker that is killed neither loses a turn nor has it paid for twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace

from afterword.shared.errors import (
    AccessDenied,
    Misconfigured,
    NoSuchModel,
    ProviderError,
    RateLimited,
    Rejected,
)
from afterword.shared.events import (
    MessageBatchEnded,
    MessageBatchFailed,
    MessageBatchSent,
)
from afterword.shared.ledger.message_batches import MessageBatches, OpenMessageBatch
from afterword.shared.ledger.spending import ExtractionCost
from afterword.shared.names import shard_in
from afterword.shared.observer import bound, emit
from afterword.shared.prices import IN_BATCH, Prices, micro_usd
from afterword.shared.settings import Settings
from afterword.shared.tenant_classes import class_of
from afterword.workers.memories.extraction_meters import emit_paid
from afterword.workers.ports import (
    Answer,
    BatchGone,
    MessageBatchApi,
    Model,
    ModelCheck,
    OnQuota,
    OnUsage,
    Prompt,
)
from afterword.workers.quotas import MESSAGE_BATCH, NotAdmitted
from afterword.workers.rules.retry_policy import LONGEST_SNOOZE_S

#: Most prompts of one batch. A provider takes far more, but a worker holds them in its memory.
MOST_PROMPTS = 500

#: After this time a batch that is not known to be sent is looked for at the provider.
UNSENT_S = 180.0

#: What one call about batches may take: less, or a batch is looked for while it is being created.
CALL_S = UNSENT_S / 2

#: A batch is looked at so often: a share of its age, within these bounds.
LOOK_SHARE, SOONEST_LOOK_S, LATEST_LOOK_S = 0.1, 20.0, 600.0

#: One that is only to be deleted is looked at as seldom as this, in the end.
LATEST_DELETE_S = 3600.0

#: How long one worker may take to look, and a batch at most: a provider ends each after a day.
LOOKING_S, LONGEST_S = 300.0, 88_000.0

#: Turns of a batch that the provider did not take now go on after this time, if it names none.
AGAIN_S = 60.0

#: How much earlier a batch may have been created by the provider's clock.
SKEW_S = 120.0

#: Reads the facts in an answer; raises a `ProviderError` if it cannot be used.
ReadFacts = Callable[[Answer], str]


@dataclass(slots=True)
class _Gathered:
    """Prompts for turns of one shard, by turn, and since when."""

    since: float
    prompts: dict[str, Prompt] = field(default_factory=dict)


class Gatherer:
    """Gathers the prompts of this process for `gather_s` seconds and sends them as one batch.

    Until then they are nowhere else: if the process ends, their lanes go on and gather them anew.
    """

    def __init__(
        self,
        batches: MessageBatches,
        api: MessageBatchApi,
        gather_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._batches = batches
        self._api = api
        self._gather_s = gather_s
        self._clock = clock
        self._shards: dict[int, _Gathered] = {}

    @property
    def wait_s(self) -> float:
        """Return after how long a turn that was not sent is gathered anew."""
        return 2 * self._gather_s + UNSENT_S

    def gather(self, prompt: Prompt) -> None:
        """Take in the prompt of a turn; a newer one of the same turn replaces it."""
        gathered = self._shards.setdefault(shard_in(prompt.turn_id), _Gathered(self._clock()))
        gathered.prompts[prompt.turn_id] = prompt

    async def send_due(self) -> None:
        """Send what was gathered for long enough, or is enough."""
        for shard, gathered in list(self._shards.items()):
            old = self._clock() - gathered.since >= self._gather_s
            if old or len(gathered.prompts) >= MOST_PROMPTS:
                del self._shards[shard]
                await self._send(shard, gathered.prompts)

    async def _send(self, shard: int, prompts: dict[str, Prompt]) -> None:
        ids = list(prompts)
        for at in range(0, len(ids), MOST_PROMPTS):
            name = self._batches.new_name(shard)
            taken = await self._batches.open(name, ids[at : at + MOST_PROMPTS], UNSENT_S)
            if taken:
                await self._create(name, [(_request(name, one), prompts[one]) for one in taken])

    async def _create(self, name: str, requests: Sequence[tuple[str, Prompt]]) -> None:
        try:
            provider_id = await self._api.create(requests)
        except (AccessDenied, NoSuchModel, RateLimited, Rejected) as error:
            alone = _knows_no_batches(error)
            await self._batches.close(name, alone=alone, delay_s=_asked_s(error) or AGAIN_S)
            _failed(error, len(requests))
        except ProviderError as error:  # it may have been created: `Follower` finds out
            _failed(error, len(requests))
        else:
            await self._batches.note(name, provider_id, SOONEST_LOOK_S)
            emit(MessageBatchSent, turns=len(requests))


class BatchedModel:
    """A model that gathers prompts whose answers may come later, and answers all others itself."""

    def __init__(self, model: Model, gatherer: Gatherer) -> None:
        self._model = model
        self._gatherer = gatherer

    async def stream_answer(
        self, prompt: Prompt, on_usage: OnUsage | None = None, on_quota: OnQuota | None = None
    ) -> AsyncGenerator[str | Answer, None]:
        """Stream one answer, or raise `NotAdmitted` with the code `MESSAGE_BATCH`."""
        if prompt.turn_id:
            self._gatherer.gather(prompt)
            raise NotAdmitted(self._gatherer.wait_s, code=MESSAGE_BATCH)
        async with aclosing(self._model.stream_answer(prompt, on_usage, on_quota)) as pieces:
            async for piece in pieces:
                yield piece

    async def check(self, model: str) -> ModelCheck:
        """Check a model; see `afterword.workers.ports.Model`."""
        return await self._model.check(model)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._model.aclose()


class Follower:
    """Looks what became of message batches, whoever sent them, and records what they answer.

    Each batch is looked at by one worker of the fleet at a time.
    """

    def __init__(
        self,
        batches: MessageBatches,
        api: MessageBatchApi,
        read: ReadFacts,
        prices: Prices,
        classes: Mapping[str, str],
    ) -> None:
        self._batches = batches
        self._api = api
        self._read = read
        self._prices = prices
        self._classes = classes

    async def look(self) -> None:
        """Look at the batches that are due."""
        all_of_them = await self._batches.claim_due(LOOKING_S)
        known = frozenset(one.provider_id for one in all_of_them)
        for batch in all_of_them:
            if batch.claimed:
                await self._look_at(batch, known)

    async def _look_at(self, batch: OpenMessageBatch, known: frozenset[str]) -> None:
        try:
            if batch.provider_id:
                await self._follow(batch)
            else:
                await self._find(batch, known)
        except BatchGone as error:
            await self._give_up(batch, error)
        except ProviderError as error:
            if batch.turns and batch.age_s >= LONGEST_S:
                await self._give_up(batch, error)
            else:
                await self._look_later(batch, error)

    async def _look_later(self, batch: OpenMessageBatch, error: ProviderError) -> None:
        later_s = max(_asked_s(error), _look_again_s(batch))
        await self._batches.note(batch.name, batch.provider_id, later_s, batch.not_ours)
        _failed(error, batch.turns)

    async def _follow(self, batch: OpenMessageBatch) -> None:
        if await self._api.has_ended(batch.provider_id):
            await self._finish(batch)
        elif batch.turns and batch.age_s >= LONGEST_S:
            await self._batches.close(batch.name, alone=True, kept=True)
        else:
            again_s = _look_again_s(batch)
            await self._batches.note(batch.name, batch.provider_id, again_s, batch.not_ours)

    async def _finish(self, batch: OpenMessageBatch) -> None:
        results = await self._api.results(batch.provider_id)
        ours = {_request_turn(batch.name, name): answer for name, answer in results.items()}
        ours.pop("", None)
        if results and not ours:
            others = (*batch.not_ours, batch.provider_id)
            await self._batches.note(batch.name, "", 0.0, others)
            return
        if batch.turns:
            await self._record_all(batch, ours)
        await self._discard(replace(batch, turns=0))

    async def _record_all(
        self, batch: OpenMessageBatch, answers: Mapping[str, Answer | None]
    ) -> None:
        recording = (self._record(batch.name, turn, answer) for turn, answer in answers.items())
        answered = sum(await asyncio.gather(*recording))
        await self._batches.close(batch.name, alone=True, kept=True)
        emit(MessageBatchEnded, turns=batch.turns, answered=answered, age_s=batch.age_s)

    async def _record(self, name: str, turn: str, answer: Answer | None) -> bool:
        """Record what came of a turn, if it is still in the batch; return whether it has facts."""
        facts = self._facts(answer) if answer else ""
        tenant = await self._batches.answer(name, turn, facts, self._paid(answer))
        if tenant is None:
            return False
        if answer is not None:
            with bound(tenant_class=class_of(tenant, self._classes)):
                emit_paid(answer.model, answer.usage, in_batch=True)
        return bool(facts)

    def _paid(self, answer: Answer | None) -> ExtractionCost | None:
        if answer is None:
            return None
        calls = [(answer.model, answer.usage)]
        return ExtractionCost(answer.usage, micro_usd(calls, self._prices, IN_BATCH))

    def _facts(self, answer: Answer) -> str:
        """Return the facts in JSON; '' if the turn has to be extracted by a call of its own."""
        try:
            return self._read(answer)
        except ProviderError:
            return ""

    async def _discard(self, batch: OpenMessageBatch) -> None:
        """Delete at the provider what was said in a batch, or try again later."""
        try:
            await self._api.discard(batch.provider_id)
        except ProviderError as error:
            await self._look_later(batch, error)
        else:
            await self._batches.close(batch.name, alone=True)

    async def _find(self, batch: OpenMessageBatch, known: frozenset[str]) -> None:
        """Find out whether a batch was created whose sender was not told, or was lost."""
        found = await self._api.find(batch.turns, batch.age_s + SKEW_S)
        ours = [one for one in found if one not in known and one not in batch.not_ours]
        if ours:
            await self._batches.note(batch.name, ours[0], 0.0, batch.not_ours)
        else:
            await self._batches.close(batch.name, alone=False)

    async def _give_up(self, batch: OpenMessageBatch, error: ProviderError) -> None:
        kept = bool(batch.provider_id) and not isinstance(error, BatchGone)
        await self._batches.close(batch.name, alone=True, kept=kept)
        _failed(error, batch.turns)


class Batching:
    """What a worker does for message batches, time and again: sends what is due, then looks."""

    def __init__(
        self,
        batches: MessageBatches,
        api: MessageBatchApi,
        read: ReadFacts,
        gather_s: float,
        prices: Prices,
        classes: Mapping[str, str],
    ) -> None:
        self.gatherer = Gatherer(batches, api, gather_s)
        self._follower = Follower(batches, api, read, prices, classes)

    async def run(self) -> None:
        """Send and look once."""
        await self.gatherer.send_due()
        await self._follower.look()


def check_extraction(settings: Settings) -> None:
    """Raise `Misconfigured` if message batches are asked for and cannot be made."""
    if settings.extraction == "now":
        return
    if settings.backend != "selfhosted":
        reason = "`batch` needs AFTERWORD_MEMORY=selfhosted: other memories extract by themselves"
        raise Misconfigured("AFTERWORD_EXTRACTION", reason)
    if not settings.pin_extraction:
        reason = "must be true: with AFTERWORD_EXTRACTION=batch, facts come through the ledger"
        raise Misconfigured("AFTERWORD_PIN_EXTRACTION", reason)


def _request(name: str, turn_id: str) -> str:
    """Return what the request for a turn is called: it tells the batch and the turn."""
    return f"{turn_id}-{name}"


def _request_turn(name: str, request: str) -> str:
    """Return the turn of a request; '' if it is of another batch."""
    turn_id, _, batch = request.partition("-")
    return turn_id if batch == name else ""


def _look_again_s(batch: OpenMessageBatch) -> float:
    latest_s = LATEST_LOOK_S if batch.turns else LATEST_DELETE_S
    return min(max(batch.age_s * LOOK_SHARE, SOONEST_LOOK_S), latest_s)


def _asked_s(error: ProviderError) -> float:
    """Return how long a provider asks to wait, as far as it is obeyed."""
    return min(error.retry_after_s or 0.0, LONGEST_SNOOZE_S)


def _knows_no_batches(error: ProviderError) -> bool:
    """Return whether the same batch would be refused again: then each turn needs its own call."""
    return isinstance(error, (Rejected, NoSuchModel)) or error.code == "wrong_address"


def _failed(error: ProviderError, turns: int) -> None:
    emit(MessageBatchFailed, code=error.code, fault=error.fault, turns=turns)
