"""Anthropic's prompt cache, as documented: what of a request is read, written and neither."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.kit.claude_api import wire_format as wire

#: An entry that is not used for so long is gone.
TTL_S = 300.0

#: How many blocks before a marker are looked at, that of the marker included.
LOOKBACK = 20

MOST_MARKERS = 4

#: The shortest prefix that is cached, in tokens, by how the model's name begins.
_LEAST_TOKENS = {"claude-haiku-5-5": 512}
_USUAL_LEAST_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class _Prefix:
    """A request up to the end of one of its blocks."""

    digest: bytes
    tokens: int
    marked: bool


@dataclass(slots=True)
class PromptCache:
    """Keeps prefixes that end in a marker, each for `TTL_S` seconds after its last use."""

    now: Callable[[], float] = time.monotonic
    _ends: dict[bytes, float] = field(default_factory=dict)

    def usage(self, body: wire.Json) -> dict[str, int]:
        """Return the three input counts of one request, and keep what it marks."""
        prefixes = list(_prefixes(body))
        least = _least_tokens(str(body.get("model")))
        markers = [at for at, one in enumerate(prefixes) if one.marked and one.tokens >= least]
        read = max((self._found(prefixes, at) for at in markers), default=0)
        for at in markers:
            self._ends[prefixes[at].digest] = self.now() + TTL_S
        written = max(prefixes[markers[-1]].tokens - read, 0) if markers else 0
        total = prefixes[-1].tokens if prefixes else 0
        return {
            "input_tokens": total - read - written,
            "cache_creation_input_tokens": written,
            "cache_read_input_tokens": read,
        }

    def _found(self, prefixes: list[_Prefix], marker: int) -> int:
        """Return the tokens of the longest prefix that is kept, looking back from a marker."""
        for prefix in reversed(prefixes[max(0, marker + 1 - LOOKBACK) : marker + 1]):
            if self._ends.get(prefix.digest, 0.0) > self.now():
                self._ends[prefix.digest] = self.now() + TTL_S
                return prefix.tokens
        return 0


def markers(body: wire.Json) -> int:
    """Return how many markers a request has; more than `MOST_MARKERS` are refused."""
    return sum("cache_control" in block for _, block in _blocks(body))


def _least_tokens(model: str) -> int:
    known = (least for name, least in _LEAST_TOKENS.items() if model.startswith(name))
    return next(known, _USUAL_LEAST_TOKENS)


def _prefixes(body: wire.Json) -> Iterator[_Prefix]:
    digest = hashlib.sha256(wire.encoded(body.get("model")))
    tokens = 0
    for place, block in _blocks(body):
        told = {name: value for name, value in block.items() if name != "cache_control"}
        digest.update(wire.encoded([place, told]))
        tokens += wire.tokens(told["text"] if "text" in told else wire.encoded(told).decode())
        yield _Prefix(digest.digest(), tokens, "cache_control" in block)


def _blocks(body: wire.Json) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Return all blocks in the order of the cache, each with the place where it stands."""
    yield from (("tool", tool) for tool in body.get("tools", ()))
    yield from (("system", block) for block in _listed(body.get("system", ())))
    for at, message in enumerate(body.get("messages", ())):
        place = f"{at} {message['role']}"
        yield from ((place, block) for block in _listed(message["content"]))


def _listed(content: Any) -> list[Mapping[str, Any]]:
    """Return content as blocks: a plain text is one block."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
