"""What a fake producer answers: replies and failures, in order, by a function, or for one user."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import KW_ONLY
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field

from afterword.shared.arguments import Seconds, checked_record
from afterword.shared.contracts import (
    ChatRequest,
    MemoryStatus,
    MemoryUsed,
    StopDetails,
    Usage,
    refuse,
)
from afterword.shared.errors import (
    InvalidRequest,
    LedgerUnavailable,
    NotAccepted,
    NotReplicated,
)
from afterword.shared.lifecycle import TurnState


def _delay(value: float) -> float:
    if not value >= 0:
        raise refuse("must be a number of seconds, or math.inf")
    return value


@checked_record
class FakeReply:
    """A reply, and how it comes about."""

    text: str = "This is a fake reply."
    """The text of the reply."""

    _: KW_ONLY

    deltas: Sequence[str] | None = None
    """The pieces that are streamed, which make up `text`; one for each word if omitted."""

    delay_s: Annotated[float, AfterValidator(_delay)] = 0.0
    """Seconds on the fake clock from the start of the job to its end. The deltas are spread over
    them. `math.inf` for a reply that never comes."""

    restarts: Annotated[int, Field(ge=0, le=1000)] = 0
    """How many attempts fail in their middle before one succeeds. Each streams the first half of
    the deltas and is followed by a `restart`."""

    memory: MemoryStatus | None = None
    """`Reply.memory`; `fresh`, or `off` if the settings switch memory off, if omitted."""

    memories: Sequence[str | MemoryUsed] = ()
    """`Reply.memories`, as texts or whole."""

    stop_reason: str = "end_turn"
    """`Reply.stop_reason`."""

    stop_details: StopDetails | None = None
    """`Reply.stop_details`."""

    model: str | None = None
    """`Reply.model`; that of the request, or `fake-model`, if omitted."""

    usage: Usage | None = None
    """`Reply.usage`; estimated from the message and the text if omitted."""

    turn: TurnState = TurnState.STORED
    """The state that the turn reaches after the reply; it is `pending` before. A turn that is
    `skipped` is so with the reply."""

    turn_code: str | None = None
    """`JobStatus.turn_code` in that state; also `Reply.not_remembered` of a turn that is
    `skipped`, which is `pleasantry` if omitted."""

    turn_delay_s: Seconds = 0.0
    """Seconds from the reply to that state."""

    def __post_init__(self) -> None:
        if self.deltas is not None and "".join(self.deltas) != self.text:
            raise InvalidRequest("deltas", "must make up the text")

    def pieces(self) -> Sequence[str]:
        """Return the deltas: as given, or one for each word."""
        return re.findall(r"\s*\S+\s*|\s+", self.text) if self.deltas is None else self.deltas


@checked_record
class FakeFailure:
    """The end of a job without a reply: `wait` raises `JobFailed` with this code."""

    code: str = "invalid_request"
    """`JobFailed.code`."""

    _: KW_ONLY

    deltas: Sequence[str] = ()
    """Pieces that are streamed before the failure."""

    delay_s: Annotated[float, AfterValidator(_delay)] = 0.0
    """Seconds on the fake clock from the start of the job to its end."""

    restarts: Annotated[int, Field(ge=0, le=1000)] = 0
    """How many attempts fail before the last one, which fails as well."""

    def pieces(self) -> Sequence[str]:
        """Return the deltas."""
        return self.deltas


#: What one request gets: a text for a plain reply, or a reply or a failure with its details.
Answer: TypeAlias = str | FakeReply | FakeFailure

#: One answer for every request, an answer for each request in turn, or a function of the request.
Answers: TypeAlias = Answer | Sequence[Answer] | Callable[[ChatRequest], Answer]


class Script:
    """Chooses the answer to a request: the rule that was added last and fits it decides."""

    def __init__(self) -> None:
        self._rules: list[tuple[str | None, Callable[[ChatRequest], Answer]]] = []
        self._refusals: list[tuple[str | None, NotAccepted]] = []
        self.reply_with(_echo, user_id=None)

    def reply_with(self, answers: Answers, *, user_id: str | None) -> None:
        """Answer the requests of a user, or of every user, in this way."""
        self._rules.append((user_id, _chooser(answers)))

    def refuse_with(self, error: NotAccepted, *, times: int, user_id: str | None) -> None:
        """Refuse so many requests of a user, or of every user."""
        self._refusals += [(user_id, error)] * times

    def refusal(self, request: ChatRequest) -> NotAccepted | None:
        """Return the error that refuses a request, and use it up."""
        for position, (user_id, error) in enumerate(self._refusals):
            if user_id in (None, request.user_id):
                del self._refusals[position]
                return error
        return None

    def outage(self) -> NotAccepted | None:
        """Return the error that refuses everybody because Redis is away, and do not use it up."""
        return next(
            (
                error
                for user_id, error in self._refusals
                if user_id is None and isinstance(error, (LedgerUnavailable, NotReplicated))
            ),
            None,
        )

    def answer(self, request: ChatRequest) -> FakeReply | FakeFailure:
        """Return the answer to a request."""
        rules = reversed(self._rules)
        choose = next(choose for user, choose in rules if user in (None, request.user_id))
        answer = choose(request)
        return FakeReply(text=answer) if isinstance(answer, str) else answer


def _echo(request: ChatRequest) -> Answer:
    return f"You said: {request.message}"


def _chooser(answers: Answers) -> Callable[[ChatRequest], Answer]:
    if callable(answers):
        return answers
    if isinstance(answers, (str, FakeReply, FakeFailure)):
        return lambda _: answers
    given = list(answers)
    remaining: Iterator[Answer] = iter(given)

    def choose(_: ChatRequest) -> Answer:
        try:
            return next(remaining)
        except StopIteration:
            raise AssertionError(
                f"the fake producer was given {len(given)} answers and got one more request"
            ) from None

    return choose
