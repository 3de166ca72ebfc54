"""Admission before a call: what it will use of the provider's rate limit is reserved for it.

Limits are learned from the headers of answers and shared by the fleet in the ledger. A provider
that tells none, such as a small model on this machine, costs one question in `ASK_S` seconds.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field

from afterword.shared.contracts import Usage
from afterword.shared.errors import ProviderError, RateLimited
from afterword.shared.events import GateUnknown
from afterword.shared.ledger.quota_records import (
    Part,
    QuotaChange,
    QuotaLevel,
    Refused,
    Reserved,
)
from afterword.shared.ledger.quotas import Quotas
from afterword.shared.observer import emit
from afterword.workers.rules.token_estimate import TokenEstimate

#: The code of what waits for the provider's rate limit.
QUOTA = "quota_used_up"

#: The code of turns that wait because a budget is nearly spent.
BUDGET = "budget"

#: The code of turns that wait for a message batch.
MESSAGE_BATCH = "message_batch"

#: If Redis does not answer within this time, the call is admitted: this never fails a reply.
PATIENCE_S = 1.0

#: While no limit is known, Redis is asked once in this time.
ASK_S = 5.0

#: What a process has to tell of its reservations is collected for this long.
COLLECT_S = 0.1

#: While this share of a limit is left, nobody waits for the answer before recall.
AMPLE = 0.5

#: While this share is left, extraction that waited is woken: it leaves a fifth to replies.
ROOMY = 0.3

#: Calls wait for a limit that refills more slowly only if that has room within this time; if not,
#: the gate decides who calls. So does `admission/reserve.lua`.
LONGEST_REFILL_S = 60.0

#: Longest wait that one refusal of the provider imposes.
LONGEST_REFUSAL_S = 60.0


class NotAdmitted(RateLimited):
    """The provider's rate limit has no room for this call; nothing was sent, or it was refused.

    With the code `BUDGET`, whoever it is for has spent what is for memory in this period. With
    `MESSAGE_BATCH`, it is answered later, together with others.
    """

    def __init__(
        self, retry_after_s: float, request_id: str | None = None, code: str = QUOTA
    ) -> None:
        super().__init__(code, request_id=request_id, retry_after_s=retry_after_s)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a call asks for; `guess` estimates the tokens of its prompt, and is called if needed.

    `reply` says that somebody waits for it: that goes before everything else. `returning` says
    that it has waited already.
    """

    guess: Callable[[], int]
    max_tokens: int
    reply: bool = True
    returning: bool = False


@dataclass(slots=True)
class _View:
    """What this process knows of one limit, and what it has not told yet."""

    known: bool = False
    ask_at: float = -math.inf
    left: float = 0.0
    estimates: dict[bool, TokenEstimate] = field(default_factory=dict)
    changes: dict[tuple[str, Part], tuple[int, int]] = field(
        default_factory=lambda: defaultdict(lambda: (0, 0))
    )
    told: Sequence[QuotaLevel] = ()
    number: int = 0
    collecting: asyncio.TimerHandle | None = None


