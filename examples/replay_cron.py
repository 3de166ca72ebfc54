"""Replay memory writes that failed, from cron. Without `--apply` it only says what it would do.

In /etc/cron.d/afterword, every night at 03:15 (cron mails what is printed):

    15 3 * * *  afterword  . /etc/afterword.env && python /opt/replay_cron.py --apply

Exit codes: 0 nothing to replay, or all came to a good end; 1 Redis is away, the replay stopped, or
some failed again; 2 a setting or an option is wrong; 75 another one still runs on this machine.
Two machines may run it at the same time: the ledger replays each dead letter once.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from afterword.producer import (
    AfterwordError,
    DeadLetterFilter,
    DeadLetterKind,
    Misconfigured,
    Operator,
    ReplayOutcome,
    ReplayPace,
    ReplayPlan,
    ReplayState,
)

#: This file: no one else can replace it, as they could a file in the shared temporary folder.
LOCK = Path(__file__)

#: Three letters go first. Nothing else moves until they are stored.
PACE = ReplayPace(rate=5, canary=3, max_dead=10)


def main() -> int:
    """Return the exit code."""
    options = parse()
    try:
        with only_one(LOCK), Operator(by="replay_cron") as operator:
            return replay(operator, options)
    except BlockingIOError:
        print(f"{LOCK}: another replay still runs", file=sys.stderr)
        return os.EX_TEMPFAIL
    except AfterwordError as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, Misconfigured) else 1


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Replay memory writes that failed.")
    parser.add_argument("--apply", action="store_true", help="do it, instead of saying what")
    parser.add_argument("--limit", type=int, default=500, help="most letters (default: 500)")
    parser.add_argument(
        "--max-replays", type=int, default=2, help="leave alone what failed again so often"
    )
    return parser.parse_args()


@contextmanager
def only_one(path: Path) -> Iterator[None]:
    """Hold a lock that ends with this process; raise `BlockingIOError` if another holds it."""
    with path.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def replay(operator: Operator, options: argparse.Namespace) -> int:
    """Plan the replay, print the plan and, if told to, carry it out."""
    letters = operator.dead_letters(DeadLetterFilter(kind=DeadLetterKind.MEMORY))
    chosen = (letter.id for letter in letters if letter.replays < options.max_replays)
    ids = tuple(islice(chosen, options.limit))
    if not ids:
        return 0
    plan = operator.plan(DeadLetterFilter(ids=ids), PACE)
    print(summary(plan))
    run = operator.replay(plan, apply=options.apply)
    if run.state is ReplayState.DRY:
        print("nothing was changed; add --apply")
        return 0
    print(f"run {run.id}: {run.state} {run.reason}", dict(run.outcomes))
    good = run.state is ReplayState.DONE and not run.outcomes.get(ReplayOutcome.DEAD)
    return 0 if good else 1


def summary(plan: ReplayPlan) -> str:
    """Return one line about a plan; it names reasons, never what was said."""
    reasons = ", ".join(f"{code} {count}" for code, count in plan.reasons.items())
    return f"{plan.turns} turns of {plan.users} users ({reasons}), {plan.estimate.minutes:.1f} min"


if __name__ == "__main__":
    sys.exit(main())
