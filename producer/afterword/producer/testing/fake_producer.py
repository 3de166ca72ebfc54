"""The fake producers, and what a test says to them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from afterword.producer.client.async_client import AsyncProducer
from afterword.producer.client.blocking import BlockingJobService
from afterword.producer.client.memory_calls import Owner
from afterword.producer.client.sync_client import Producer
from afterword.producer.portal import Runner
from afterword.producer.testing.clock import STANDS_STILL, FakeClock
from afterword.producer.testing.fake_job_service import FakeJobService
from afterword.producer.testing.script import Answers, Script
from afterword.shared.arguments import Id, Limit, checked
from afterword.shared.contracts import ChatRequest, Text
from afterword.shared.errors import NotAccepted
from afterword.shared.settings import Settings

Result = TypeVar("Result")


class _Scripted:
    """What a test may do with a fake that no producer can."""

    _fake: FakeJobService

    @property
    def clock(self) -> FakeClock:
        """The clock that all delays, limits and retention times of the fake are measured on."""
        return self._fake.clock

    @property
    def requests(self) -> list[ChatRequest]:
        """The requests that were accepted, in order; one for each job."""
        return list(self._fake.requests)

    @checked
    def reply_with(self, answers: Answers, *, user_id: Id | None = None) -> None:
        """Answer the requests that follow in this way, instead of as before.

        Args:
            answers: one answer for every request; a sequence with an answer for each request in
                turn, which fails with `AssertionError` once it is used up; or a function of the
                `ChatRequest`.
            user_id: the user whose requests are meant; everybody's if omitted.

        """
        self._fake.script.reply_with(answers, user_id=user_id)

    @checked
    def refuse_with(
        self, error: NotAccepted, *, times: Limit = 1, user_id: Id | None = None
    ) -> None:
        """Raise an error from the next `times` submits, of one user or of everybody.

        Nothing is accepted then, as if the queue were full (`QueueFull`) or Redis were away
        (`LedgerUnavailable`). While Redis is away for everybody, `ping` raises the error as well.
        """
        self._fake.script.refuse_with(error, times=times, user_id=user_id)

    @checked
    def remember(self, user_id: Id, text: Text, *, tenant: Id = "default") -> str:
        """Put a memory of a user there, as if it had been stored before; return its id.

        Turns that reach the state `stored` put one there by themselves: what the user said.
        """
        owner, at = Owner(tenant, user_id), self._fake.now()
        with self._fake.lock:
            return self._fake.memories.store(owner, text, at).id

    def assert_submitted(self, **fields: Any) -> ChatRequest:
        """Return the newest accepted request with these fields; fail if there is none."""
        for request in reversed(self._fake.requests):
            if all(getattr(request, name) == value for name, value in fields.items()):
                return request
        raise AssertionError(f"no request with {fields}; there were {self._fake.requests}")

    def assert_nothing_submitted(self) -> None:
        """Fail if a request was accepted."""
        if self._fake.requests:
            raise AssertionError(f"there were requests: {self._fake.requests}")


class FakeProducer(_Scripted, Producer):
    """A `Producer` for tests: jobs live in memory, and a script answers them.

    It validates, refuses, orders and ends jobs as the real one does. Waiting for a job moves its
    clock to the time of the reply, so that no test ever sleeps.

    Args:
        answers: what to reply, see `reply_with`; an echo of the message if omitted.
        clock: the clock to use; one that starts on 1 January 2026 if omitted.
        settings: limits and retention times; the defaults if omitted. The environment is not read.

    """

    @checked
    def __init__(
        self,
        answers: Answers | None = None,
        *,
        clock: FakeClock | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._fake = _service(answers, clock, settings)
        self._service = BlockingJobService(lambda: self._fake, lambda: _InlineRunner(self._fake))


class FakeAsyncProducer(_Scripted, AsyncProducer):
    """An `AsyncProducer` for tests: jobs live in memory, and a script answers them.

    It validates, refuses, orders and ends jobs as the real one does. Waiting for a job moves its
    clock to the time of the reply, after other tasks had their turn, so that no test ever sleeps.

    Args:
        answers: what to reply, see `reply_with`; an echo of the message if omitted.
        clock: the clock to use; one that starts on 1 January 2026 if omitted.
        settings: limits and retention times; the defaults if omitted. The environment is not read.

    """

    @checked
    def __init__(
        self,
        answers: Answers | None = None,
        *,
        clock: FakeClock | None = None,
        settings: Settings | None = None,
    ) -> None:
        self._fake = _service(answers, clock, settings)
        self._service = self._fake


def _service(
    answers: Answers | None, clock: FakeClock | None, settings: Settings | None
) -> FakeJobService:
    script = Script()
    if answers is not None:
        script.reply_with(answers, user_id=None)
    return FakeJobService(settings or Settings(), clock or FakeClock(), script)


class _InlineRunner(Runner):
    """Runs coroutines in the calling thread: those of a fake service never have to wait."""

    def __init__(self, service: FakeJobService) -> None:
        super().__init__()
        self._lock = service.lock
        self._closed = False

    def call(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        """Run a coroutine to its end."""
        with self._lock:
            try:
                while coroutine.send(None) is None:  # a turn for other tasks; here are none
                    pass
            except StopIteration as end:
                result: Result = end.value
                return result
            coroutine.close()
        raise RuntimeError(STANDS_STILL)

    def make(self, build: Callable[[], Result]) -> Result:
        """Run a plain function."""
        return build()

    @property
    def closed(self) -> bool:
        """True once `close` was called."""
        return self._closed

    def close(self) -> None:
        """Run nothing any more."""
        self._closed = True
