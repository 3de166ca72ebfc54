"""A simulation of admission before calls, at rates that two cores cannot give.

`python -m benchmarks.quota_simulation` prints the table of docs/benchmarks/admission.md. A provider
refills its limits all the time, counts input when a request comes and output as it is produced, and
refuses what has no room. Workers guess tokens, learn from answers, collect what they tell, and hear
the provider's headers late. The clock is simulated and the seed is fixed.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from afterword.shared.contracts import Usage
from afterword.workers.rules.token_estimate import TokenEstimate
from benchmarks.quota_rules import Part, QuotaRules

#: Tokens of a mean call, and what its worker guesses of the input.
_INPUT, _OUTPUT, _GUESSED = 1_200, 250, 1.35
_NETWORK_MS, _FIRST_MS, _TOKENS_PER_S, _COLLECT_MS, _SWEEP_MS = 5.0, 400.0, 80.0, 100.0, 1_000.0

#: What is used is counted from then on: the first answers take that long to be under way.
_WARM_UP_S = 15.0


@dataclass
class Outcome:
    """What a run gave: calls that were refused and served, and tokens beside what the limit had."""

    sent: int = 0
    refused: int = 0
    held: int = 0
    memory: int = 0
    used: float = 0.0
    granted: float = 1.0

    @property
    def refused_share(self) -> float:
        """Return which share of the calls that were sent the provider refused."""
        return self.refused / max(1, self.sent)

    @property
    def throughput(self) -> float:
        """Return which share of the limit's tokens was used."""
        return self.used / self.granted


@dataclass
class _Provider:
    """The limits of the provider, which the workers only hear of."""

    parts: dict[str, Part]
    at: float = 0.0

    def refill(self, now: float) -> None:
        for part in self.parts.values():
            part.level = min(part.limit, part.level + (now - self.at) * part.limit / part.refill_ms)
        self.at = now

    def takes(self, now: float, given: int) -> bool:
        self.refill(now)
        requests, inputs, outputs = (self.parts[n] for n in ("requests", "input", "output"))
        if requests.level < 1 or inputs.level < given or outputs.level < 1:
            return False
        requests.level -= 1
        inputs.level -= given
        return True

    def told(self) -> dict[str, tuple[float, float, float]]:
        """Return what headers say: tokens are rounded to thousands, and taken cautiously."""
        said = {}
        for name, part in self.parts.items():
            left = max(0.0, part.level)
            left = left if name == "requests" else max(0.0, round(left, -3) - 500)
            said[name] = (part.limit, float(int(left)), part.refill_ms)
        return said


@dataclass
class _Worker:
    """What one process has collected, and what it has learned."""

    estimate: TokenEstimate = field(default_factory=TokenEstimate)
    changes: list[tuple[int, str, float, float]] = field(default_factory=list)
    told: dict[str, tuple[float, float, float]] | None = None
    number: int = 0
    collecting: bool = False


class Simulation:
    """One run: arrivals at a multiple of the limit, for some seconds of simulated time."""

    def __init__(self, per_second: float, overload: float, seconds: float, memory: float) -> None:
        self._chance = random.Random(7)
        self._rate, self._end = per_second * overload, seconds * 1000
        self._memory_rate = per_second * memory
        minute = per_second * 60
        sizes = {"requests": minute * 1.5, "input": minute * _INPUT, "output": minute * _OUTPUT}
        # It begins with 5 % left: else the first minute of a run would be free.
        self._provider = _Provider({name: Part(size, size / 20) for name, size in sizes.items()})
        self._rules = QuotaRules()
        self._rules.settle(0, told=self._provider.told())
        self._workers = [_Worker() for _ in range(max(1, round(per_second / 300)))]
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._order = count()
        self.outcome = Outcome(granted=per_second * _OUTPUT * (seconds - _WARM_UP_S))

    def run(self) -> Outcome:
        """Run it and return what came out."""
        self._at(0, self._arrive)
        if self._memory_rate:
            self._at(0, self._arrive_memory)
        while self._events:
            now, _, step = heapq.heappop(self._events)
            if now > self._end:
                break
            step(now)
        return self.outcome

    def _at(self, moment: float, step: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._order), step))

    def _arrive(self, now: float) -> None:
        self._at(now + self._chance.expovariate(self._rate / 1000), self._arrive)
        self._try(now, reply=True, returning=False)

    def _arrive_memory(self, now: float) -> None:
        self._at(now + self._chance.expovariate(self._memory_rate / 1000), self._arrive_memory)
        self._try(now, reply=False, returning=False)

    def _try(self, now: float, *, reply: bool, returning: bool) -> None:
        worker = self._chance.choice(self._workers)
        given = max(1, round(self._chance.lognormvariate(0, 0.6) / 1.197 * _INPUT))
        got = max(1, round(self._chance.lognormvariate(0, 0.8) / 1.377 * _OUTPUT))
        guess = round(given * _GUESSED * self._chance.uniform(0.8, 1.2))
        sizes = worker.estimate.input_tokens(guess), worker.estimate.output_tokens(4096)
        found = self._rules.reserve(now, *sizes, reply=reply, returning=returning)
        if isinstance(found, tuple):
            sent = now + self._chance.uniform(0.5, 2) * _NETWORK_MS
            call = _Call(self, worker, found, sizes, (given, got), guess, reply=reply)
            self._at(sent, call.reach)
        elif found is not None:
            self.outcome.held += 1
            back = now + found + self._chance.uniform(0, _SWEEP_MS)
            self._at(back, lambda moment: self._try(moment, reply=reply, returning=True))

    def tell(self, now: float, worker: _Worker) -> None:
        """Send soon what a worker has collected."""
        if not worker.collecting:
            worker.collecting = True
            self._at(now + _COLLECT_MS, lambda moment: self._send(moment, worker))

    def _send(self, now: float, worker: _Worker) -> None:
        self._rules.settle(now, worker.changes, worker.told, worker.number)
        worker.changes, worker.told, worker.number, worker.collecting = [], None, 0, False


