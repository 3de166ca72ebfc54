"""The facts of a turn: mem0's question put to Claude, and its answer taken strictly."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC
from typing import Any

from afterword.shared.errors import BadAnswer
from afterword.workers.adapters.mem0.add_context import AddContext, current, step
from afterword.workers.ports import Answer, Model, Prompt, Say, Turn

#: Room for the facts of one turn, and for what the model thinks before it writes them.
MOST_TOKENS = 8192

_ENDS = ("end_turn", "stop_sequence")
_CUT = {"max_tokens": "extraction_truncated", "refusal": "extraction_refused"}


class Extractor:
    """Stands where mem0 wants a language model; asks ours, on its event loop, from any thread.

    With facts noted on the turn by an earlier attempt, nothing is asked: they are paid for.
    """

    def __init__(
        self, model: Model, name: str, loop: asyncio.AbstractEventLoop, tag_key: bytes
    ) -> None:
        """Take the model, which of its models extracts, and what makes users' tags unguessable."""
        self.config = None
        self._model = model
        self._name = name
        self._loop = loop
        self._tag_key = tag_key

    def generate_response(self, messages: Sequence[Mapping[str, str]], **_: object) -> str:
        """Return the facts as JSON that mem0 cannot misread; raise a `ProviderError` otherwise."""
        with step():
            add_context = current()
            if add_context.turn.facts:
                return add_context.turn.facts
            work = self._extract(self._prompt(add_context, messages), add_context.turn)
            return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        """Close the model's connections."""
        asyncio.run_coroutine_threadsafe(self._model.aclose(), self._loop).result()

    async def _extract(self, prompt: Prompt, turn: Turn) -> str:
        answers = [part async for part in self._model.ask(prompt) if isinstance(part, Answer)]
        facts = facts_in(answers[-1])
        if turn.note_facts is not None:
            await turn.note_facts(facts)
        return facts

    def _prompt(self, add_context: AddContext, messages: Sequence[Mapping[str, str]]) -> Prompt:
        told = [(message["role"], message["content"]) for message in messages]
        tag = hmac.new(self._tag_key, add_context.owner.encode(), hashlib.sha256).hexdigest()[:32]
        return Prompt(
            system=tuple(text for role, text in told if role == "system"),
            messages=tuple(Say("user", text) for role, text in told if role != "system"),
            model=self._name,
            max_tokens=MOST_TOKENS,
            user_tag=tag,
        )


def instructions(turn: Turn) -> str:
    """Return what mem0 cannot know of a turn: when it was written."""
    day = turn.at.astimezone(UTC).date().isoformat()
    return (
        f"These messages were written on {day}, which is their observation date and current date "
        "whatever is said above. Resolve relative dates against it."
    )


def facts_in(answer: Answer) -> str:
    """Return what an answer extracted, as JSON; raise `BadAnswer` unless it is whole and sound."""
    if answer.stop_reason not in _ENDS:
        raise _bad(_CUT.get(answer.stop_reason, "extraction_unfinished"), answer)
    found = next((each["memory"] for each in _objects(answer.text) if "memory" in each), None)
    if not isinstance(found, list) or not all(_is_fact(fact) for fact in found):
        raise _bad("extraction_malformed", answer)
    said = [fact | {"text": _storable(fact["text"])} for fact in found if _is_the_users(fact)]
    # mem0 cuts out what looks like thinking, quoted or not.
    return json.dumps({"memory": said}).replace("<", "\\u003c")


def _bad(code: str, answer: Answer) -> BadAnswer:
    return BadAnswer(code, request_id=answer.request_id)


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the outermost JSON objects in a text, be there prose or a fence around them."""
    decode = json.JSONDecoder(strict=False).raw_decode
    at = text.find("{")
    while at >= 0:
        found, end = _decoded(decode, text, at)
        if isinstance(found, dict):
            yield found
        at = text.find("{", end)


def _decoded(decode: Callable[[str, int], tuple[Any, int]], text: str, at: int) -> tuple[Any, int]:
    try:
        return decode(text, at)
    except (ValueError, RecursionError):
        return None, at + 1


def _is_fact(fact: object) -> bool:
    match fact:
        case {"text": str(text)}:
            return bool(text.strip())
        case _:
            return False


def _is_the_users(fact: Mapping[str, Any]) -> bool:
    return fact.get("attributed_to") != "assistant"


def _storable(text: str) -> str:
    """Return a text without what PostgreSQL refuses to keep."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()
