"""A worker's metrics for Prometheus: the events of this process, counted and timed.

Label values are fixed words of the code or names of the configuration, never users, tenants or ids:
tenants are told apart by their class.
Metrics of the whole fleet come from the ledger: `afterword metrics`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeAlias

from afterword.shared import events
from afterword.shared.contracts import Usage
from afterword.shared.environment import variable
from afterword.shared.events import Context, MetricsServed, ObserverEvent
from afterword.shared.listen_address import ListenAddress
from afterword.shared.metrics_server import new_registry, serving
from afterword.shared.observer import context, emit, subscribe, unsubscribe
from afterword.shared.prices import IN_BATCH, Prices, rates_of
from afterword.shared.settings import Settings
from afterword.shared.tenant_classes import DEFAULT
from afterword.shared.version import __version__

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Counter, Histogram

SETTING = variable("metrics_listen")

#: Updates the instruments of one class of events.
Handler: TypeAlias = Callable[[Any], object]

#: What tells tokens that cost something.
_Paid: TypeAlias = (
    events.ModelAnswered | events.ModelFailed | events.ExtractionPaid | events.LostAttemptCounted
)

#: Upper bounds of histograms, in seconds: of what should take milliseconds, and of what may take
#: minutes.
SHORT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 5.0)
LONG_S = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)

#: How many models or gates get a label value of their own: a job may name any model.
MOST_NAMES = 50
OTHER = "other"

_LAG_EVERY_S = 0.25


@asynccontextmanager
async def metrics(settings: Settings, queues: str) -> AsyncIterator[None]:
    """Count events, and serve what was counted at `AFTERWORD_METRICS_LISTEN`, if that is set."""
    if settings.metrics_listen is None:
        yield
        return
    registry = new_registry(SETTING)
    address = ListenAddress.parse(settings.metrics_listen)
    with (
        serving(registry, address, settings.metrics_token, SETTING) as listened,
        counting(registry, settings.model_prices),
    ):
        emit(MetricsServed, address=str(listened))
        measuring = asyncio.create_task(_measure_loop(describe_worker(registry, queues)))
        try:
            yield
        finally:
            measuring.cancel()


@contextmanager
def counting(registry: CollectorRegistry, prices: Prices | None = None) -> Iterator[None]:
    """Count and time this process's events in a registry while the context is open.

    `prices` come before the list prices of models.
    """
    make = _Instruments(registry)
    handlers = _replies(make) | _recall(make) | _models(make, prices or {}) | _attempts(make)
    handlers |= _stores(make) | _turns(make) | _message_batches(make) | _gates(make) | _traces(make)
    handlers |= _others(make, [kind for kind in events.EVENTS if kind not in handlers])

    def count(event: ObserverEvent, _: Context) -> None:
        handlers[type(event)](event)

    subscription = subscribe(count, *handlers)
    try:
        yield
    finally:
        unsubscribe(subscription)


def _replies(make: _Instruments) -> dict[type[ObserverEvent], Handler]:
    waits = make.histogram(
        "job_queue_wait_seconds", "Time that jobs waited for a worker, by attempt."
    )
    replies = make.counter(
        "replies",
        "Replies published, by why their turn is not stored: `no` if it is to be.",
        "not_remembered",
    )
    took = make.histogram("reply_seconds", "Time from the submit of a job to its reply.")

    overhead = make.histogram(
        "reply_overhead_seconds",
        "Time that an attempt which gave a reply took beside recall and the model: claim, prompt, "
        "publishing.",
        buckets=SHORT_S,
    )

    by_reason = _PerName(replies.labels)

    def published(event: events.ReplyPublished) -> None:
        by_reason[event.not_remembered or "no"].inc()
        took.observe(event.total_s)
        overhead.observe(event.overhead_s)

    return {
        events.JobClaimed: lambda event: waits.observe(event.queued_s),
        events.ReplyPublished: published,
    }


def _recall(make: _Instruments) -> dict[type[ObserverEvent], Handler]:
    recalls = make.histogram(
        "recall_seconds",
        "Time that recall delayed a reply, by how it ended (see `memory` of a reply).",
        "status",
        buckets=SHORT_S,
    )
    given = make.counter(
        "memories", "Memories found, by whether they went into the prompt.", "given"
    )

    by_status = _PerName(recalls.labels)
    kept, dropped = given.labels("yes"), given.labels("no")

    def recalled(event: events.RecallFinished) -> None:
        by_status[event.status].observe(event.duration_s)
        _add(kept, event.kept)
        _add(dropped, event.dropped)

    return {events.RecallFinished: recalled}


def _models(make: _Instruments, prices: Prices) -> dict[type[ObserverEvent], Handler]:
    calls = make.counter(
        "model_calls",
        "Prompts sent to a model. Calls without a reply were wasted: compare with replies.",
        "model",
    )
    called = _PerName(calls.labels)
    first = make.histogram(
        "model_first_text_seconds",
        "Time from the call of a model to its first piece of text.",
        "model",
    )
    whole = make.histogram(
        "model_seconds", "Time from the call of a model to the end of its answer.", "model"
    )
    tokens = _tokens(make)

    cost = _cost(make)
    spend = _spending(tokens, cost, prices, "reply")
    per_model = _PerName(lambda model: (first.labels(model), whole.labels(model)))

    def answered(event: events.ModelAnswered) -> None:
        spend(event)
        first_s, whole_s = per_model[event.model]
        first_s.observe(event.first_text_s)
        whole_s.observe(event.duration_s)

    return {
        events.ModelCalled: lambda event: called[event.model].inc(),
        events.ModelAnswered: answered,
        events.ModelFailed: spend,
        events.ExtractionPaid: _spending(tokens, cost, prices, "extraction"),
        events.LostAttemptCounted: _spending(tokens, cost, prices, "lost"),
    }


def _tokens(make: _Instruments) -> Counter:
    return make.counter(
        "tokens",
        "Tokens of calls for the purpose `reply`, or `extraction` of memories, also what was told "
        "of calls that failed or were cut off, or `lost` (an estimate, of attempts to reply whose "
        "worker died): `input` (neither read from the provider's cache nor written to it), "
        "`cache_read`, `cache_write`, `output`.",
        *("model", "kind", "purpose", "tenant_class"),
    )


def _cost(make: _Instruments) -> Counter:
    return make.counter(
        "model_cost_usd",
        "What these tokens cost, in US dollars: `AFTERWORD_MODEL_PRICES`, else dated list prices; "
        "a model without a price is missing.",
        *("model", "purpose", "tenant_class"),
    )


def _spending(tokens: Counter, cost: Counter, prices: Prices, purpose: str) -> Handler:
    """Return what counts the tokens of a call and their cost."""
    kinds = tuple(Usage.model_fields)
    used = _PerName(
        lambda model: _PerName(
            lambda of: [tokens.labels(model, kind, purpose, of) for kind in kinds]
        )
    )
    priced = _PerName(lambda model: _PerName(lambda of: cost.labels(model, purpose, of)))
    rates = lru_cache(MOST_NAMES)(partial(rates_of, own=prices))

    def spend(event: _Paid) -> None:
        of = context().tenant_class or DEFAULT
        told = (
            event.input_tokens,
            event.output_tokens,
            event.cache_read_tokens,
            event.cache_write_tokens,
        )
        if price := rates(event.model):
            share = IN_BATCH if isinstance(event, events.ExtractionPaid) and event.in_batch else 1
            priced[event.model][of].inc(share * price.usd(*told))
        for counter, tokens_told in zip(used[event.model][of], told, strict=True):
            _add(counter, tokens_told)

    return spend


def _traces(make: _Instruments) -> dict[type[ObserverEvent], Handler]:
    dropped = make.counter(
        "spans_dropped", "Spans that were not sent, see the how-to of traces.", "code"
    )
    return {events.SpansDropped: lambda event: dropped.labels(event.code).inc(event.spans)}


def _attempts(make: _Instruments) -> dict[type[ObserverEvent], Handler]:
    name = _PerName(str)
    ended = make.counter(
        "job_attempts",
        "Attempts at a job that gave no reply: `retried` (it counts), `snoozed` and `released` (it "
        "does not), `given_up` (the job failed), `returned` (the worker stops), `overtaken` (the "
        "lease was lost, or the job was cancelled).",
        *("outcome", "code", "fault"),
    )
    replaced = make.counter(
        "model_fallbacks",
        "Calls of another model because this one failed.",
        "model",
        "code",
    )

    def count(outcome: str) -> Handler:
        return lambda event: ended.labels(
            outcome, getattr(event, "code", ""), getattr(event, "fault", "")
        ).inc()

    return {
        events.JobRetried: count("retried"),
        events.JobSnoozed: count("snoozed"),
        events.JobReleased: count("released"),
        events.JobGivenUp: count("given_up"),
        events.JobReturned: count("returned"),
        events.JobOvertaken: count("overtaken"),
        events.ModelReplaced: lambda event: replaced.labels(name[event.model], event.code).inc(),
    }


def _turns(make: _Instruments) -> dict[type[ObserverEvent], Handler]:
    settled = make.counter(
        "turns_settled",
        "Turns whose way ended: `stored`, or `nothing` (the code says why).",
        *("outcome", "code"),
    )
    stored = make.counter("memories_stored", "Memories that mem0 stored.")
    ages = make.histogram(
        "turn_age_seconds",
        "Time between the submit of turns and the attempt that settled them: how late memory is.",
    )
    failed = make.counter(
        "turn_attempts",
        "Attempts to store a turn that did not end its way: `accepted` (mem0 works on it), "
        "`retried` (it counts), `postponed` (it does not), `split` (a batch, into single turns), "
        "`buried` (now a dead letter).",
        *("outcome", "code", "fault"),
    )

    secrets = make.counter("secrets", "Secrets in turns that were stored, by kind.", "kind")
    kinds = _PerName(secrets.labels)

    def ended(event: events.TurnSettled) -> None:
        settled.labels(event.outcome, event.code).inc(event.turns)
        _add(stored, event.memories)
        ages.observe(event.age_s)

    def postponed(event: events.TurnPostponed) -> None:
        outcome = "retried" if event.counted else "postponed"
        failed.labels(outcome, event.code, event.fault).inc(event.turns)

    return {
        events.TurnSettled: ended,
        events.SecretsFound: lambda event: kinds[event.kind].inc(event.count),
        events.TurnPostponed: postponed,
        events.TurnAccepted: lambda event: failed.labels("accepted", "", "").inc(event.turns),
        events.TurnBuried: lambda event: failed.labels("buried", event.code, event.fault).inc(),
        events.BatchSplit: lambda event: failed.labels("split", event.code, event.fault).inc(
            event.turns
        ),
    }


def _stores(make: _Instruments) -> dict[type[ObserverEvent], Handler]:
    answered = make.histogram(
        "store_seconds",
        "Time until mem0 had answered an attempt to store turns, by how: `stored`, `nothing`, "
        "`pending` (it works on it), `failed`.",
        "outcome",
    )
    by_outcome = _PerName(answered.labels)

    def timed(event: events.StoreAnswered) -> None:
        by_outcome[event.outcome].observe(event.duration_s)

    return {events.StoreAnswered: timed}


def _message_batches(make: _Instruments) -> dict[type[ObserverEvent], Handler]:
    batched = make.counter(
        "message_batch_turns",
        "Turns whose extraction went into message batches: `sent`, `answered`, or `alone` (they "
        "need a call of their own).",
        "outcome",
    )

    def batch_ended(event: events.MessageBatchEnded) -> None:
        batched.labels("answered").inc(event.answered)
        batched.labels("alone").inc(event.turns - event.answered)

    return {
        events.MessageBatchSent: lambda event: batched.labels("sent").inc(event.turns),
        events.MessageBatchEnded: batch_ended,
    }


def _gates(make: _Instruments) -> dict[type[ObserverEvent], Handler]:
    name = _PerName(str)
    changes = make.counter(
        "gate_changes",
        "Gates that this worker saw shut or open. How they stand now: `afterword metrics`.",
        "gate",
        "change",
    )
    swept = make.counter(
        "swept",
        "What sweeps of this worker put right: jobs that expired, work that was woken, taken back "
        "from lost workers, or hinted again.",
        "what",
    )

    put_right = _PerName(swept.labels)

    def tidied(event: events.SweepFinished) -> None:
        for what in ("expired", "woken", "taken_back", "hinted_again"):
            _add(put_right[what], getattr(event, what))

    return {
        events.GateClosed: lambda event: changes.labels(name[event.gate], "shut").inc(),
        events.GateOpened: lambda event: changes.labels(name[event.gate], "opened").inc(),
        events.SweepFinished: tidied,
    }


def _add(counter: Counter, count: float) -> None:
    """Add to a counter; to add nothing to it would cost a microsecond as well."""
    if count:
        counter.inc(count)


def _others(
    make: _Instruments, kinds: list[type[ObserverEvent]]
) -> dict[type[ObserverEvent], Handler]:
    """Count every other event by its name alone, so that none is missing here."""
    seen = make.counter(
        "events",
        "Every other event by its name, as in the reference of events: errors, stalls, lost "
        "leases, duplicates removed.",
        "event",
    )
    return {kind: _counting_one(seen.labels(kind.__name__)) for kind in kinds}


def _counting_one(counter: Any) -> Handler:
    return lambda _: counter.inc()


def describe_worker(registry: CollectorRegistry, queues: str) -> Histogram:
    """Add what this process is; return the histogram of how late its event loop is."""
    from prometheus_client import Gauge

    info = Gauge(
        "afterword_worker_info",
        "1; its labels say which version this worker runs, and which queues it takes hints from.",
        ["version", "queues"],
        registry=registry,
    )
    info.labels(__version__, queues).set(1)
    return _Instruments(registry).histogram(
        "event_loop_lag_seconds",
        "By how much the event loop was late, four times a second: above 0.1, it is overloaded.",
        buckets=SHORT_S,
    )


async def _measure_loop(lag: Histogram) -> None:
    """Measure again and again by how much the event loop is late."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_EVERY_S
        await asyncio.sleep(_LAG_EVERY_S)
        lag.observe(max(0.0, loop.time() - due))


class _Instruments:
    """Makes the instruments of one registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        import prometheus_client

        self._client = prometheus_client
        self._registry = registry

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """Return a new counter."""
        return self._client.Counter(f"afterword_{name}", text, labels, registry=self._registry)

    def histogram(
        self, name: str, text: str, *labels: str, buckets: Sequence[float] = LONG_S
    ) -> Histogram:
        """Return a new histogram with these upper bounds."""
        return self._client.Histogram(
            f"afterword_{name}", text, labels, registry=self._registry, buckets=buckets
        )


class _PerName(dict[str, Any]):
    """What `build` makes for each name, kept; all names after the first ones share one `other`."""

    def __init__(self, build: Callable[[str], Any]) -> None:
        super().__init__()
        self._build = build

    def __missing__(self, name: str) -> Any:
        kept = name if len(self) < MOST_NAMES else OTHER
        if kept not in self:
            self[kept] = self._build(kept)
        return self[kept]