@dataclass
class _Call:
    """One call, from its reservation to its end."""

    simulation: Simulation
    worker: _Worker
    found: tuple[int, int]
    sizes: tuple[int, int]
    real: tuple[int, int]
    guess: int
    reply: bool = True

    def reach(self, now: float) -> None:
        """Reach the provider, which takes it or refuses it."""
        run, outcome = self.simulation, self.simulation.outcome
        outcome.sent += 1
        taken = run._provider.takes(now, self.real[0])  # noqa: SLF001 one simulation
        if taken:
            first = now + _FIRST_MS * run._chance.uniform(0.5, 2)  # noqa: SLF001
            run._at(first, self.open)  # noqa: SLF001
            return
        outcome.refused += 1
        slot = self.found[1]
        self.worker.changes += [(slot, "requests", 1, 1), (slot, "input", self.sizes[0], 0)]
        self.worker.changes.append((slot, "output", self.sizes[1], self.sizes[1]))
        self._hear(now)
        again = now + run._chance.uniform(1_000, 2_000)  # noqa: SLF001
        run._at(again, lambda at: run._try(at, reply=self.reply, returning=True))  # noqa: SLF001

    def open(self, now: float) -> None:
        """Hear the headers; the answer is produced token by token from now on."""
        run, slot = self.simulation, self.found[1]
        run._provider.refill(now)  # noqa: SLF001
        self.worker.changes += [(slot, "requests", 1, 0), (slot, "input", self.sizes[0], 0)]
        self._hear(now)
        for part in range(1, 5):
            after = self.real[1] / _TOKENS_PER_S * 1000 * part / 4
            run._at(now + after, self.produce)  # noqa: SLF001
        run._at(now + self.real[1] / _TOKENS_PER_S * 1000, self.end)  # noqa: SLF001

    def produce(self, now: float) -> None:
        """Produce a quarter of the answer."""
        run = self.simulation
        run._provider.refill(now)  # noqa: SLF001
        run._provider.parts["output"].level -= self.real[1] / 4  # noqa: SLF001
        if now >= _WARM_UP_S * 1000:
            run.outcome.used += self.real[1] / 4

    def end(self, now: float) -> None:
        """End: settle what was reserved by what was used."""
        self.simulation.outcome.memory += not self.reply
        unused = self.sizes[1] - self.real[1]
        self.worker.changes.append((self.found[1], "output", self.sizes[1], unused))
        usage = Usage(input=self.real[0], output=self.real[1])
        self.worker.estimate = self.worker.estimate.corrected(self.guess, usage)
        self.simulation.tell(now, self.worker)

    def _hear(self, now: float) -> None:
        if self.found[0] >= self.worker.number:
            self.worker.number = self.found[0]
            self.worker.told = self.simulation._provider.told()  # noqa: SLF001
        self.simulation.tell(now, self.worker)


def table(per_second: float, seconds: float) -> str:
    """Return a Markdown table of runs at 1, 2 and 3 times the limit."""
    head = "| offered | calls sent | refused by the provider (429) | of the limit used "
    lines = [head + "| held back | extractions |", "|---|---|---|---|---|---|"]
    for overload in (0.5, 1.0, 2.0, 3.0):
        found = Simulation(per_second, overload, seconds, memory=0.3).run()
        lines.append(
            f"| {overload:g} x | {found.sent:,} | {found.refused_share:.2%} "
            f"| {found.throughput:.1%} | {found.held:,} | {found.memory:,} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-second", type=float, default=10_000.0)
    parser.add_argument("--seconds", type=float, default=35.0)
    told = parser.parse_args()
    print(table(told.per_second, told.seconds))


if __name__ == "__main__":
    main()
