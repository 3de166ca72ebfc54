"""The prompt cache of the Claude stand-in keeps to the rules that are documented."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kit.claude_api.prompt_cache import LOOKBACK, TTL_S, PromptCache, markers

LONG = "word " * 2000
SHORT = "hi"


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> PromptCache:
    return PromptCache(clock)


def block(text: str, *, marked: bool = False) -> dict[str, Any]:
    told: dict[str, Any] = {"type": "text", "text": text}
    return told | ({"cache_control": {"type": "ephemeral"}} if marked else {})


def body(*content: dict[str, Any], system: str = LONG, model: str = "m") -> dict[str, Any]:
    """Return a request with a marked system prompt and one message."""
    message = {"role": "user", "content": list(content) or SHORT}
    return {"model": model, "system": [block(system, marked=True)], "messages": [message]}


def counts(cache: PromptCache, asked: dict[str, Any]) -> tuple[int, int, int]:
    usage = cache.usage(asked)
    return (
        usage["cache_read_input_tokens"],
        usage["cache_creation_input_tokens"],
        usage["input_tokens"],
    )


def test_a_prefix_written_to_the_cache_is_read_by_the_next_request(cache: PromptCache) -> None:
    assert counts(cache, body()) == (0, 2501, 1)
    assert counts(cache, body()) == (2501, 0, 1)


@pytest.mark.parametrize(
    "other",
    [body(system=f"x{LONG}"), body(model="another"), body() | {"tools": [{"name": "t"}]}],
    ids=["text", "model", "tools"],
)
def test_another_beginning_is_another_prefix(cache: PromptCache, other: dict[str, Any]) -> None:
    cache.usage(body())
    assert counts(cache, other)[0] == 0


def test_a_prefix_without_cache_control_is_not_cached(cache: PromptCache) -> None:
    for _ in range(2):
        assert counts(cache, {"model": "m", "messages": [{"role": "user", "content": LONG}]}) == (
            0, 0, 2501,
        )  # fmt: skip


@pytest.mark.parametrize(("model", "kept"), [("claude-sonnet-5-5", 0), ("claude-haiku-5-5", 701)])
def test_a_short_prefix_is_not_kept(cache: PromptCache, model: str, kept: int) -> None:
    asked = body(system="word" * 700, model=model)
    cache.usage(asked)
    assert counts(cache, asked)[0] == kept


def test_an_entry_lives_on_with_every_use(cache: PromptCache, clock: Clock) -> None:
    for _ in range(3):
        cache.usage(body())
        clock.time += TTL_S - 1
    assert counts(cache, body())[0] > 0
    clock.time += TTL_S
    assert counts(cache, body())[0] == 0


def test_a_longer_prompt_reads_the_shorter_and_writes_the_rest(cache: PromptCache) -> None:
    cache.usage(body())
    assert counts(cache, body(block(LONG, marked=True), block(SHORT))) == (2501, 2501, 1)
    assert counts(cache, body(block(LONG, marked=True), block(SHORT))) == (5002, 0, 1)


@pytest.mark.parametrize(("added", "found"), [(LOOKBACK - 1, True), (LOOKBACK, False)])
def test_it_looks_back_so_many_blocks(cache: PromptCache, added: int, *, found: bool) -> None:
    """The message alone is marked: what was kept must be near its end to be found."""
    first = [block(LONG, marked=True)]
    more = [block(LONG), *(block(SHORT) for _ in range(added - 1)), block(SHORT, marked=True)]
    asked = [
        {"model": "m", "messages": [{"role": "user", "content": content}]}
        for content in (first, more)
    ]
    *_, (read, _, _) = [counts(cache, one) for one in asked]
    assert (read == 2501) is found


def test_markers_are_counted_wherever_they_stand() -> None:
    assert markers(body(block(SHORT, marked=True), block(SHORT))) == 2
