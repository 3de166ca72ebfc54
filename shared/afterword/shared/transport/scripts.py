"""The steps of the ledger: a Lua file each, with what it uses of what they share in front."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from afterword.shared.transport.connection import Command

_LUA = Path(__file__).parents[1] / "ledger" / "lua"

#: Steps that only add. A Redis at its `maxmemory` refuses their first write; all others may go on,
#: or what is open could never end and nothing would ever be freed.
_GROWING = frozenset({"job/submit", "dead_letter/replay"})
_MAY_GO_ON = "#!lua flags=allow-oom\n"

#: Steps that one command can take many times: what stands in front of them says how they write.
_TOGETHER = frozenset({"job/submit"})
_PLACE = "--<< the step\n"

#: A definition begins a line, what else it has does not, but for its end.
_DEFINITION = re.compile(r"^local .*\n(?:(?!local ).*\n)*", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z_]\w*")

#: Times of one command at most: others wait that long for Redis.
MOST = 16


class Script:
    """The text of a step, for one call or for many, and the name by which Redis knows it."""

    def __init__(self, name: str, *, many: bool = False) -> None:
        head = "" if name in _GROWING else _MAY_GO_ON
        shared, step = _definitions("_lib"), _lua(name)
        if many:
            step = _lua("batched").replace(_PLACE, step)
        elif name in _TOGETHER:
            shared += _definitions("single")
        self.text = head + "".join(_used(shared, step)) + step
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


@cache
def script(name: str, *, many: bool = False) -> Script:
    """Return the script of that name, read once."""
    return Script(name, many=many)


class Step(NamedTuple):
    """One call of a script, on the shard with that root.

    With `whole` Redis is told its text, since it does not know the name.
    """

    name: str
    root: str
    arguments: tuple[str | float, ...]
    whole: bool = False

    @property
    def company(self) -> object:
        """Return what is equal for those that can be one command; None if it goes alone."""
        if self.name not in _TOGETHER:
            return None
        # The first argument is the same for all, and all have as many.
        return self.name, self.root, self.arguments[0], len(self.arguments), self.whole


def command_of(steps: Sequence[Step]) -> Command:
    """Return the one command for steps that keep company."""
    name, root, arguments, whole = steps[0]
    step = script(name, many=len(steps) > 1)
    call = ("EVAL", step.text) if whole else ("EVALSHA", step.sha)
    if len(steps) == 1:
        return (*call, 1, root, *arguments)
    each = chain.from_iterable(one.arguments[1:] for one in steps)
    return (*call, 1, root, arguments[0], len(steps), *each)


class _Definition(NamedTuple):
    """What one or several names stand for; `words` are all that it has."""

    names: frozenset[str]
    words: frozenset[str]
    text: str


@cache
def _definitions(name: str) -> tuple[_Definition, ...]:
    """Return what a file defines for others, read once."""
    return tuple(map(_defined, _DEFINITION.findall(_without_comments(_lua(name)))))


def _defined(text: str) -> _Definition:
    names, _, _ = text.removeprefix("local ").removeprefix("function ").partition("=")
    return _Definition(_words(names.partition("(")[0]), _words(text), text)


def _used(shared: Sequence[_Definition], step: str) -> Sequence[str]:
    """Return those definitions that a step uses, and those that they use, in their order.

    Redis makes all of them anew for each call: a third of the time of a short step.
    """
    words, used = _words(_without_comments(step)), list[str]()
    for definition in reversed(shared):
        if words & definition.names:
            words |= definition.words
            used.append(definition.text)
    return used[::-1]


def _words(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text))


def _without_comments(text: str) -> str:
    return re.sub(r"--.*", "", text)


def _lua(name: str) -> str:
    return (_LUA / f"{name}.lua").read_text()
