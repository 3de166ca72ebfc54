"""The door of the Python API: whatever a program passes to a public call."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

import pytest
from hypothesis import strategies as st

from afterword.producer import (
    AfterwordError,
    AsyncJob,
    AsyncOperator,
    AsyncProducer,
    AsyncSteering,
    AsyncTenants,
    DeadLetterFilter,
    DeadLetterKind,
    Estimate,
    InvalidRequest,
    Job,
    JobNotFound,
    LedgerUnavailable,
    Operator,
    Producer,
    ReplayPace,
    ReplayPlan,
    Settings,
    Steering,
    TenantLimits,
    Tenants,
)
from afterword.producer.admin.async_admin import _Desk
from afterword.producer.per_loop import PerLoop
from afterword.producer.testing import (
    FakeAsyncProducer,
    FakeClock,
    FakeFailure,
    FakeProducer,
    FakeReply,
)
from afterword.shared.ledger.dead_letter_records import DeadLetterRef
from tests.kit.fuzz.broken import junk
from tests.kit.fuzz.doors import door

NOWHERE = Settings(redis_url="unix:///nowhere.sock")
HELLO: dict[str, Any] = {"user_id": "ann", "message": "hello"}


class _NoLedger:
    """A ledger that is away: a call that gets here has passed every check."""

    async def get(self) -> Any:
        raise LedgerUnavailable

    for_reading = get

    async def aclose(self) -> None:
        pass


class Face:
    """One object of each public class, and a loop for those that need one."""

    def __init__(self) -> None:
        self._loop = asyncio.Runner()
        self.producer = FakeProducer(settings=Settings(max_queued=1_000_000_000))
        self.async_producer = FakeAsyncProducer()
        operator, async_operator = Operator(NOWHERE), AsyncOperator(NOWHERE)
        for one in (operator._operator, async_operator):
            one._desks = PerLoop(lambda: _Desk(_NoLedger()))  # type: ignore[arg-type]
        self._objects: dict[str, Any] = {
            "producer": self.producer,
            "async_producer": self.async_producer,
            "scripted": FakeProducer(),
            "job": self.producer.submit(**HELLO),
            "async_job": self.run(self.async_producer.submit(**HELLO)),
            "clock": FakeClock(),
            "operator": operator,
            "async_operator": async_operator,
            "steering": operator.steering,
            "async_steering": async_operator.steering,
            "tenants": operator.tenants,
            "async_tenants": async_operator.tenants,
        }

    def call(self, argument: Argument, value: Any) -> Any:
        """Make the call with this value for that argument, to its end."""
        call = getattr(self._objects[argument.owner], argument.call)
        return self.run(call(**argument.others | {argument.name: value}))

    def run(self, result: Any) -> Any:
        """Run what a call returned to its end."""
        if inspect.isasyncgen(result):
            return self._loop.run(_first(result))
        if inspect.isgenerator(result):
            return list(result)
        return self._loop.run(result) if inspect.iscoroutine(result) else result

    def close(self) -> None:
        self._objects["operator"].close()
        self._loop.close()


async def _first(items: Any) -> Any:
    async for item in items:
        return item
    return None


class Argument(NamedTuple):
    """One argument of one public call, which is made with the others as they should be."""

    owner: str
    call: str
    name: str

    @property
    def others(self) -> dict[str, Any]:
        """The arguments that the call needs beside this one."""
        of_owner = f"{self.owner.removeprefix('async_')}.{self.call}"
        return dict(_NEEDED.get(of_owner) or _NEEDED.get(self.call, {}))


_PLAN = ReplayPlan(
    DeadLetterFilter(), ReplayPace(), (DeadLetterRef("j", DeadLetterKind.REPLY, 0),),
    0, 1, 1, {}, Estimate(0, 0, 0, 0, None, 0.0, ""),
)  # fmt: skip
_NEEDED: dict[str, dict[str, Any]] = {
    "drain": {"worker": "host:1"},
    "drain_kind": {"kind": "responses"},
    "discard": {"criteria": DeadLetterFilter()},
    "erasure": {"user_id": "ann"},
    "forget": {"user_id": "ann"},
    "import_history": {"path": "/dev/null"},
    "lift_limits": {"tenant": "acme"},
    "lift_strike": {"tenant": "acme"},
    "limit": {"tenant": "acme", "limits": TenantLimits(weight=2)},
    "memories": {"user_id": "ann"},
    "open_gate": {"name": "recall"},
    "pause": {"work": "replies"},
    "refuse_with": {"error": LedgerUnavailable()},
    "replay": {"plan": _PLAN},
    "reply_with": {"answers": "Hi."},
    "resume": {"run_id": "r1"},
    "shut_gate": {"name": "recall"},
    "steering.resume": {"work": "replies"},
    "story": {"job_id": f"j00_{1:032x}"},
    "strike": {"tenant": "acme"},
    "submit": HELLO,
    "user_jobs": {"user_id": "ann"},
}


def _arguments(owner: str, kind: type, *calls: str) -> Iterator[Argument]:
    for call in calls or _public(kind):
        for name in inspect.signature(getattr(kind, call)).parameters:
            if name not in ("self", "fields"):
                yield Argument(owner, call, name)


def _public(kind: type) -> list[str]:
    named = inspect.getmembers(kind, inspect.isfunction)
    return [name for name, _ in named if not name.startswith("_")]


ARGUMENTS = [
    *_arguments("producer", Producer), *_arguments("async_producer", AsyncProducer),
    *_arguments("scripted", FakeProducer, "reply_with", "refuse_with"),
    *_arguments("job", Job), *_arguments("async_job", AsyncJob),
    *_arguments("operator", Operator), *_arguments("async_operator", AsyncOperator),
    *_arguments("steering", Steering), *_arguments("async_steering", AsyncSteering),
    *_arguments("tenants", Tenants), *_arguments("async_tenants", AsyncTenants),
    *_arguments("clock", FakeClock, "advance"),
]  # fmt: skip
RECORDS: tuple[type[Any], ...] = (
    DeadLetterFilter, ReplayPace, TenantLimits, FakeReply, FakeFailure,
)  # fmt: skip
FIELDS = [(record, one.name) for record in RECORDS for one in fields(record) if one.name != "_"]
MAKERS: tuple[Callable[..., Any], ...] = (
    Producer, AsyncProducer, Operator, AsyncOperator, FakeProducer, FakeAsyncProducer
)  # fmt: skip


@pytest.fixture(scope="module")
def face() -> Iterator[Face]:
    face = Face()
    yield face
    face.close()


def outcome(make: Callable[[], Any]) -> AfterwordError | None:
    """Return the error of ours that a call ends with; any other error is raised."""
    try:
        make()
    except AfterwordError as error:
        return error
    return None


@pytest.mark.finding(20)
@door("public API", inputs=1500, argument=st.sampled_from(ARGUMENTS), value=junk(objects=True))
def test_an_argument_works_or_is_refused_by_its_name(
    face: Face, argument: Argument, value: Any
) -> None:
    known = len(face.producer.requests) + len(face.async_producer.requests)

    error = outcome(lambda: face.call(argument, value))

    if isinstance(error, InvalidRequest):
        assert error.field == argument.name
        assert len(str(error)) < 300
        assert len(face.producer.requests) + len(face.async_producer.requests) == known
    elif isinstance(error, JobNotFound):
        assert argument.name == "job_id"


@pytest.mark.finding(20)
@door("filters and paces", field=st.sampled_from(FIELDS), value=junk(objects=True))
def test_a_field_works_or_is_refused_by_its_name(field: tuple[type[Any], str], value: Any) -> None:
    record, name = field
    error = outcome(lambda: record(**{name: value}))
    if error is not None:
        assert isinstance(error, InvalidRequest)
        assert error.field in (name, "deltas")


@pytest.mark.finding(20)
@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("value", [5, "redis://host", object(), Settings])
def test_settings_are_settings(make: Callable[..., Any], value: Any) -> None:
    error = outcome(lambda: make(settings=value))
    assert isinstance(error, InvalidRequest)
    assert error.field == "settings"


@pytest.mark.finding(20)
@pytest.mark.parametrize(
    ("argument", "values"),
    [
        (Argument("job", "wait", "timeout"), [-1, float("nan"), float("inf"), 1e300, "5", None]),
        (Argument("job", "stream", "after"), ["1", "1-", "18446744073709551616-0", 5, "1-0\n"]),
        (Argument("producer", "usage", "tenant"), ["\udcff", "", 10**5000, None, b"acme"]),
        (Argument("producer", "job", "job_id"), [10**5000, None, b"j00"]),
        (Argument("operator", "audit", "limit"), [0, -1, 10**5000, 1.5, "5", True, None]),
        (Argument("operator", "accounts", "late_s"), [-1, float("inf"), 10**400, "5m"]),
        (Argument("operator", "replay_run", "run_id"), ["\udcff", "", 10**5000]),
        (Argument("operator", "forget", "user_id"), ["", " ann", "\x00", 10**5000, None]),
        (Argument("operator", "discard", "apply"), ["yes", 1, None]),
        (Argument("operator", "plan", "criteria"), [{"ids": []}, "all", 5]),
        (Argument("operator", "replay", "plan"), [None, {}, "all"]),
        (Argument("steering", "pause", "work"), ["all", "", None, 5, "drain x"]),
        (Argument("steering", "pause", "for_s"), [0, -1, float("nan"), 1e300, "5m"]),
        (Argument("steering", "pause", "until"), [datetime(2030, 1, 1), "tomorrow", 5]),  # noqa: DTZ001
        (Argument("steering", "strike", "tenant"), ["", " acme", "\x00", None]),
        (Argument("steering", "strike", "every_s"), [0, -1, float("inf"), "5s"]),
        (Argument("steering", "limit", "limits"), [{}, {"weight": 1}, TenantLimits(), None]),
    ],
    ids=lambda one: f"{one.call}-{one.name}" if isinstance(one, Argument) else "",
)
def test_arguments_that_once_passed_or_crashed_are_refused(
    face: Face, argument: Argument, values: list[Any]
) -> None:
    for value in values:
        error = outcome(partial(face.call, argument, value))
        assert isinstance(error, InvalidRequest), argument.call
        assert error.field == argument.name


@pytest.mark.finding(20)
def test_the_audit_names_even_a_user_whose_name_is_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "ol\udcffga\x1b" + "x" * 200)
    assert AsyncOperator(NOWHERE)._by.startswith("ol?ga?xxx")


@pytest.mark.finding(20)
def test_no_ids_do_not_choose_everything() -> None:
    error = outcome(lambda: DeadLetterFilter(ids=()))
    assert isinstance(error, InvalidRequest)
    assert error.field == "ids"
