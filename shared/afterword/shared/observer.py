"""The Observer port: code reports events with `emit`, and whoever subscribed receives them.

For example:

    from afterword.shared.observer import subscribe

    def count(event: ObserverEvent, context: Context) -> None:
        COUNTERS[type(event).__name__] += 1

    subscribe(count)                      # all events
    subscribe(on_gate, GateClosed)        # some
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, ParamSpec, TypeAlias

from afterword.shared.error_location import error_location, error_name
from afterword.shared.events import (
    EVENTS,
    Context,
    InternalError,
    ObserverEvent,
    SubscriberFailed,
)

P = ParamSpec("P")

#: Is called with each event, on the thread that reports it: it must be quick and thread-safe.
Subscriber: TypeAlias = Callable[[Any, Context], object]

_NOTHING = Context()
_context: ContextVar[Context] = ContextVar("context", default=_NOTHING)


@dataclass(slots=True, eq=False)
class Subscription:
    """One subscriber; `failures` counts the events on which it raised an error."""

    subscriber: Subscriber
    kinds: frozenset[type[ObserverEvent]]
    failures: int = field(default=0, init=False)


class Observer:
    """Passes events on to subscribers; a process has one, `OBSERVER`."""

    def __init__(self) -> None:
        self._by_kind: dict[Any, tuple[Subscription, ...]] = {}
        self._subscriptions: tuple[Subscription, ...] = ()

    def emit(self, kind: Callable[P, ObserverEvent], /, *args: P.args, **fields: P.kwargs) -> None:
        """Report an event of a class, with its fields as keywords.

        It is built only if somebody subscribed to its class. Never raises: an error of a
        subscriber is counted, and reported once as `SubscriberFailed`.
        """
        heard_by = self._by_kind.get(kind)
        if heard_by:
            self._pass_on(kind(*args, **fields), heard_by)

    def subscribe(self, subscriber: Subscriber, *kinds: type[ObserverEvent]) -> Subscription:
        """Call `subscriber(event, context)` for events of these classes, or for all without any.

        The calls are made at once, on whatever thread reports the event.
        """
        subscription = Subscription(subscriber, frozenset(kinds or EVENTS))
        self._replace((*self._subscriptions, subscription))
        return subscription

    def is_heard(self, kind: type[ObserverEvent]) -> bool:
        """Return whether anybody subscribed to a class of events."""
        return kind in self._by_kind

    def is_subscribed(self, subscriber: Subscriber) -> bool:
        """Return whether a subscriber is called for any events."""
        return any(one.subscriber is subscriber for one in self._subscriptions)

    def unsubscribe(self, subscription: Subscription) -> None:
        """Make no more calls for a subscription; nothing happens if it was ended before."""
        self._replace(tuple(one for one in self._subscriptions if one is not subscription))

    def _replace(self, subscriptions: tuple[Subscription, ...]) -> None:
        """Index subscriptions by class; in one step, since other threads may be in `emit`."""
        self._subscriptions = subscriptions
        kinds = {kind for one in subscriptions for kind in one.kinds}
        self._by_kind = {
            kind: tuple(one for one in subscriptions if kind in one.kinds) for kind in kinds
        }

    def _pass_on(self, event: ObserverEvent, subscriptions: tuple[Subscription, ...]) -> None:
        context = _context.get()
        for subscription in subscriptions:
            try:
                subscription.subscriber(event, context)
            except Exception as error:  # noqa: BLE001 whoever observes the work does not stop it
                self._report(subscription, error)

    def _report(self, subscription: Subscription, error: Exception) -> None:
        subscription.failures += 1
        if subscription.failures > 1:
            return
        name = getattr(subscription.subscriber, "__qualname__", type(subscription.subscriber))
        self.emit(
            SubscriberFailed,
            subscriber=str(name),
            error=type(error).__name__,
            place=error_location(error, anywhere=True),
        )


#: The observer of this process.
OBSERVER = Observer()
emit = OBSERVER.emit
subscribe = OBSERVER.subscribe
unsubscribe = OBSERVER.unsubscribe
is_subscribed = OBSERVER.is_subscribed
is_heard = OBSERVER.is_heard


@contextmanager
def bound(**names: Any) -> Iterator[None]:
    """Let all events that are reported inside carry these fields of `Context` as well.

    Holds for tasks and `asyncio.to_thread` calls that begin inside, too.
    """
    outer = _context.get()
    token = _context.set(Context(**names) if outer is _NOTHING else replace(outer, **names))
    try:
        yield
    finally:
        _context.reset(token)


def emit_internal_error(error: BaseException) -> None:
    """Report a bug of ours: an error that nothing expects."""
    emit(InternalError, error=error_name(error), place=error_location(error))


def context() -> Context:
    """Return what the work at hand is called."""
    return _context.get()
