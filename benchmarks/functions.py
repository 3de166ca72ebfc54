"""Whether Redis Functions would be faster than scripts: `FCALL` beside `EVALSHA`.

`python -m benchmarks.functions [ROUNDS] [COUNT]` runs a claim, and sixteen submits in one command,
COUNT times a round in each of three ways, in turns of a few calls each, on an embedded Valkey of
its own. It prints the median turn's time of one call as Redis measures it, and as a client that
waits for each reply does.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

from redis import Redis

from afterword.shared.ledger import steps
from afterword.shared.transport import scripts
from afterword.shared.transport.scripts import MAX_BATCH, call_of, command_of, script
from afterword.shared.transport.signatures import lua_source, taking
from tests.kit.servers.valkey import Valkey

ROOT, BROKER = "bench:{00}", "bench:"

#: Calls of one way before the next one has its turn.
_TURN = 15
_DAY_MS = 86_400_000
CAPS_OFF = "0 0 0 0 0 0 0"

#: Definitions that hold for every call, and those that are made anew for each.
_FUNCTION = re.compile(r"^local function ")


class Way(NamedTuple):
    """A way to run a script: the command's name, and its first argument, the script."""

    name: str
    command: str
    target: str


class Figure(NamedTuple):
    """Microseconds of one call: by Redis' own clock, and for a client that waits."""

    redis: float
    client: float


def _library(name: str, label: str, *, batched: bool, once: bool) -> str:
    """Return a library with one function that does what the script does.

    With `once` the shared functions are made when the library is loaded, which is what Functions
    are for; otherwise its body is the text of the script.
    """
    if not once:
        body = script(name, batched=batched).text.removeprefix("#!lua flags=allow-oom\n")
        return _registered(label, "", body)
    body = taking(name) + lua_source(name)
    if batched:
        body = lua_source("batched").replace("--<< the script\n", body)
    shared = scripts._used(scripts._definitions("_lib"), body)  # noqa: SLF001 it is what is compared
    functions = [text for text in shared if _FUNCTION.match(text)]
    values = [text for text in shared if not _FUNCTION.match(text)]
    names = [text.removeprefix("local ").partition("=")[0].strip() for text in values]
    anew = "".join(text.removeprefix("local ") for text in values)
    lasting = "local " + ", ".join(names) + "\n" + "".join(functions)
    return _registered(label, lasting, anew + body)


def _registered(label: str, lasting: str, body: str) -> str:
    return (
        f"#!lua name={label}\n{lasting}"
        f"redis.register_function{{ function_name = '{label}', flags = {{ 'allow-oom' }},\n"
        f"callback = function(KEYS, ARGV)\n{body}\nend }}\n"
    )


def _ways(redis: Redis, name: str, *, batched: bool) -> Sequence[Way]:
    """Load a script in each way; return the ways."""
    label = name.replace("/", "_")
    loaded = redis.script_load(script(name, batched=batched).text)
    for suffix, once in (("text", False), ("once", True)):
        code = _library(name, f"{label}_{suffix}", batched=batched, once=once)
        redis.function_load(code, replace=True)
    return (
        Way("EVALSHA", "EVALSHA", str(loaded)),
        Way("FCALL, the same text", "FCALL", f"{label}_text"),
        Way("FCALL, shared part loaded once", "FCALL", f"{label}_once"),
    )


def _submit(number: int) -> steps.SubmitJob:
    return steps.SubmitJob(
        id=f"j00_{number:032x}",
        lane=f"l00_default/user-{number % 1000}",
        tenant="default",
        version=1,
        known_version=1,
        body='{"user_id":"user","message":"What is a good temperature?"}',
        fingerprint="f" * 64,
        ttl_ms=_DAY_MS,
        agenda="replies.3",
        turn="awaited",
        max_open=10**9,
        caps=CAPS_OFF,
        budgets="",
        idempotency="",
        idempotency_ms=_DAY_MS,
        conversation="",
        when_busy="enqueue",
        max_message_bytes=65536,
        retention_ms=_DAY_MS,
        stream_ms=_DAY_MS,
        max_turns=20,
        conversation_ms=_DAY_MS,
    )


