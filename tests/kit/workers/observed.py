"""The events that were reported while a test looked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from afterword.shared.events import EVENTS, Context, ObserverEvent
from afterword.shared.observer import subscribe, unsubscribe

E = TypeVar("E", bound=ObserverEvent)


class Observed:
    """Events in their order, each with its context."""

    def __init__(self) -> None:
        self.all: list[tuple[ObserverEvent, Context]] = []

    def of(self, kind: type[E]) -> list[E]:
        """Return the events of one class."""
        return [event for event, _ in self.all if isinstance(event, kind)]

    def contexts(self, kind: type[ObserverEvent]) -> list[Context]:
        """Return the contexts of the events of one class."""
        return [context for event, context in self.all if isinstance(event, kind)]

    def names(self) -> list[str]:
        """Return the names of all classes, in order."""
        return [type(event).__name__ for event, _ in self.all]


@contextmanager
def observed(*kinds: type[ObserverEvent]) -> Iterator[Observed]:
    """Collect events of these classes, or all of them."""
    found = Observed()
    subscription = subscribe(
        lambda event, context: found.all.append((event, context)), *(kinds or EVENTS)
    )
    try:
        yield found
    finally:
        unsubscribe(subscription)
