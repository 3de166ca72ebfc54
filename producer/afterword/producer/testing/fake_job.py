"""One job of a fake producer: the steps that its answer takes, and what they have made of it."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from afterword.producer.testing.script import FakeFailure, FakeReply
from afterword.shared.contracts import (
    REFUSAL,
    ChatRequest,
    Event,
    MemoryUsed,
    Recalled,
    Reply,
    Timings,
    Usage,
)
from afterword.shared.lifecycle import JobState, TurnState
from afterword.shared.tokens import estimated_tokens


@dataclass(frozen=True, slots=True)
class Step:
    """Something that happens to a job, at so many seconds of the fake clock."""

    at_s: float
    type: Literal["started", "restart", "recalled", "delta", "end", "turn"]
    text: str = ""


@dataclass(slots=True)
class FakeJob:
    """A job and the steps that are still to come. `recalls` is false if memory is off.

    `number` begins the ids of its events: no other job of the fake has the same.
    """

    id: str
    number: int
    request: ChatRequest
    answer: FakeReply | FakeFailure
    created_s: float
    deadline_s: float
    recalls: bool
    state: JobState = JobState.QUEUED
    turn: TurnState = field(init=False)
    turn_code: str | None = None
    attempts: int = 0
    code: str | None = None
    reply: Reply | None = None
    usage: Usage = field(default_factory=Usage)
    started_s: float = math.inf
    first_text_s: float = math.inf
    ended_s: float = math.inf
    events: list[Event] = field(default_factory=list)
    steps: deque[Step] = field(default_factory=deque)

    def __post_init__(self) -> None:
        self.turn = TurnState.AWAITED if self.remembers else TurnState.NONE

    @property
    def remembers(self) -> bool:
        """Whether the turn goes into memory once there is a reply."""
        return self.recalls and self.request.remember

    @property
    def conversation(self) -> tuple[str, str, str] | None:
        """What identifies the job's conversation."""
        request = self.request
        if request.conversation_id is None:
            return None
        return request.tenant, request.user_id, request.conversation_id

    @property
    def due_s(self) -> float:
        """When the next thing happens to the job."""
        at_s = self.steps[0].at_s if self.steps else math.inf
        return at_s if self.state.terminal else min(at_s, self.deadline_s)

    def exported(self) -> dict[str, Any]:
        """Return the job as an export holds it."""
        record = {
            "body": json.loads(self.request.body()),
            "reply": self.reply and self.reply.model_dump(mode="json"),
            "state": self.state.value,
            "turn": self.turn.value,
        }
        events = [event.model_dump(mode="json", exclude_none=True) for event in self.events]
        return {"job_id": self.id, "record": record, "events": events, "idempotency": []}

    def start(self, at_s: float) -> None:
        """Let a worker take the job on."""
        self.started_s = at_s
        self.steps.extend(_steps(self.answer, at_s))

    @property
    def has_no_text(self) -> bool:
        """Whether nothing of the reply has been published in this attempt."""
        return not (self.events and self.events[-1].type in ("delta", "recalled"))

    def join(self, request: ChatRequest, answer: FakeReply | FakeFailure, at_s: float) -> None:
        """Let the job answer a longer message; if it runs, its attempt begins anew."""
        self.request, self.answer = request, answer
        if self.state is JobState.RUNNING:
            self.steps.clear()
            self.attempts -= 1
            first, *others = _steps(answer, at_s)
            self.steps.extend([replace(first, type="restart"), *others])

    def take_step(self) -> None:
        """Let the next thing happen."""
        if not self.steps or (not self.state.terminal and self.deadline_s < self.steps[0].at_s):
            self.end_without_reply(self.deadline_s, JobState.EXPIRED, "deadline")
            return
        step = self.steps.popleft()
        match step.type:
            case "started" | "restart":
                self.state, self.attempts = JobState.RUNNING, self.attempts + 1
                self._count_attempt_without_reply()
                self.first_text_s = math.inf
                self._publish(step.type)
            case "recalled":
                self._publish("recalled", **dict(self._recalled()))
            case "delta":
                self.first_text_s = min(self.first_text_s, step.at_s)
                self._publish("delta", text=step.text)
            case "turn":
                self._settle_turn()
            case "end":
                self._end(step.at_s)

    def end_without_reply(self, at_s: float, state: JobState, code: str) -> None:
        """End the job, and drop its turn; what was said in a cancelled one is remembered."""
        self._count_attempt_without_reply()
        self.state, self.code, self.ended_s = state, code, at_s
        self.turn = TurnState.NONE
        self.steps.clear()
        if state is JobState.CANCELLED:
            self._remember(at_s)
        self._publish("failed", state=state, code=code)

    def _end(self, at_s: float) -> None:
        if isinstance(self.answer, FakeFailure):
            self.end_without_reply(at_s, JobState.FAILED, self.answer.code)
            return
        self.state, self.ended_s = JobState.SUCCEEDED, at_s
        self.reply = self._reply(self.answer)
        self.usage += self.reply.usage
        self._publish("final", reply=self.reply)
        if self.reply.not_remembered is None:
            self._remember(at_s)
        elif self.remembers:
            self.turn, self.turn_code = TurnState.SKIPPED, self.reply.not_remembered

    def _remember(self, at_s: float) -> None:
        if self.remembers:
            self.turn = TurnState.PENDING
            delay_s = self.answer.turn_delay_s if isinstance(self.answer, FakeReply) else 0.0
            self.steps.append(Step(at_s + delay_s, "turn"))

    def _settle_turn(self) -> None:
        answer = self.answer if isinstance(self.answer, FakeReply) else FakeReply()
        self.turn, self.turn_code = answer.turn, answer.turn_code

    def _recalled(self) -> Recalled:
        given = self.answer if isinstance(self.answer, FakeReply) else FakeReply()
        memory = given.memory or ("fresh" if self.recalls else "off")
        return Recalled(memory=memory, memories=tuple(_memories(given)))

    def _not_remembered(self, answer: FakeReply) -> str | None:
        if not self.remembers:
            return "memory_off" if self.request.remember else "opted_out"
        if answer.stop_reason == REFUSAL:
            return REFUSAL
        return (answer.turn_code or "pleasantry") if answer.turn is TurnState.SKIPPED else None

    def _reply(self, answer: FakeReply) -> Reply:
        queued, total = self._since_ms(self.started_s), self._since_ms(self.ended_s)
        no_text = math.isinf(self.first_text_s)
        first_text = None if no_text else self._since_ms(self.first_text_s)
        return Reply(
            job_id=self.id,
            user_id=self.request.user_id,
            conversation_id=self.request.conversation_id,
            text=answer.text,
            stop_reason=answer.stop_reason,
            stop_details=answer.stop_details,
            model=answer.model or self.request.model or "fake-model",
            usage=answer.usage
            or Usage(input=self._input_tokens, output=estimated_tokens(answer.text)),
            **dict(self._recalled()),
            not_remembered=self._not_remembered(answer),
            attempts=self.attempts,
            timings_ms=Timings(
                queued=queued, recall=0, model=total - queued, total=total, first_text=first_text
            ),
        )

    @property
    def _input_tokens(self) -> int:
        return estimated_tokens(self.request.message)

    def _count_attempt_without_reply(self) -> None:
        """Count what a model tells before its first text; it tells its output at the end only."""
        if not math.isinf(self.first_text_s):
            self.usage += Usage(input=self._input_tokens)

    def _since_ms(self, at_s: float) -> int:
        return int(1000 * (at_s - self.created_s))

    def _publish(self, event_type: str, **fields: object) -> None:
        event = {
            "id": f"{self.number}-{len(self.events)}",
            "type": event_type,
            "attempt": self.attempts,
        }
        self.events.append(Event.model_validate(event | fields))


def _steps(answer: FakeReply | FakeFailure, at_s: float) -> Iterator[Step]:
    pieces = answer.pieces()
    half = pieces[: len(pieces) // 2]
    texts = [*(half for _ in range(answer.restarts)), pieces]
    count = sum(map(len, texts)) + len(texts)
    times = iter(at_s + answer.delay_s * number / count for number in range(1, count + 1))
    if math.isinf(answer.delay_s):
        yield Step(at_s, "started")
        return
    for attempt, deltas in enumerate(texts):
        yield Step(at_s if attempt == 0 else next(times), "restart" if attempt else "started")
        for number, text in enumerate(deltas):
            now_s = next(times)
            if number == 0:
                yield Step(now_s, "recalled")
            yield Step(now_s, "delta", text)
    if not pieces and isinstance(answer, FakeReply):
        yield Step(at_s + answer.delay_s, "recalled")
    yield Step(at_s + answer.delay_s, "end")


def _memories(answer: FakeReply) -> Iterator[MemoryUsed]:
    for number, memory in enumerate(answer.memories, 1):
        if isinstance(memory, str):
            yield MemoryUsed(id=f"memory-{number}", text=memory, score=1.0)
        else:
            yield memory
