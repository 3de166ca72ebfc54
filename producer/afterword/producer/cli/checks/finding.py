"""What a check finds, and how checks run: at the same time, each within its own limit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic
from typing import TypeAlias

from afterword.shared.error_location import error_location
from afterword.shared.errors import AfterwordError

#: A part of the system that gives no answer within this many seconds fails its check.
LIMIT_S = 8.0


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    """As it should be."""

    WARN = "warn"
    """Jobs are accepted, answered and remembered, but somebody should look."""

    FAIL = "fail"
    """Some job would not be accepted, answered or remembered now."""


#: Every check, and the question that it answers.
CHECKS: dict[str, str] = {
    "settings": "Can the settings be read, and does each fit?",
    "redis": "Does Redis answer, and can it hold the ledger without losing a job?",
    "layout": "Do the settings name the shards and keys that the ledger has?",
    "write": "Does Redis take a write, as a submit writes?",
    "restored": "Is the ledger as new as this machine saw it?",
    "room": "Do the queues take another job?",
    "clock": "Does this machine have the same time as Redis?",
    "response workers": "Does a response worker run, with this version and without trouble?",
    "memory workers": "Does a memory worker run, with this version and without trouble?",
    "same memory": "Do all workers use the same memory?",
    "queues": "Are jobs and turns that are ready taken up?",
    "gates": "Is every provider being called?",
    "orders": "Does no order of an operator let work wait?",
    "turns": "Are turns stored soon after their replies?",
    "dead letters": "Do jobs and turns end well?",
    "held": "Does this version know all records?",
    "neighbours": "Do others on this Redis stay out of what is ours?",
    "broker": "Does a broker that is another server take a message, and give it back?",
    "claude": "Does Claude take our key, and have each model?",
    "memory": "Is a memory that is stored found again, and only by its owner?",
}


#: The settings that say where each part is that is asked.
_ADDRESSES = {
    "redis": "AFTERWORD_REDIS_URL",
    "broker": "AFTERWORD_BROKER_URL",
    "claude": "ANTHROPIC_BASE_URL",
    "memory": "MEM0_HOST, AFTERWORD_POSTGRES_URL or AFTERWORD_DATA_DIR",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found: `remedy` names the setting or the command that cures it."""

    check: str
    level: Level
    detail: str
    remedy: str = ""


def ok(check: str, detail: str) -> Finding:
    """Return a finding that is as it should be."""
    return Finding(check, Level.OK, detail)


def warn(check: str, detail: str, remedy: str) -> Finding:
    """Return a warning."""
    return Finding(check, Level.WARN, detail, remedy)


def fail(check: str, detail: str, remedy: str) -> Finding:
    """Return a failure."""
    return Finding(check, Level.FAIL, detail, remedy)


Look: TypeAlias = Callable[[], Awaitable[Sequence[Finding]]]


def run_all(looks: Mapping[str, Look], limit_s: float = LIMIT_S) -> tuple[list[Finding], bool]:
    """Run checks side by side; return their findings in order, and whether one still runs.

    Each has a thread and an event loop of its own: one that hangs, in whatever code, neither
    delays nor hides another.
    """
    outcomes = {check: _started(look) for check, look in looks.items()}
    end = monotonic() + limit_s
    findings: list[Finding] = []
    hangs = False
    for check, outcome in outcomes.items():
        try:
            findings += outcome.result(max(0.0, end - monotonic()))
        except NotYet:
            hangs = True
            where = _ADDRESSES.get(check, "the network")
            remedy = f"Check {where}: whether it is overloaded, or something drops its packets."
            findings.append(fail(check, f"gave no answer within {limit_s:g} s", remedy))
        except AfterwordError as error:
            findings.append(fail(check, str(error), "Fix this and run the command again."))
        except Exception as error:  # noqa: BLE001 a bug in one check must not hide the others
            place = error_location(error, anywhere=True)
            detail = f"the check itself failed: {type(error).__name__} at {place}"
            findings.append(fail(check, detail, "Report this as a bug."))
    return findings, hangs


def _started(look: Look) -> Future[Sequence[Finding]]:
    """Run a check in a thread that the process does not wait for."""
    outcome: Future[Sequence[Finding]] = Future()

    async def looked() -> None:
        # The result is given here: closing the loop waits for threads that may hang.
        try:
            outcome.set_result(await look())
        except BaseException as error:  # noqa: BLE001 whoever waits gets it
            outcome.set_exception(error)

    threading.Thread(target=lambda: asyncio.run(looked()), daemon=True).start()
    return outcome