def _claim(number: int) -> steps.ClaimJob:
    return steps.ClaimJob(
        id=f"j00_{number:032x}",
        token=f"token-{number}",
        lease_ms=30_000,
        max_attempts=5,
        known_version=1,
        overlay_turns=5,
        history_turns=20,
        most_bytes=10**6,
        retention_ms=_DAY_MS,
        stream_ms=_DAY_MS,
        failed_ms=_DAY_MS,
        ahead=False,
        worker="host:1",
        running_caps="0 0",
    )


def _submits(start: int) -> Sequence[Any]:
    """Return what stands behind the script in a command of sixteen submits."""
    calls = [call_of(ROOT, BROKER, _submit(start + number)) for number in range(MAX_BATCH)]
    return command_of(calls)[2:]


def _claims(redis: Redis, count: int) -> Iterator[Sequence[Any]]:
    """Submit jobs, and give what stands behind the script in each command that claims one."""
    submit = script("job/submit", batched=True).text
    for start in range(0, count, MAX_BATCH):
        redis.eval(submit, *_submits(start))
    return (command_of([call_of(ROOT, BROKER, _claim(number))])[2:] for number in range(count))


def _measure(redis: Redis, way: Way, commands: Sequence[Sequence[Any]]) -> Figure:
    send: Any = redis.execute_command  # redis-py does not annotate it
    before, start = _spent_us(redis, way), time.perf_counter()
    for one in commands:
        send(way.command, way.target, *one)
    client = time.perf_counter() - start
    spent = _spent_us(redis, way) - before
    return Figure(spent / len(commands), client / len(commands) * 1e6)


def _spent_us(redis: Redis, way: Way) -> float:
    found = redis.info("commandstats").get(f"cmdstat_{way.command.lower()}", {})
    return float(found.get("usec", 0))


def _rounds(
    redis: Redis, ways: Sequence[Way], rounds: int, prepare: Callable[[], Iterator[Sequence[Any]]]
) -> dict[str, list[Figure]]:
    """Let each way have its turn again and again; the first round warms up."""
    found: dict[str, list[Figure]] = {way.name: [] for way in ways}
    for number in range(rounds + 1):
        redis.flushdb()
        commands = prepare()
        while turn := [list(islice(commands, _TURN)) for _ in ways]:
            if not all(len(one) == _TURN for one in turn):
                break
            for way, some in zip(ways, turn, strict=True):
                figure = _measure(redis, way, some)
                if number:
                    found[way.name].append(figure)
            ways = (*ways[1:], ways[0])
    return found


def _print(title: str, found: dict[str, list[Figure]]) -> None:
    print(f"\n{title}: median (quartiles)\n\n| way | in Redis, us | for the client, us |")
    print("| --- | ---: | ---: |")
    for name, figures in found.items():
        cells = [
            "{1:.1f} ({0:.1f} to {2:.1f})".format(*statistics.quantiles(of, n=4))
            for of in zip(*figures, strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Measure both, and print the tables."""
    rounds, count = (int(one) for one in (sys.argv[1:] + ["9", "3000"][len(sys.argv) - 1 :]))
    with Valkey() as valkey:
        redis = Redis(unix_socket_path=str(valkey.folder / "valkey.sock"))
        claim = _ways(redis, "job/claim", batched=False)
        _print("a claim", _rounds(redis, claim, rounds, lambda: _claims(redis, 3 * count)))
        submits = _ways(redis, "job/submit", batched=True)
        commands = range(0, 3 * count, MAX_BATCH)
        found = _rounds(redis, submits, rounds, lambda: map(_submits, commands))
        _print(f"{MAX_BATCH} submits in one command", found)


if __name__ == "__main__":
    main()
