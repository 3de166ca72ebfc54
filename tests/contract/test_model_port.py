"""The contract of the model port: one suite for the fake and for Claude over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Protocol

import pytest

from afterword.shared.contracts import StopDetails, Usage
from afterword.shared.errors import BadAnswer, Fault, ProviderError, Unavailable
from afterword.workers.adapters.claude.client import Claude
from afterword.workers.ports import Answer, ChatMessage, Model, Prompt
from tests.kit.claude_api.scripted_answers import ClaudeAnswer, ServerFault
from tests.kit.claude_api.server import ClaudeStandIn
from tests.kit.fakes.model import FakeModel
from tests.kit.waiting import until

#: Events of an answer before its first piece of text: the start, a ping, the block's start.
BEFORE_TEXT = 3

#: A text that must come out as it went in, however its bytes are cut.
PIECES = ("Grüße, ", "20 °C\n\n", "data: {", "\u2028🌡️ ok,")


class Stage(Protocol):
    """Lets one kind of model do what a test needs."""

    @property
    def model(self) -> Model: ...

    def answers(
        self, *pieces: str, stop_reason: str = "end_turn", stop_details: StopDetails | None = None
    ) -> None: ...

    def counts(self, usage: Usage) -> None: ...

    def goes_down(self, *pieces: str) -> None: ...

    def breaks_off(self, *pieces: str, usage: Usage | None = None) -> None: ...

    def hangs(self, *pieces: str) -> None: ...

    def open_calls(self) -> int: ...


class FakeStage:
    def __init__(self) -> None:
        self.model = FakeModel()

    def answers(
        self, *pieces: str, stop_reason: str = "end_turn", stop_details: StopDetails | None = None
    ) -> None:
        self.model.answers(*pieces, stop_reason=stop_reason, stop_details=stop_details)

    def counts(self, usage: Usage) -> None:
        self.model.answers("ok", usage=usage)

    def goes_down(self, *pieces: str) -> None:
        self.model.fails(Unavailable("overloaded"), *pieces)

    def breaks_off(self, *pieces: str, usage: Usage | None = None) -> None:
        self.model.fails(BadAnswer("truncated"), *pieces, usage=usage)

    def hangs(self, *pieces: str) -> None:
        self.model.answers(*pieces, holds=True)

    def open_calls(self) -> int:
        return self.model.open_calls


def on_the_wire(usage: Usage) -> dict[str, int]:
    """Return tokens as Claude tells them."""
    return {
        "input_tokens": usage.input,
        "output_tokens": usage.output,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation_input_tokens": usage.cache_write,
    }


class ClaudeStage:
    def __init__(self, claude: ClaudeStandIn, model: Claude) -> None:
        self._claude = claude
        self.model = model

    def answers(
        self, *pieces: str, stop_reason: str = "end_turn", stop_details: StopDetails | None = None
    ) -> None:
        details = stop_details and {"type": stop_reason, **stop_details.model_dump()}
        self._claude.will_answer(
            ClaudeAnswer(
                text="".join(pieces),
                deltas=len(pieces),
                stop_reason=stop_reason,
                stop_details=details,
            )
        )

    def counts(self, usage: Usage) -> None:
        self._claude.will_answer(ClaudeAnswer(usage=on_the_wire(usage)))

    def goes_down(self, *pieces: str) -> None:
        midway = self._after(ServerFault.ERROR_EVENT, pieces, error_type="overloaded_error")
        self._claude.will_answer(midway if pieces else ClaudeAnswer(status=529))

    def breaks_off(self, *pieces: str, usage: Usage | None = None) -> None:
        cut = self._after(ServerFault.TRUNCATE, pieces)
        self._claude.will_answer(replace(cut, usage=on_the_wire(usage or Usage())))

    def hangs(self, *pieces: str) -> None:
        self._claude.will_answer(self._after(ServerFault.STALL, pieces))

    def open_calls(self) -> int:
        return self._claude.in_flight

    def _after(
        self, fault: ServerFault, pieces: tuple[str, ...], error_type: str | None = None
    ) -> ClaudeAnswer:
        """Send the pieces, then let the fault happen before the rest."""
        return ClaudeAnswer(
            text="".join(pieces) + "rest",
            deltas=len(pieces) + 1,
            fault=fault,
            at=BEFORE_TEXT + len(pieces),
            error_type=error_type,
        )


@pytest.fixture(params=["fake", "claude"])
async def stage(request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    if request.param == "fake":
        yield FakeStage()
        return
    async with ClaudeStandIn() as claude:
        model = Claude(
            api_key="key", base_url=claude.url, connections=20,
            total_s=20, first_event_s=20, idle_s=20,
        )  # fmt: skip
        yield ClaudeStage(claude, model)
        await model.aclose()


def prompt(text: str = "What is warm?") -> Prompt:
    return Prompt(
        system=("Be brief.", "The user prefers Celsius."),
        messages=(
            ChatMessage("user", "Hi"),
            ChatMessage("assistant", "Hello"),
            ChatMessage("user", text),
        ),
        model="claude-sonnet-5-5",
        max_tokens=100,
        user_tag="tag",
    )


async def hear(model: Model, items: list[str | Answer], text: str = "What is warm?") -> None:
    """Collect what a model yields until it ends or fails."""
    async with aclosing(model.stream_answer(prompt(text))) as answering:
        async for item in answering:
            items.append(item)  # noqa: PERF401 what came before an error counts


async def told(model: Model, text: str = "What is warm?") -> tuple[list[str], Answer]:
    """Return the pieces of an answer, and the answer, which must come last."""
    items: list[str | Answer] = []
    await hear(model, items, text)
    *pieces, answer = items
    assert isinstance(answer, Answer)
    return [piece for piece in pieces if isinstance(piece, str)], answer


async def whole(model: Model, text: str = "What is warm?") -> Answer:
    return (await told(model, text))[1]


async def failure(model: Model) -> tuple[str, ProviderError]:
    """Return what was yielded before the error, and the error."""
    items: list[str | Answer] = []
    with pytest.raises(ProviderError) as caught:
        await hear(model, items)
    return "".join(piece for piece in items if isinstance(piece, str)), caught.value


async def tokens_told(model: Model) -> list[Usage]:
    """Return what is told of an answer's tokens, whether it ends or fails."""
    told: list[Usage] = []
    with suppress(ProviderError):
        async with aclosing(model.stream_answer(prompt(), told.append)) as answering:
            async for _ in answering:
                pass
    return told


