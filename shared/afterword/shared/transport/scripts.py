"""The Lua scripts: the text of each, and the commands that run them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cache
from itertools import chain
from typing import NamedTuple

from afterword.shared.transport.connection import Command
from afterword.shared.transport.signatures import (
    Arguments,
    lua_source,
    parameters,
    script_of,
    taking,
)

#: Scripts that only add. A Redis at its `maxmemory` refuses their first write; all others may go
#: on, or what is open could never end and nothing would ever be freed.
_GROWING = frozenset({"job/submit", "dead_letter/replay", "maintenance/try_write"})
_ALLOW_OOM = "#!lua flags=allow-oom\n"

#: Scripts that only read. They run wherever something can be read: on a replica, on a Redis that
#: has lost its replicas or its disk, or at its `maxmemory`.
_READING = frozenset(
    {
        "dead_letter/read",
        "gate/list",
        "maintenance/account",
        "maintenance/overview",
        "maintenance/spending",
        "message_batch/list",
        "order/list",
        "run/outcomes",
    }
)
_NO_WRITES = "#!lua flags=no-writes\n"

#: Scripts that one command can run many times, see `batched.lua` and `single.lua`.
_BATCHED = frozenset({"job/submit"})
_PLACE = "--<< the script\n"

#: Most runs of a script in one command: other commands wait that long for Redis. Sixteen of the
#: usual size take it a millisecond; those that take longer count for several.
MAX_BATCH = 16

#: A run counts once for so many bytes of a request, and so often if it joins a message to another:
#: that copies a request that may be long already.
_BYTES, _OF_MERGE = 32_768, 4

#: Where these stand among the arguments of a submit: the queues' prefix comes first.
_SUBMIT = ["prefix", *(one.name for one in parameters("job/submit"))]
_BODY, _WHEN_BUSY = _SUBMIT.index("body"), _SUBMIT.index("when_busy")

#: A definition begins a line with `local`; its other lines do not.
_DEFINITION = re.compile(r"^local .*\n(?:(?!local ).*\n)*", re.MULTILINE)
_WORD = re.compile(r"[A-Za-z_]\w*")


class Script:
    """The text of a script, for one run or for many, and the name by which Redis knows it."""

    def __init__(self, name: str, *, batched: bool = False) -> None:
        head = "" if name in _GROWING else _NO_WRITES if name in _READING else _ALLOW_OOM
        shared, step = _definitions("_lib"), taking(name) + lua_source(name)
        if batched:
            step = lua_source("batched").replace(_PLACE, step)
        elif name in _BATCHED:
            shared += _definitions("single")
        self.text = head + "".join(_used(shared, step)) + step
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()


@cache
def script(name: str, *, batched: bool = False) -> Script:
    """Return the script of that name, read once."""
    return Script(name, batched=batched)


class ScriptCall(NamedTuple):
    """One run of a script on the shard with that root.

    With `with_text` Redis is sent the script's text, since it does not know its hash.
    """

    name: str
    root: str
    arguments: tuple[str | float, ...]
    with_text: bool = False

    @property
    def batch_key(self) -> object:
        """Return what is equal for calls that can be one command; None if it cannot be batched."""
        if self.name not in _BATCHED:
            return None
        # The first argument is the same for all, and all have as many.
        return self.name, self.root, self.arguments[0], self.with_text

    @property
    def weight(self) -> int:
        """Return how many of the `MAX_BATCH` places of a command this run takes."""
        weight = 1 + len(str(self.arguments[_BODY])) // _BYTES
        return weight * _OF_MERGE if self.arguments[_WHEN_BUSY] == "merge" else weight


def call_of(root: str, broker: str, arguments: Arguments) -> ScriptCall:
    """Return the call of the script whose declared arguments these are."""
    name, sent = script_of(arguments)
    return ScriptCall(name, root, (broker, *sent))


def command_of(calls: Sequence[ScriptCall]) -> Command:
    """Return the one command for calls with the same `batch_key`."""
    name, root, arguments, with_text = calls[0]
    found = script(name, batched=len(calls) > 1)
    head = ("EVAL", found.text) if with_text else ("EVALSHA", found.sha)
    if len(calls) == 1:
        return (*head, 1, root, *arguments)
    each = chain.from_iterable(one.arguments[1:] for one in calls)
    return (*head, 1, root, arguments[0], len(calls), *each)


class _Definition(NamedTuple):
    """What one or several names stand for; `words` are all that it has."""

    names: frozenset[str]
    words: frozenset[str]
    text: str


@cache
def _definitions(name: str) -> tuple[_Definition, ...]:
    """Return what a file defines for others, read once."""
    return tuple(map(_defined, _DEFINITION.findall(_without_comments(lua_source(name)))))


def _defined(text: str) -> _Definition:
    names, _, _ = text.removeprefix("local ").removeprefix("function ").partition("=")
    return _Definition(_words(names.partition("(")[0]), _words(text), text)


def _used(shared: Sequence[_Definition], step: str) -> Sequence[str]:
    """Return the definitions that a script uses, and those that they use, in their order.

    Redis makes all of them anew for each call: a third of the time of a short script.
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
