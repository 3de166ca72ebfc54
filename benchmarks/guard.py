"""Function calls of each step of the hot path, compared with the last run.

`python -m benchmarks.guard` counts the Python and C functions that each step calls, which does not
depend on the load of the machine. It fails if a step calls over 10 % more than in the last entry of
`docs/benchmarks/history.json`; `--keep` adds an entry.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from afterword.shared.contracts import ChatRequest, Reply, Timings, Usage
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from afterword.shared.version import __version__
from afterword.workers.ports import Recall, RecalledMemory
from afterword.workers.replies import prompt
from afterword.workers.replies.respond import Responder
from benchmarks.adapter_calls import (
    CallCounter,
    claude_at,
    counted_memories,
    read_answer,
    served_claude,
)
from benchmarks.one_reply import ASKED, judge_messages, queued_job, read_days, responder_on
from benchmarks.sections import Finding, Options, Row
from tests.kit.servers.valkey import Valkey

HISTORY = Path("docs/benchmarks/history.json")

_PYTHON = ".".join(platform.python_version_tuple()[:2])
_MOST_GROWTH = 1.1
_TIMES = 30
_USER = "user-1"
_LIMITS = prompt.Limits(prompt_tokens=32_000, max_tokens=4096, model="m", system=None)
_AT = datetime(2026, 10, 1, tzinfo=UTC)
_RECALLED = Recall(
    tuple(
        RecalledMemory(
            id=f"m{n}", owner="default/user-1", text="The user prefers Celsius",
            score=0.5, created_at=_AT, turn_id=f"j00_{n:032x}",
        )
        for n in range(3)
    )
)  # fmt: skip


def count_calls(call: Callable[[], object]) -> int:
    """Return how many Python and C functions are called in a call."""
    counter = CallCounter()
    sys.setprofile(counter)
    try:
        call()
    finally:
        sys.setprofile(None)
    return counter.calls


async def count_calls_of(step: Callable[[], Awaitable[object]]) -> int:
    """Do the same for a coroutine, including what the event loop does meanwhile."""
    counter = CallCounter()
    sys.setprofile(counter)
    try:
        await step()
    finally:
        sys.setprofile(None)
    return counter.calls


async def _count_steps(ledger: Ledger) -> dict[str, int]:
    """Take one job through its life; return the calls of each step."""
    jobs, found = ledger.jobs, {}
    request = ChatRequest.parse(ASKED, max_bytes=65_536, max_tokens=16_000)
    job_id = jobs.new_id(request)
    found["submit"] = await count_calls_of(lambda: jobs.submit_many([(job_id, request)]))
    claims = []

    async def claim() -> None:
        claims.append(await jobs.claim(job_id, "token"))

    found["claim"] = await count_calls_of(claim)
    (held,) = claims
    assert held is not None, "the job cannot be claimed"

    def build() -> prompt.Built:
        return prompt.build(
            request, _RECALLED, overlay=(), history=(), limits=_LIMITS, user_tag="tag"
        )

    found["prompt"], built = count_calls(build), build()
    found["delta"] = await count_calls_of(
        lambda: jobs.append_delta(held, 1, "Twenty-one degrees. ", built.recalled)
    )
    reply = Reply(
        job_id=job_id, user_id=_USER, conversation_id=None, text="21 °C", stop_reason="end_turn",
        model="m", usage=Usage(input=1, output=1), memory="fresh", attempts=1,
        memories=built.recalled.memories, not_remembered="pleasantry",
        timings_ms=Timings(queued=1, recall=1, model=1, total=3),
    )  # fmt: skip
    found["finish"] = await count_calls_of(lambda: jobs.finish(held, reply))
    return found


async def _count_reply(ledger: Ledger, responder: Responder) -> dict[str, int]:
    """Let a worker answer one job; return the calls of that, and of what it decides by rules."""
    job_id = await queued_job(ledger)
    return {
        "reply": await count_calls_of(lambda: responder.respond(job_id)),
        "remembering": count_calls(judge_messages),
        "days": count_calls(read_days),
    }


async def _count_jobs(url: str) -> list[dict[str, int]]:
    settings = Settings(redis_url=url, durability="none", memory="hosted")
    async with Ledger(settings, patience_s=5.0) as ledger:
        responder = responder_on(ledger)
        return [
            await _count_steps(ledger) | await _count_reply(ledger, responder)
            for _ in range(_TIMES + 1)
        ]


async def _count_adapters(folder: Path) -> list[dict[str, int]]:
    """Let the adapters of Claude and mem0 do what they do for a job; return the calls of that."""
    with served_claude(folder) as url:
        claude = claude_at(url)
        async with counted_memories(folder) as memories:
            found = [
                {"answer": await count_calls_of(lambda: read_answer(claude))}
                | await memories.calls_of_life(number)
                for number in range(_TIMES + 1)
            ]
        await claude.aclose()
    return found


def _medians(lives: Sequence[dict[str, int]]) -> dict[str, int]:
    """Return the medians of all but the first, which warms up."""
    return {step: int(statistics.median(life[step] for life in lives[1:])) for step in lives[0]}


@cache  # it takes seconds
def measure() -> dict[str, int]:
    """Return how many functions each step of a job calls."""
    with Valkey() as valkey, tempfile.TemporaryDirectory(prefix="afterword-guard-") as folder:
        jobs = _medians(asyncio.run(_count_jobs(valkey.url)))
        return jobs | _medians(asyncio.run(_count_adapters(Path(folder))))


def grown_steps(now: dict[str, int], before: dict[str, int]) -> list[str]:
    """Return the steps that call over 10 % more functions than before."""
    return [step for step in now if now[step] > before.get(step, now[step]) * _MOST_GROWTH]


def history() -> list[dict[str, object]]:
    """Return the entries of earlier runs, oldest first."""
    kept: list[dict[str, object]] = json.loads(HISTORY.read_text()) if HISTORY.exists() else []
    return kept


def append_to_history(calls: dict[str, int]) -> None:
    """Add an entry to the history."""
    HISTORY.parent.mkdir(parents=True, exist_ok=True)
    entry = {"version": __version__, "python": _PYTHON, "calls": calls}
    HISTORY.write_text(json.dumps([*history(), entry], indent=2) + "\n")


def check(calls: dict[str, int]) -> list[str]:
    """Return the steps that have grown since the last entry of this Python's in the history.

    Other Pythons call other functions for the same work.
    """
    last = [entry for entry in history() if entry.get("python") == _PYTHON][-1:]
    return grown_steps(calls, last[0]["calls"]) if last else []  # type: ignore[arg-type]


def section(_options: Options) -> Finding:
    """Count and compare; add an entry to the history unless a step has grown."""
    calls = measure()
    worse = check(calls)
    if not worse:
        append_to_history(calls)
    return Finding(
        rows=[Row(f"calls of `{step}`", count) for step, count in calls.items()],
        failures=[
            f"`{step}` calls over 10 % more functions than in the last entry of {HISTORY}"
            for step in worse
        ],
        runs=calls,
    )


def main(arguments: Sequence[str]) -> int:
    """Count, print and compare; return 1 if a step has grown."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.guard",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--keep", action="store_true", help="add an entry to the history")
    options = parser.parse_args(arguments)
    calls = measure()
    worse = check(calls)
    for step, count in calls.items():
        print(f"{step:11} {count:5} calls{'  grown' if step in worse else ''}")
    if options.keep:
        append_to_history(calls)
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
