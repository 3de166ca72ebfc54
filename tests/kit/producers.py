"""Every producer, real and fake, sync and async, behind one face for the contract suite."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any, TypeAlias

from afterword.producer import (
    AfterwordError,
    AsyncJob,
    AsyncProducer,
    AsyncUserMemories,
    ChatRequest,
    Event,
    Job,
    JobStatus,
    LedgerUnavailable,
    Memory,
    MemoryPage,
    MemoryUsed,
    Producer,
    Reply,
    Settings,
    TurnState,
    UsageSum,
    UserMemories,
)
from afterword.producer.testing import FakeAsyncProducer, FakeFailure, FakeProducer, FakeReply
from tests.kit.claude_api.scripted_answers import ClaudeAnswer, ServerFault
from tests.kit.waiting import until
from tests.kit.workers.fleet import Fleet

#: Seconds on the fake clock after which a held answer would come by itself.
_HELD_S = 600.0

AnyProducer: TypeAlias = Producer | AsyncProducer
AnyJob: TypeAlias = Job | AsyncJob


class JobFace:
    """A job of either kind, awaited."""

    def __init__(self, job: AnyJob) -> None:
        self._job = job
        self.id = job.id

    def __repr__(self) -> str:
        return repr(self._job)

    async def wait(self, timeout: float = 30.0) -> Reply:
        if isinstance(self._job, AsyncJob):
            return await self._job.wait(timeout)
        return self._job.wait(timeout)

    async def status(self) -> JobStatus:
        return await self._job.status() if isinstance(self._job, AsyncJob) else self._job.status()

    async def cancel(self) -> bool:
        return await self._job.cancel() if isinstance(self._job, AsyncJob) else self._job.cancel()

    async def stream(self, after: str | None = None) -> AsyncGenerator[Event, None]:
        if isinstance(self._job, AsyncJob):
            async with aclosing(self._job.stream(after)) as events:
                async for event in events:
                    yield event
        else:
            for event in self._job.stream(after):
                yield event

    async def events(self, after: str | None = None) -> list[Event]:
        return [event async for event in self.stream(after)]


class MemoriesFace:
    """The memories of a user, of a producer of either kind, awaited."""

    def __init__(self, memories: UserMemories | AsyncUserMemories) -> None:
        self._memories = memories

    async def list(self, **said: Any) -> MemoryPage:
        found = self._memories.list(**said)
        return found if isinstance(found, MemoryPage) else await found

    async def all(self) -> Sequence[Memory]:
        if isinstance(self._memories, UserMemories):
            return [*self._memories.all()]
        return [memory async for memory in self._memories.all()]

    async def search(self, query: str, **said: Any) -> MemoryPage:
        found = self._memories.search(query, **said)
        return found if isinstance(found, MemoryPage) else await found

    async def get(self, memory_id: str, **said: Any) -> Memory:
        found = self._memories.get(memory_id, **said)
        return found if isinstance(found, Memory) else await found

    async def edit(self, memory_id: str, text: str) -> Memory:
        found = self._memories.edit(memory_id, text)
        return found if isinstance(found, Memory) else await found

    async def export(self) -> str:
        if isinstance(self._memories, UserMemories):
            return "".join(self._memories.export())
        return "".join([piece async for piece in self._memories.export()])

    async def delete(self, memory_id: str) -> None:
        if isinstance(self._memories, UserMemories):
            self._memories.delete(memory_id)
        else:
            await self._memories.delete(memory_id)


class ProducerFace:
    """A producer of either kind, awaited."""

    def __init__(self, producer: AnyProducer) -> None:
        self._producer = producer

    async def submit(self, **fields: Any) -> JobFace:
        if isinstance(self._producer, AsyncProducer):
            return JobFace(await self._producer.submit(**fields))
        return JobFace(self._producer.submit(**fields))

    async def submit_many(
        self, requests: Iterable[Mapping[str, Any] | ChatRequest]
    ) -> list[JobFace | AfterwordError]:
        results: Iterable[AnyJob | AfterwordError]
        if isinstance(self._producer, AsyncProducer):
            results = await self._producer.submit_many(requests)
        else:
            results = self._producer.submit_many(requests)
        return [one if isinstance(one, AfterwordError) else JobFace(one) for one in results]

    async def ping(self) -> None:
        if isinstance(self._producer, AsyncProducer):
            await self._producer.ping()
        else:
            self._producer.ping()

    async def usage(self, **fields: Any) -> UsageSum:
        if isinstance(self._producer, AsyncProducer):
            return await self._producer.usage(**fields)
        return self._producer.usage(**fields)

    def memories(self, user_id: str, **said: Any) -> MemoriesFace:
        return MemoriesFace(self._producer.memories(user_id, **said))

    def job(self, job_id: str) -> JobFace:
        return JobFace(self._producer.job(job_id))

    async def close(self) -> None:
        if isinstance(self._producer, AsyncProducer):
            await self._producer.aclose()
        else:
            self._producer.close()


class Stage(ABC):
    """Opens producers of one kind, and decides what their jobs are answered."""

    settings: Settings

    @abstractmethod
    def open(self, **settings: Any) -> AbstractAsyncContextManager[ProducerFace]:
        """Open a producer with some settings of its own."""

    @abstractmethod
    def answer(
        self, text: str, *, memories: Sequence[str | MemoryUsed] = (), skipped: str = ""
    ) -> None:
        """Let the next request get this text.

        A fake has to be told what is recalled for it, and why its turn is not remembered.
        """

    @abstractmethod
    def hold(self, text: str = "held") -> None:
        """Let the next request get this text once `release` was called."""

    @abstractmethod
    def fail(self) -> None:
        """Let the next request be refused by the provider."""

    @abstractmethod
    def restart(self, text: str) -> None:
        """Let the next request get this text in its second attempt, and half of it in its first."""

    @abstractmethod
    def no_redis(self) -> AbstractAsyncContextManager[ProducerFace]:
        """Open a producer whose Redis is away."""

    @abstractmethod
    async def all_held(self, count: int) -> None:
        """Wait until so many answers are held."""

    @abstractmethod
    def release(self) -> None:
        """Let what is held go on."""

    @abstractmethod
    def forget(self) -> None:
        """Begin anew, for the next test."""


class RealStage(Stage):
    """Producers before a real Valkey, a real worker, and a Claude stand-in that is scripted."""

    def __init__(self, kind: type[AnyProducer], fleet: Fleet) -> None:
        self._kind = kind
        self._fleet = fleet
        self.settings = fleet.settings

    @asynccontextmanager
    async def open(self, **settings: Any) -> AsyncIterator[ProducerFace]:
        producer = ProducerFace(self._kind(self.settings.model_copy(update=settings)))
        try:
            yield producer
        finally:
            await producer.close()

    def answer(
        self, text: str, *, memories: Sequence[str | MemoryUsed] = (), skipped: str = ""
    ) -> None:
        self._fleet.claude.will_answer(ClaudeAnswer(text=text))

    def hold(self, text: str = "held") -> None:
        self._fleet.claude.will_answer(ClaudeAnswer(text=text, hold=True))

    def fail(self) -> None:
        self._fleet.claude.will_answer(ClaudeAnswer(status=400))

    def restart(self, text: str) -> None:
        cut = ClaudeAnswer(text=text, fault=ServerFault.TRUNCATE, at=6)
        self._fleet.claude.will_answer(cut, ClaudeAnswer(text=text))

    @asynccontextmanager
    async def no_redis(self) -> AsyncIterator[ProducerFace]:
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))  # and does not listen
            url = f"redis://127.0.0.1:{deaf.getsockname()[1]}"
            async with self.open(redis_url=url, submit_timeout_s=0.5) as producer:
                yield producer

    async def all_held(self, count: int) -> None:
        await until(lambda: self._fleet.claude.held() == count, f"{count} answers are held")

    def release(self) -> None:
        self._fleet.claude.release()

    def forget(self) -> None:
        self._fleet.claude.forget()
        self._fleet.claude.release()


class FakeStage(Stage):
    """Fakes, with the same settings as the real ones but for a Redis."""

    def __init__(
        self, kind: type[FakeProducer | FakeAsyncProducer], settings: Settings | None = None
    ) -> None:
        self._kind = kind
        self.settings = settings or Settings(memory="off")
        self._answers: list[FakeReply | FakeFailure] = []
        self._opened: list[FakeProducer | FakeAsyncProducer] = []

    @asynccontextmanager
    async def open(self, **settings: Any) -> AsyncIterator[ProducerFace]:
        fake = self._kind(self._next, settings=self.settings.model_copy(update=settings))
        self._opened.append(fake)
        if isinstance(fake, AsyncProducer):
            async with fake:
                yield ProducerFace(fake)
        else:
            with fake:
                yield ProducerFace(fake)

    def answer(
        self, text: str, *, memories: Sequence[str | MemoryUsed] = (), skipped: str = ""
    ) -> None:
        turn = TurnState.SKIPPED if skipped else TurnState.STORED
        self._answers.append(
            FakeReply(text, memories=memories, turn=turn, turn_code=skipped or None)
        )

    def hold(self, text: str = "held") -> None:
        self._answers.append(FakeReply(text, delay_s=_HELD_S))

    def fail(self) -> None:
        self._answers.append(FakeFailure("rejected"))

    def restart(self, text: str) -> None:
        self._answers.append(FakeReply(text, restarts=1))

    @asynccontextmanager
    async def no_redis(self) -> AsyncIterator[ProducerFace]:
        async with self.open() as producer:
            error = LedgerUnavailable("AFTERWORD_REDIS_URL: refused", cause="refused")
            self._opened[-1].refuse_with(error, times=2)
            yield producer

    async def all_held(self, count: int) -> None:
        """Do nothing: on a clock that stands still, all are."""

    def release(self) -> None:
        for fake in self._opened:
            fake.clock.advance(_HELD_S)

    def forget(self) -> None:
        self._answers.clear()
        self._opened.clear()

    def _next(self, request: ChatRequest) -> FakeReply | FakeFailure:
        return self._answers.pop(0) if self._answers else FakeReply(f"You said: {request.message}")