class QuotaClient:
    """Reserves and settles for this process; without `quotas` it admits everything.

    `base_url` is where the models are: limits of another place are others.
    """

    def __init__(
        self,
        quotas: Quotas | None = None,
        base_url: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._quotas = quotas
        self._place = hashlib.sha256(base_url.encode()).hexdigest()[:8]
        self._clock = clock
        self._views: dict[str, _View] = {}
        self._sending: set[asyncio.Task[object]] = set()

    def is_ample(self, model: str, share: float = AMPLE) -> bool:
        """Return whether this process saw that share of a model's limit left, or more."""
        view = self._views.get(self._name(model))
        return view is not None and view.left >= share

    def unlimited(self, model: str, wanted: Wanted) -> Reservation | None:
        """Return a reservation of nothing while no limit is known; None if Redis must be asked."""
        if self._quotas is None:
            return Reservation(self, "", wanted)
        name = self._name(model)
        view = self._views.get(name)
        free = view is not None and not view.known and self._clock() < view.ask_at
        return Reservation(self, name, wanted) if free else None

    async def reserve(self, model: str, wanted: Wanted) -> Reservation:
        """Reserve what a call will probably use; raise `NotAdmitted` if the limit has no room."""
        free = self.unlimited(model, wanted)
        if self._quotas is None or free is not None:
            return free or Reservation(self, "", wanted)
        name = self._name(model)
        view = self._views.setdefault(name, _View())
        guess = wanted.guess()
        estimate = view.estimates.get(wanted.reply, TokenEstimate())
        sizes = (estimate.input_tokens(guess), estimate.output_tokens(wanted.max_tokens))
        found = await self._answer_of(
            model,
            self._quotas.reserve(name, *sizes, reply=wanted.reply, returning=wanted.returning),
        )
        if isinstance(found, Refused):
            view.known, view.left = True, 0.0
            raise NotAdmitted(found.retry_after_s)
        if found is None:
            # What was learned just now is on its way there.
            view.known = bool(view.told)
            view.ask_at = self._clock() + ASK_S
            return Reservation(self, name, wanted)
        view.known, view.left = True, found.left
        return Reservation(self, name, wanted, found, guess, sizes)

    def drop(self, reserving: asyncio.Task[Reservation]) -> None:
        """Settle a reservation that nobody will use, as soon as it is made."""
        reserving.add_done_callback(_settle_unused)

    def learn(self, name: str, *, reply: bool, guess: int, usage: Usage) -> None:
        """Correct the estimates by what a call used."""
        estimates = self._views[name].estimates
        estimates[reply] = estimates.get(reply, TokenEstimate()).corrected(guess, usage)

    def tell(
        self,
        name: str,
        changes: Sequence[QuotaChange] = (),
        told: Sequence[QuotaLevel] = (),
        number: int = 0,
    ) -> None:
        """Collect what became of a reservation, and what headers told; it is sent soon."""
        view = self._views[name]
        soon_s = COLLECT_S if view.known else 0.0
        for one in changes:
            less, back = view.changes[one.slot, one.part]
            view.changes[one.slot, one.part] = less + one.less, back + one.back
        if told and number >= view.number:
            view.told, view.number, view.known = told, number, True
        if view.collecting is None:
            loop = asyncio.get_running_loop()
            view.collecting = loop.call_later(soon_s, self._send_later, name)

    async def flush(self) -> None:
        """Tell now what was collected, and wait until all of it is told."""
        for name in list(self._views):
            self._send_later(name)
        await asyncio.gather(*self._sending)

    def _name(self, model: str) -> str:
        return f"{self._place}:{model}"

    def _send_later(self, name: str) -> None:
        view = self._views[name]
        if view.collecting is None or self._quotas is None:
            return
        view.collecting.cancel()
        changes = [QuotaChange(*key, *value) for key, value in view.changes.items() if any(value)]
        settling = self._quotas.settle(name, changes, view.told, view.number)
        view.collecting, view.told, view.number = None, (), 0
        view.changes.clear()
        task = asyncio.create_task(self._answer_of(name, settling))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _answer_of(
        self, model: str, asked: Coroutine[object, object, Reserved | Refused | None]
    ) -> Reserved | Refused | None:
        """Return what Redis answers; None if it does not in time."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await asked
        except Exception as error:  # noqa: BLE001 the work goes on without the limit
            emit(GateUnknown, gate=f"quota/{model}", error=type(error).__name__)
            return None


class Reservation:
    """What is reserved for one call, if anything: told by the call, settled at its end."""

    def __init__(
        self,
        client: QuotaClient,
        name: str,
        wanted: Wanted,
        reserved: Reserved | None = None,
        guess: int = 0,
        sizes: tuple[int, int] = (0, 0),
    ) -> None:
        self._client = client
        self._name = name
        self._wanted = wanted
        self._reserved = reserved
        self._guess = guess
        self._input, self._output = sizes
        self._told: Sequence[QuotaLevel] = ()
        self._settled = False

    @property
    def counts(self) -> bool:
        """Whether the limit is known, so that no gate has to hold calls back for it."""
        return self._reserved is not None

    def note(self, levels: Sequence[QuotaLevel]) -> None:
        """Note what the headers of the answer told."""
        if not self._name or not levels:
            return
        opened = not self._told
        self._told = levels
        number = self._reserved.number if self._reserved else 0
        self._client.tell(self._name, self._opened(back=False) if opened else (), levels, number)

    def judged(self, error: ProviderError) -> ProviderError:
        """Return `NotAdmitted` for a refusal that the headers explain, else the error itself.

        Its limit is known now, so the next calls wait for it; no gate has to shut. One does for a
        limit that refills so slowly that they do not.
        """
        waits = {level: self._wait_s(level) for level in self._told}
        if not isinstance(error, RateLimited) or error.code != "rate_limited":
            return error
        too_slow = any(
            min(wait, level.refill_s) > LONGEST_REFILL_S for level, wait in waits.items()
        )
        if too_slow or not any(waits.values()):
            return error
        longest_s = min(max(*waits.values(), error.retry_after_s or 0.0), LONGEST_REFUSAL_S)
        spread = 1 + random.random() / 2  # noqa: S311 no secret
        return NotAdmitted(longest_s * spread, error.request_id)

    def settle(self, usage: Usage | None = None) -> None:
        """Give back what the call did not use; without `usage`, it has no whole answer."""
        if self._settled or self._reserved is None:
            return
        self._settled = True
        used = usage or Usage()
        slot, both = self._reserved.slot, self._input + self._output
        unused = self._output - used.output
        counted = used.input + used.cache_write if usage or not self._told else self._input
        changes = [] if self._told else self._opened(back=True)
        changes += [
            QuotaChange(slot, "output", self._output, unused),
            QuotaChange(slot, "tokens", both, both - used.output - counted),
        ]
        self._client.tell(self._name, changes)
        if usage is not None:
            self._client.learn(self._name, reply=self._wanted.reply, guess=self._guess, usage=usage)

    def _opened(self, *, back: bool) -> list[QuotaChange]:
        """Return that the provider has counted the prompt now, or never will (`back`)."""
        if self._reserved is None:
            return []
        slot = self._reserved.slot
        return [
            QuotaChange(slot, "requests", 1, int(back)),
            QuotaChange(slot, "input", self._input, self._input * back),
        ]

    def _wait_s(self, level: QuotaLevel) -> float:
        """Return how long a part of the limit takes to hold this call; 0 if it does."""
        sizes = {"requests": 1, "input": self._input, "output": self._output}
        need = max(1, sizes.get(level.part, self._input + self._output))
        missing = min(need, level.limit) - level.remaining
        return max(0.0, missing / level.limit * level.refill_s)


def _settle_unused(reserving: asyncio.Task[Reservation]) -> None:
    if not reserving.cancelled() and reserving.exception() is None:
        reserving.result().settle()
