"""The steps of the ledger: a Lua file each, with what all of them share in front."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

#: The root of the shard where a step is to be taken, and its arguments.
Call: TypeAlias = tuple[str, Sequence[str | float]]

_LUA = Path(__file__).with_name("lua")

#: Steps that only add. A Redis at its `maxmemory` refuses their first write; all others may go on,
#: or what is open could never end and nothing would ever be freed.
_GROWING = frozenset({"submit", "replay"})
_MAY_GO_ON = "#!lua flags=allow-oom\n"

#: Steps that one command can take many times, and where they stand in `together.lua`.
_TOGETHER = frozenset({"submit"})
_PLACE = "--<< the step\n"

#: Times of one command at most: others wait that long for Redis.
_MOST = 16


class Script:
    """One step: its text, the name by which Redis knows it, and how it is called."""

    def __init__(self, name: str) -> None:
        head = "" if name in _GROWING else _MAY_GO_ON
        text = _lua(name)
        self._together = name in _TOGETHER
        if self._together:
            text = _lua("together").replace(_PLACE, text)
        self.text = head + _lua("ledger") + text
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        #: How often one command may take it.
        self.most = _MOST if self._together else 1

    def arguments(self, calls: Sequence[Call]) -> Iterator[str | float]:
        """Yield what Redis is told behind the script's name, for at most `most` calls of a shard.

        The first argument is the same for all of them, and all have as many.
        """
        root, first = calls[0]
        if not self._together:
            return chain((1, root), first)
        each = chain.from_iterable(arguments[1:] for _, arguments in calls)
        return chain((1, root, first[0], len(calls)), each)

    def answers(self, reply: Any) -> list[Any]:
        """Return the answer to each call."""
        return list(reply) if self._together else [reply]


@cache
def script(name: str) -> Script:
    """Return the script of that name, read once."""
    return Script(name)


def _lua(name: str) -> str:
    return (_LUA / f"{name}.lua").read_text()
