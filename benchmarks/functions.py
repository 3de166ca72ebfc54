"""Whether Redis Functions would be faster than scripts: `FCALL` beside `EVALSHA`.

`python -m benchmarks.functions [ROUNDS] [COUNT]` runs a claim, and sixteen submits in one command,
COUNT times a round in each of three ways, in turns, on an embedded Valkey of its own. It prints
medians of the CPU that Redis spent on one call, of the time that it says the call took
(`usec_per_call`), and of what one call takes a client that waits.
"""

from __future__ import annotations

import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from redis import Redis

from afterword.shared.ledger import steps
from afterword.shared.transport import scripts
from afterword.shared.transport.scripts import MAX_BATCH, call_of, command_of, script
from afterword.shared.transport.signatures import lua_source, taking
from tests.kit.servers.valkey import Valkey

ROOT, BROKER = "bench:{00}", "bench:"
_DAY_MS = 86_400_000

#: Definitions that hold for every call, and those that are made anew for each.
_FUNCTION = re.compile(r"^local function ")


class Way(NamedTuple):
    """A way to run a script: the command's name, and its first argument, the script."""

    name: str
    command: str
    target: str


class Figure(NamedTuple):
    """Microseconds of one call: CPU of Redis, its own clock, and a client that waits."""

    cpu: float
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
        body='{"user_id":"user","message":"What is a good temperature?"}',
        fingerprint="f" * 64,
        ttl_ms=_DAY_MS,
        agenda="replies.3",
        turn="awaited",
        max_open=10**9,
        idempotency="",
        idempotency_ms=_DAY_MS,
        conversation="",
        when_busy="enqueue",
        retention_ms=_DAY_MS,
        stream_ms=_DAY_MS,
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
        retention_ms=_DAY_MS,
        stream_ms=_DAY_MS,
        failed_ms=_DAY_MS,
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


def _measure(redis: Redis, way: Way, commands: Iterator[Sequence[Any]]) -> Figure:
    prepared = list(commands)
    send: Any = redis.execute_command  # redis-py does not annotate it
    redis.config_resetstat()
    cpu, start = _cpu_us(redis), time.perf_counter()
    for one in prepared:
        send(way.command, way.target, *one)
    client = (time.perf_counter() - start) / len(prepared) * 1e6
    cpu = (_cpu_us(redis) - cpu) / len(prepared)
    spent = redis.info("commandstats")[f"cmdstat_{way.command.lower()}"]
    return Figure(cpu, float(spent["usec_per_call"]), client)


def _cpu_us(redis: Redis) -> float:
    found = redis.info("cpu")
    seconds = found["used_cpu_user_main_thread"] + found["used_cpu_sys_main_thread"]
    return float(seconds) * 1e6


def _rounds(
    redis: Redis, ways: Sequence[Way], rounds: int, commands: Callable[[], Iterator[Sequence[Any]]]
) -> dict[str, list[Figure]]:
    """Measure each way once a round, in turns."""
    found: dict[str, list[Figure]] = {way.name: [] for way in ways}
    for number in range(rounds + 1):
        for way in (*ways[number % len(ways) :], *ways[: number % len(ways)]):
            redis.flushdb()
            figure = _measure(redis, way, commands())
            if number:  # the first round warms up
                found[way.name].append(figure)
    return found


def _print(title: str, found: dict[str, list[Figure]]) -> None:
    print(f"\n{title}\n\n| way | CPU of Redis, us | usec_per_call | client, us |")
    print("| --- | ---: | ---: | ---: |")
    for name, figures in found.items():
        cells = [
            f"{statistics.median(of):.1f} ({min(of):.1f} to {max(of):.1f})"
            for of in zip(*figures, strict=True)
        ]
        print(f"| {name} | {' | '.join(cells)} |")


def main() -> None:
    """Measure both, and print the tables."""
    rounds, count = (int(one) for one in (sys.argv[1:] + ["9", "3000"][len(sys.argv) - 1 :]))
    with Valkey() as valkey:
        redis = Redis(unix_socket_path=str(valkey.folder / "valkey.sock"))
        claim = _ways(redis, "job/claim", batched=False)
        _print("a claim", _rounds(redis, claim, rounds, lambda: _claims(redis, count)))
        submits = _ways(redis, "job/submit", batched=True)
        each = count // MAX_BATCH
        commands = lambda: (_submits(number * MAX_BATCH) for number in range(each))  # noqa: E731
        _print("sixteen submits in one command", _rounds(redis, submits, rounds, commands))


if __name__ == "__main__":
    main()
