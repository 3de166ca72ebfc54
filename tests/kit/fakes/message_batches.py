"""A provider of message batches in plain Python, with faults to order."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from afterword.shared.contracts import Usage
from afterword.shared.errors import ProviderError
from afterword.workers.ports import Answer, BatchGone, Prompt


class FakeBatchApi:
    """Keeps batches until `end`; answers each prompt with `text`, if results do not say otherwise.

    `created` are all batches that ever were, with what was sent: what is in there was paid for.
    """

    def __init__(self, text: str = '{"memory": [{"text": "x"}]}') -> None:
        self.text = text
        self.created: dict[str, dict[str, Prompt]] = {}
        self.gone: set[str] = set()
        self.ended: dict[str, dict[str, Answer | None]] = {}
        self.looked: list[str] = []
        self._faults: dict[str, deque[tuple[ProviderError, bool]]] = {}

    def fail(self, call: str, error: ProviderError, *, after: bool = False) -> None:
        """Let the next call of that name fail: before it does anything, or after it did."""
        self._faults.setdefault(call, deque()).append((error, after))

    def end(self, results: Mapping[str, Answer | None] | None = None) -> None:
        """Let all batches end; `results` are for turns: an answer, or None for a failure."""
        for batch_id, requests in self.created.items():
            if batch_id not in self.ended:
                chosen = results or {}
                self.ended[batch_id] = {
                    name: chosen.get(name.partition("-")[0], self.answer()) for name in requests
                }

    def answer(self, text: str | None = None, stop_reason: str = "end_turn") -> Answer:
        """Return an answer of a model."""
        return Answer(self.text if text is None else text, stop_reason, "m", Usage())

    def foreign(self, requests: int) -> str:
        """Create a batch of somebody else's."""
        names = [f"other-{number}" for number in range(requests)]
        return self._new({name: Prompt((), (), "m", 1, "") for name in names})

    @property
    def sent(self) -> list[str]:
        """Return the turns of all requests that were ever created, others' left out."""
        names = [name for requests in self.created.values() for name in requests]
        return [name.partition("-")[0] for name in names if name.startswith("j")]

    async def create(self, requests: Sequence[tuple[str, Prompt]]) -> str:
        """Create a batch."""
        failing = self._strike("create")
        batch_id = self._new(dict(requests))
        if failing:
            raise failing
        return batch_id

    async def has_ended(self, batch_id: str) -> bool:
        """Return whether it was let end."""
        self._strike("has_ended")
        self.looked.append(batch_id)
        if batch_id in self.gone:
            raise BatchGone
        return batch_id in self.ended

    async def results(self, batch_id: str) -> Mapping[str, Answer | None]:
        """Return the results, the last one first."""
        self._strike("results")
        return dict(reversed(self.ended[batch_id].items()))

    async def find(self, requests: int, within_s: float) -> Sequence[str]:
        """Return all batches of that size, the newest first."""
        self._strike("find")
        alike = [name for name, sent in self.created.items() if len(sent) == requests]
        return [name for name in reversed(alike) if name not in self.gone]

    async def discard(self, batch_id: str) -> None:
        """Delete a batch."""
        self._strike("discard")
        self.gone.add(batch_id)

    async def aclose(self) -> None:
        """Do nothing."""

    def _new(self, requests: dict[str, Prompt]) -> str:
        batch_id = f"msgbatch_{len(self.created)}"
        self.created[batch_id] = requests
        return batch_id

    def _strike(self, call: str) -> ProviderError | None:
        """Raise a fault that comes before the call; return one that comes after it."""
        faults = self._faults.get(call)
        if not faults:
            return None
        error, after = faults.popleft()
        if not after:
            raise error
        return error