async def test_an_answer_is_its_pieces_joined_and_comes_last(stage: Stage) -> None:
    stage.answers(*PIECES)
    pieces, answer = await told(stage.model)
    assert "".join(pieces) == answer.text == "".join(PIECES)
    assert len(pieces) == len(PIECES), "it must stream"
    assert all(pieces), "an empty piece says nothing"


async def test_the_answer_names_the_model(stage: Stage) -> None:
    stage.answers("ok")
    assert (await whole(stage.model)).model == "claude-sonnet-5-5"


@pytest.mark.parametrize(
    "reason", ["end_turn", "max_tokens", "stop_sequence", "pause_turn", "refusal", "brand_new"]
)
async def test_every_stop_reason_passes_through(stage: Stage, reason: str) -> None:
    stage.answers("some text", stop_reason=reason)
    assert (await whole(stage.model)).stop_reason == reason


async def test_a_refusal_may_be_empty(stage: Stage) -> None:
    stage.answers(stop_reason="refusal")
    pieces, answer = await told(stage.model)
    assert (pieces, answer.text, answer.stop_reason) == ([], "", "refusal")


@pytest.mark.finding(3)
async def test_a_refusal_says_why(stage: Stage) -> None:
    details = StopDetails(category="bio", explanation="It could do harm.")
    stage.answers("some text", stop_reason="refusal", stop_details=details)
    assert (await whole(stage.model)).stop_details == details


async def test_tokens_are_counted(stage: Stage) -> None:
    usage = Usage(input=11, output=22, cache_read=33, cache_write=44)
    stage.counts(usage)
    assert (await whole(stage.model)).usage == usage


async def test_tokens_are_told_before_the_answer_is_whole(stage: Stage) -> None:
    usage = Usage(input=11, output=22, cache_read=33, cache_write=44)
    stage.counts(usage)
    told = await tokens_told(stage.model)
    assert told[0] == usage.model_copy(update={"output": told[0].output})
    assert told[0].output <= told[-1].output
    assert told[-1] == usage


async def test_what_a_cut_answer_used_is_told(stage: Stage) -> None:
    stage.breaks_off("one ", "two ", usage=Usage(input=11))
    assert (await tokens_told(stage.model))[-1].input == 11


async def test_an_outage_before_the_first_piece_is_the_fault_of_the_provider(stage: Stage) -> None:
    stage.goes_down()
    said, error = await failure(stage.model)
    assert (said, type(error), error.fault) == ("", Unavailable, Fault.PROVIDER)


async def test_an_outage_in_the_middle_is_the_fault_of_the_provider(stage: Stage) -> None:
    stage.goes_down("one ", "two ")
    said, error = await failure(stage.model)
    assert (said, type(error)) == ("one two ", Unavailable)


async def test_a_truncated_answer_is_an_error(stage: Stage) -> None:
    stage.breaks_off("one ", "two ")
    said, error = await failure(stage.model)
    assert (said, type(error), error.code) == ("one two ", BadAnswer, "truncated")


async def test_after_a_failure_the_next_one_goes_on(stage: Stage) -> None:
    stage.goes_down("one ")
    stage.answers("fine")
    await failure(stage.model)
    assert (await whole(stage.model)).text == "fine"


async def test_closing_the_generator_ends_the_call(stage: Stage) -> None:
    stage.hangs("one ")
    answering = stage.model.stream_answer(prompt())
    assert await anext(answering) == "one "
    assert stage.open_calls() == 1
    await answering.aclose()
    await until(lambda: stage.open_calls() == 0, "the call has ended")


async def test_cancelling_the_reader_ends_the_call(stage: Stage) -> None:
    stage.hangs("one ")
    heard = asyncio.Event()

    async def read() -> None:
        async with aclosing(stage.model.stream_answer(prompt())) as answering:
            async for _ in answering:
                heard.set()

    reader = asyncio.create_task(read())
    await heard.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    await until(lambda: stage.open_calls() == 0, "the call has ended")


async def test_answers_side_by_side_do_not_mix(stage: Stage) -> None:
    texts = [f"message number {number}" for number in range(10)]
    answers = await asyncio.gather(*(whole(stage.model, text) for text in texts))
    for text, answer in zip(texts, answers, strict=True):
        assert text in answer.text
        assert sum(other in answer.text for other in texts) == 1


async def test_closing_twice_is_harmless(stage: Stage) -> None:
    await whole(stage.model)
    await stage.model.aclose()
    await stage.model.aclose()
