"""The fakes for users' own tests: their surface, their script and their clock.

What they promise together with the real producers is in `tests/contract/test_producers.py`.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afterword.producer import (
    AsyncJob,
    AsyncOperator,
    AsyncProducer,
    AsyncUserMemories,
    ChatRequest,
    InvalidRequest,
    Job,
    JobFailed,
    JobNotFound,
    JobState,
    KeyReused,
    LedgerUnavailable,
    MemoryUsed,
    Operator,
    Producer,
    QueueFull,
    Settings,
    TurnState,
    Usage,
    UserMemories,
)
from afterword.producer.testing import (
    FakeAsyncProducer,
    FakeClock,
    FakeFailure,
    FakeProducer,
    FakeReply,
)
from tests.conftest import ROOT
from tests.kit.servers.fork_server import shared_fork_server
from tests.packaging.blocks import program

#: What only a fake can do.
EXTRA = {
    "assert_nothing_submitted", "assert_submitted", "clock", "refuse_with", "reply_with",
    "remember", "requests",
}  # fmt: skip

#: What is called differently without an event loop.
_TWIN = {"aclose": "close"}

HELLO: dict[str, Any] = {"user_id": "ann", "message": "hello"}


def surface(one: type[Any]) -> dict[str, inspect.Signature | None]:
    """Return every public name of a class, with its signature if it is a method."""
    return {
        name: inspect.signature(value) if callable(value) else None
        for name, value in inspect.getmembers(one)
        if not name.startswith("_")
    }


@pytest.mark.parametrize(
    ("fake", "real"), [(FakeProducer, Producer), (FakeAsyncProducer, AsyncProducer)]
)
def test_a_fake_has_the_surface_of_the_real_one(fake: type[Any], real: type[Any]) -> None:
    assert issubclass(fake, real)
    names = surface(fake)
    assert {name: names[name] for name in surface(real)} == surface(real)
    assert set(names) - set(surface(real)) == EXTRA


@pytest.mark.parametrize(
    ("twin", "other"),
    [
        (Producer, AsyncProducer),
        (Job, AsyncJob),
        (Operator, AsyncOperator),
        (UserMemories, AsyncUserMemories),
    ],
)
def test_the_sync_twin_takes_the_same_arguments(twin: type[Any], other: type[Any]) -> None:
    def arguments(one: type[Any]) -> dict[str, Any]:
        return {
            _TWIN.get(name, name): None if signature is None else signature.parameters
            for name, signature in surface(one).items()
        }

    assert arguments(twin) == arguments(other)


@pytest.mark.parametrize("path", [*ROOT.glob("producer/**/*.py")], ids=lambda path: path.name)
def test_no_class_of_the_producer_reaches_into_another(path: Path) -> None:
    assert "noqa: SLF001" not in path.read_text(), "ruff refuses private names of other classes"


def test_a_text_is_the_reply_to_everyone() -> None:
    producer = FakeProducer("Hi!")
    replies = [producer.submit(user_id=user, message="hello").wait() for user in ("ann", "bob")]
    assert [(reply.user_id, reply.text) for reply in replies] == [("ann", "Hi!"), ("bob", "Hi!")]
    assert (replies[0].memory, replies[0].memories) == ("fresh", ())
    assert replies[0].timings_ms.total == 0


def test_a_list_answers_one_request_after_the_other() -> None:
    producer = FakeProducer(["one", FakeFailure("overloaded"), FakeReply("three")])
    assert producer.submit(**HELLO).wait().text == "one"
    with pytest.raises(JobFailed) as failure:
        producer.submit(**HELLO).wait()
    assert failure.value.code == "overloaded"
    assert producer.submit(**HELLO).wait().text == "three"
    with pytest.raises(AssertionError, match="3 answers"):
        producer.submit(**HELLO)


def test_a_function_answers_by_the_request() -> None:
    producer = FakeProducer(lambda request: request.message.upper())
    assert producer.submit(**HELLO).wait().text == "HELLO"


def test_without_a_script_the_message_is_echoed() -> None:
    assert FakeProducer().submit(**HELLO).wait().text == "You said: hello"


def test_the_last_rule_that_fits_a_user_decides() -> None:
    producer = FakeProducer("everyone")
    producer.reply_with("ann", user_id="ann")
    assert [producer.submit(user_id=user, message="hi").wait().text for user in ("ann", "bob")] == [
        "ann", "everyone",
    ]  # fmt: skip
    producer.reply_with("all again")
    assert producer.submit(user_id="ann", message="hi").wait().text == "all again"


def test_a_reply_says_what_the_script_says() -> None:
    known = MemoryUsed(id="m", text="lives in Lisbon", score=0.5)
    usage = Usage(input=7, output=9, cache_read=1)
    answer = FakeReply(
        "Hi!", memory="degraded", memories=["likes tea", known], stop_reason="max_tokens",
        model="claude", usage=usage, delay_s=2,
    )  # fmt: skip
    reply = FakeProducer(answer).submit(**HELLO).wait()
    assert (reply.memory, reply.stop_reason, reply.model, reply.usage) == (
        "degraded", "max_tokens", "claude", usage,
    )  # fmt: skip
    assert [memory.text for memory in reply.memories] == ["likes tea", "lives in Lisbon"]
    assert (reply.timings_ms.queued, reply.timings_ms.model, reply.timings_ms.total) == (
        0,
        2000,
        2000,
    )


def test_deltas_must_make_up_the_text() -> None:
    job = FakeProducer(FakeReply("Hi you", deltas=["Hi", " you"])).submit(**HELLO)
    assert [event.text for event in job.stream() if event.type == "delta"] == ["Hi", " you"]
    with pytest.raises(InvalidRequest, match="deltas"):
        FakeReply("Hi you", deltas=["Hi"])


@pytest.mark.parametrize("text", ["", " ", "  two words\n", "héllo\n\nworld"])
def test_the_deltas_of_any_text_make_it_up(text: str) -> None:
    job = FakeProducer(FakeReply(text)).submit(**HELLO)
    assert "".join(event.text or "" for event in job.stream()) == job.wait().text == text


def test_a_failure_may_come_in_the_middle_of_the_text() -> None:
    job = FakeProducer(FakeFailure("overloaded", deltas=["Hi", " y"], restarts=1)).submit(**HELLO)
    types = [event.type for event in job.stream()]
    first, second = ["started", "recalled", "delta"], ["restart", "recalled", "delta", "delta"]
    assert types == [*first, *second, "failed"]
    assert job.status().attempts == 2


@pytest.mark.parametrize("error", [QueueFull(), LedgerUnavailable("AFTERWORD_REDIS_URL: away")])
def test_a_submit_is_refused_as_often_as_is_said(error: Exception) -> None:
    producer = FakeProducer()
    assert isinstance(error, (QueueFull, LedgerUnavailable))
    producer.refuse_with(error, times=2, user_id="ann")
    with pytest.raises(type(error)):
        producer.submit(**HELLO)
    assert producer.submit_many([HELLO])[0] is error
    producer.assert_nothing_submitted()
    producer.submit(**HELLO)
    assert producer.assert_submitted(user_id="ann").message == "hello"


def test_a_redis_that_is_away_for_everybody_answers_no_ping() -> None:
    producer = FakeProducer()
    producer.refuse_with(QueueFull())
    producer.refuse_with(LedgerUnavailable(), user_id="ann")
    producer.ping()
    producer.refuse_with(away := LedgerUnavailable())
    for _ in range(2):
        with pytest.raises(LedgerUnavailable) as raised:
            producer.ping()
        assert raised.value is away


def test_a_refusal_of_one_user_is_none_of_another() -> None:
    producer = FakeProducer()
    producer.refuse_with(QueueFull(), user_id="ann")
    producer.submit(user_id="bob", message="hello")
    with pytest.raises(QueueFull):
        producer.submit(**HELLO)


def test_a_missing_request_is_told_with_those_there_were() -> None:
    producer = FakeProducer()
    producer.submit(**HELLO)
    assert producer.requests == [ChatRequest(**HELLO)]
    with pytest.raises(AssertionError, match="user_id='ann'"):
        producer.assert_submitted(user_id="bob")
    with pytest.raises(AssertionError, match="there were requests"):
        producer.assert_nothing_submitted()


def test_each_job_has_one_request_however_often_it_is_sent() -> None:
    producer = FakeProducer()
    for _ in range(3):
        producer.submit(**HELLO, idempotency_key="k")
    assert len(producer.requests) == 1


def test_an_idempotency_key_is_forgotten_after_its_time() -> None:
    producer = FakeProducer(settings=Settings(idempotency_s=60))
    first = producer.submit(**HELLO, idempotency_key="k")
    with pytest.raises(KeyReused):
        producer.submit(user_id="ann", message="other", idempotency_key="k")
    producer.clock.advance(60)
    assert producer.submit(**HELLO, idempotency_key="k").id != first.id


def test_a_turn_reaches_memory_after_the_reply() -> None:
    answer = FakeReply(turn=TurnState.DEAD, turn_code="rejected", turn_delay_s=5, delay_s=1)
    producer = FakeProducer(answer)
    job = producer.submit(**HELLO)
    assert job.status().turn is TurnState.AWAITED
    job.wait()
    assert job.status().turn is TurnState.PENDING
    producer.clock.advance(5)
    assert (job.status().turn, job.status().turn_code) == (TurnState.DEAD, "rejected")


def test_waiting_moves_the_clock_to_the_reply_and_no_further() -> None:
    producer = FakeProducer(FakeReply(delay_s=5))
    job = producer.submit(**HELLO)
    started = next(job.stream())
    assert (started.type, producer.clock.elapsed_s) == ("started", 0)
    assert job.status().state is JobState.RUNNING
    job.wait(timeout=5)
    assert producer.clock.elapsed_s == 5
    assert producer.clock.now() == producer.clock.at(5)


def test_deltas_are_spread_over_the_time_of_the_reply() -> None:
    producer = FakeProducer(FakeReply("one two three", delay_s=4))
    job = producer.submit(**HELLO)
    times = [producer.clock.elapsed_s for event in job.stream() if event.type != "recalled"]
    assert times == [0, 1, 2, 3, 4]


def test_a_reply_that_never_comes_ends_with_the_life_of_its_job() -> None:
    job = FakeProducer(FakeReply(delay_s=math.inf)).submit(**HELLO, expires_in=30)
    assert [event.type for event in job.stream()] == ["started", "failed"]
    assert job.status().state is JobState.EXPIRED


def test_the_fake_forgets_streams_and_jobs_after_their_retention() -> None:
    producer = FakeProducer(settings=Settings(stream_retention_s=60, retention_s=120))
    job = producer.submit(**HELLO)
    job.wait()
    producer.clock.advance(61)
    for after in (None, "0-0", "9-9"):  # nobody knows any more which events there were
        [last] = job.stream(after)
        assert (last.type, last.reply) == ("final", job.wait())
    producer.clock.advance(60)
    with pytest.raises(JobNotFound):
        job.status()


def test_a_sync_wait_on_a_clock_that_stands_still_says_what_to_do() -> None:
    producer = FakeProducer(FakeReply(delay_s=5), clock=FakeClock(auto_advance=False))
    job = producer.submit(**HELLO)
    for follow in (job.wait, lambda: list(job.stream())):
        with pytest.raises(RuntimeError, match="advance"):
            follow()
    producer.clock.advance(5)
    assert job.wait().text


async def test_an_async_wait_lasts_until_the_test_moves_the_clock() -> None:
    clock = FakeClock(auto_advance=False)
    producer = FakeAsyncProducer(FakeReply(delay_s=5), clock=clock)
    waiting = asyncio.create_task((await producer.submit(**HELLO)).wait(timeout=60))
    for elapsed_s in range(5):
        assert await asyncio.wait({waiting}, timeout=0) == (set(), {waiting}), elapsed_s
        clock.advance(1)
    assert (await waiting).timings_ms.total == 5000


async def test_a_task_may_cancel_what_another_waits_for() -> None:
    producer = FakeAsyncProducer(FakeReply(delay_s=5))
    job = await producer.submit(**HELLO)
    failure, cancelled = await asyncio.gather(job.wait(), job.cancel(), return_exceptions=True)
    assert isinstance(failure, JobFailed)
    assert (failure.code, cancelled) == ("cancelled", True)


def test_a_fake_goes_on_after_it_was_closed() -> None:
    with FakeProducer() as producer:
        job = producer.submit(**HELLO)
    assert job.wait().text == "You said: hello"


def test_nothing_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERWORD_MEMORY", "off")
    monkeypatch.setenv("AFTERWORD_MAX_QUEUED", "nonsense")
    assert FakeProducer().submit(**HELLO).wait().memory == "fresh"


@pytest.mark.parametrize("build", [FakeProducer, FakeAsyncProducer])
def test_a_fake_starts_no_thread_and_opens_no_connection(build: Callable[[], Any]) -> None:
    import threading

    before = threading.active_count()
    fake = build()
    assert threading.active_count() == before
    assert fake.requests == []


def test_the_tests_of_the_how_to_page_pass(tmp_path: Path) -> None:
    page = tmp_path / "test_page.py"
    page.write_text(program(ROOT / "docs/how-to/testing-your-code.md"))
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:randomly", str(page))
    argv = [sys.executable, "-m", "pytest", *options]
    ran = shared_fork_server().run(argv, os.environ, None, 60)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout


#: What differs on purpose: how a call is stopped, and on which thread a callback is called.
_OWN_WORDS = {"close", "replay"}


@pytest.mark.parametrize(
    ("plain", "asynchronous"),
    [(Producer, AsyncProducer), (Job, AsyncJob), (Operator, AsyncOperator)],
)
def test_the_documentation_of_plain_methods_is_as_whole_as_that_of_asynchronous_ones(
    plain: type[Any], asynchronous: type[Any]
) -> None:
    for name in set(surface(plain)) - _OWN_WORDS:
        assert inspect.getdoc(getattr(plain, name)) == inspect.getdoc(getattr(asynchronous, name))
