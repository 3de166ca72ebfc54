"""The Observer port: events without content, and subscribers that cannot break the work."""

from __future__ import annotations

import ast
import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields
from enum import StrEnum
from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest

from afterword.shared.error_location import error_location, error_name
from afterword.shared.errors import Fault
from afterword.shared.event_types import Text
from afterword.shared.events import (
    EVENTS,
    Context,
    GateClosed,
    GateOpened,
    JobOvertaken,
    ObserverEvent,
    SubscriberFailed,
)
from afterword.shared.names import lane_id, lane_tag
from afterword.shared.observer import Observer, bound, context
from afterword.workers.celery_runtime.thread_handoff import ThreadHandoff
from tests.conftest import ROOTS


def holds_no_content(hint: Any) -> bool:
    """Return whether a field of this type has no room for what somebody wrote."""
    if get_origin(hint) is Annotated:
        return get_args(hint)[0] is str and isinstance(get_args(hint)[1], Text)
    if get_origin(hint) is Literal:
        return True
    return hint in (int, float, bool, NoneType) or issubclass(hint, StrEnum)


@pytest.mark.parametrize("kind", [*EVENTS, Context], ids=lambda kind: kind.__name__)
def test_no_field_can_hold_content(kind: type) -> None:
    hints = get_type_hints(kind, include_extras=True)
    assert [name for name, hint in hints.items() if not holds_no_content(hint)] == []


@pytest.mark.parametrize("hint", [str, object, bytes, list, Annotated[str, "text"]])
def test_a_field_that_could_hold_content_would_be_seen(hint: Any) -> None:
    assert not holds_no_content(hint)


def test_every_event_is_documented_and_frozen() -> None:
    assert all(kind.__doc__ and not kind.__doc__.startswith(kind.__name__) for kind in EVENTS)
    with pytest.raises(FrozenInstanceError):
        GateOpened(gate="recall").gate = "other"  # type: ignore[misc]


def emitted() -> Iterator[str]:
    """Yield the class of each event that the product reports, once for each place."""
    for root in ROOTS:
        for path in root.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and _is_emit(node.func):
                    named = ast.walk(node.args[0])
                    yield from (one.id for one in named if isinstance(one, ast.Name))


def _is_emit(func: ast.expr) -> bool:
    return getattr(func, "id", None) == "emit" or getattr(func, "attr", None) == "emit"


def test_every_event_is_reported_by_the_product() -> None:
    reported = Counter(emitted())
    assert [kind.__name__ for kind in EVENTS if not reported[kind.__name__]] == []


def test_a_subscriber_hears_the_classes_that_it_asked_for() -> None:
    observer, heard = Observer(), list[ObserverEvent]()
    observer.subscribe(lambda event, _: heard.append(event), GateClosed)

    observer.emit(GateClosed, gate="recall", code="overloaded", fault=Fault.PROVIDER)
    observer.emit(GateOpened, gate="recall")

    assert heard == [GateClosed(gate="recall", code="overloaded", fault=Fault.PROVIDER)]


def test_without_classes_it_hears_all_and_after_unsubscribing_none() -> None:
    observer, heard = Observer(), list[ObserverEvent]()
    subscription = observer.subscribe(lambda event, _: heard.append(event))

    observer.emit(GateOpened, gate="recall")
    observer.emit(JobOvertaken)
    observer.unsubscribe(subscription)
    observer.emit(JobOvertaken)

    assert heard == [GateOpened(gate="recall"), JobOvertaken()]


def test_an_event_nobody_subscribed_to_is_not_even_built() -> None:
    observer = Observer()
    observer.subscribe(lambda *_: None, GateOpened)
    observer.emit(GateClosed, nonsense="would be a TypeError")  # type: ignore[call-arg]


def test_a_subscriber_that_fails_stops_neither_the_work_nor_the_others() -> None:
    observer, heard = Observer(), list[ObserverEvent]()

    def broken(*_: object) -> None:
        raise ValueError("my secret")

    failing = observer.subscribe(broken)
    observer.subscribe(lambda event, _: heard.append(event))
    for _ in range(3):
        observer.emit(GateOpened, gate="recall")

    assert [type(event) for event in heard].count(GateOpened) == 3
    (told,) = [event for event in heard if isinstance(event, SubscriberFailed)]
    assert told.error == "ValueError"
    assert "broken" in told.subscriber
    assert "test_observer.py:" in told.place
    assert "secret" not in str(heard)
    assert failing.failures == 4, "once for each event, and for the report of its own failure"


async def test_bound_context_comes_with_each_event_and_in_child_tasks() -> None:
    observer, heard = Observer(), list[Context]()
    observer.subscribe(lambda _, context: heard.append(context))

    async def work() -> None:
        observer.emit(JobOvertaken)

    with bound(job_id="j1", attempt=2):
        observer.emit(JobOvertaken)
        await asyncio.create_task(work())
        with bound(lane="l1"):
            observer.emit(JobOvertaken)
    observer.emit(JobOvertaken)

    inner = Context(job_id="j1", attempt=2)
    assert heard == [inner, inner, Context(job_id="j1", lane="l1", attempt=2), Context()]
    assert context() == Context()


def test_a_lane_is_named_without_its_user() -> None:
    ana, bob = (lane_tag(lane_id(f"default/{name}", 3)) for name in ("ana", "bob"))
    assert ana.startswith("l03_")
    assert ana != bob
    assert "ana" not in ana
    assert "default" not in ana


def test_the_place_of_an_error_is_the_last_line_of_ours_that_led_to_it() -> None:
    with pytest.raises(ValueError, match="must name") as caught:
        ThreadHandoff(_broken).post(print)

    ours = "afterword/workers/celery_runtime/thread_handoff.py:"
    assert error_location(caught.value).startswith(ours)
    assert error_location(caught.value, anywhere=True).startswith("tests/unit/test_observer.py:")
    assert error_location(ValueError()) == "nowhere"


def _broken(_: object) -> None:
    raise ValueError("must name a host")


def test_the_place_of_an_exception_group_is_that_of_its_first_error() -> None:
    with pytest.raises(ValueError, match="host") as caught:
        _broken(None)
    group = ExceptionGroup("all", [ExceptionGroup("some", [caught.value]), KeyError()])

    assert error_location(group).startswith("tests/unit/test_observer.py:")
    assert error_name(group) == "ValueError"


def test_fields_are_given_by_name() -> None:
    assert all(one.kw_only for kind in EVENTS for one in fields(kind))
