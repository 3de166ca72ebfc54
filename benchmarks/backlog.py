"""What a backlog is answered with: jobs that waited for Claude, drained after the outage.

`python -m benchmarks.backlog` starts workers on the embedded memory, submits 3,000 jobs while
Claude (a stand-in) is overloaded, ends the outage, and counts how many of the replies were
`degraded`: answered without what memory knows. Meanwhile the turns of the replies are stored, on
the same cores, and another user sends a message every few seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from afterword.producer import ChatRequest, Job, Producer
from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import Fleet

_TEXT = "I moved to the {0}th floor, my cat is called Number {0}, and I prefer tea with {0} herbs."
_AT_ONCE = 500
_LONGEST_S = 900.0
_NEWCOMER_EVERY_S = 3.0
_REAL_TIMES = {
    "AFTERWORD_SWEEP_S": "1",
    "AFTERWORD_LEASE_S": "30",
    "AFTERWORD_HINT_GRACE_S": "5",
    "AFTERWORD_LOG_LEVEL": "info",
    "AFTERWORD_SUBMIT_TIMEOUT_S": "20",
}


def measure(jobs: int, outage_s: float, responders: int) -> dict[str, Any]:
    """Return how a backlog of so many jobs was drained after an outage of so many seconds."""
    with Fleet(**_REAL_TIMES) as fleet, Producer(fleet.settings) as producer:
        for _ in range(responders):
            fleet.start("responses")
        fleet.start("memories")
        for user in range(8):
            producer.submit(user_id=f"first-{user}", message="I like tea.").wait(timeout=60)
        fleet.claude.will_answer(ClaudeAnswer(status=529, times=None))
        began = time.monotonic()
        waiting = _submit(producer, jobs)
        wait_until(lambda: time.monotonic() - began > outage_s, "the outage", outage_s + 10)
        fleet.claude.forget()
        with _newcomers(producer) as newcomers:
            drained = _drain(fleet, waiting)
        return {"jobs": jobs, "outage_s": outage_s} | drained | _waits_of(newcomers)


@contextmanager
def _newcomers(producer: Producer) -> Iterator[list[Job]]:
    """Send a message of another user every few seconds; yield the jobs."""
    jobs: list[Job] = []
    over = threading.Event()

    def send() -> None:
        while not over.wait(_NEWCOMER_EVERY_S):
            text = _TEXT.format(len(jobs))
            jobs.append(producer.submit(user_id=f"newcomer-{len(jobs)}", message=text))

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield jobs
    finally:
        over.set()
        thread.join()


def _waits_of(newcomers: Sequence[Job]) -> dict[str, Any]:
    """Return how long those waited who came during the drain, until their reply had ended."""
    replies = [job.wait(timeout=_LONGEST_S) for job in newcomers]
    waits = sorted(round(reply.timings_ms.total / 1000, 1) for reply in replies)
    degraded = sum(reply.memory == "degraded" for reply in replies)
    shown = {"p50": waits[len(waits) // 2], "longest": waits[-1]} if waits else {}
    return {"newcomers": len(waits), "newcomers_degraded": degraded, "newcomers_waited_s": shown}


def _submit(producer: Producer, jobs: int) -> list[Job]:
    users = max(1, jobs // 10)
    requests = [
        ChatRequest(user_id=f"user-{number % users}", message=_TEXT.format(number))
        for number in range(jobs)
    ]
    accepted: list[Job] = []
    for start in range(0, jobs, _AT_ONCE):
        for job in producer.submit_many(requests[start : start + _AT_ONCE]):
            assert isinstance(job, Job), job
            accepted.append(job)
    return accepted


def _drain(fleet: Fleet, waiting: list[Job]) -> dict[str, Any]:
    replies = [job.wait(timeout=_LONGEST_S) for job in waiting]
    statuses = Counter(reply.memory for reply in replies)
    ended = [reply.timings_ms.total for reply in replies]
    lines = "\n".join(worker.log for worker in fleet.workers)
    return {
        "memory": dict(statuses),
        "degraded_percent": round(100 * statuses["degraded"] / len(replies), 2),
        "drained_s": round((max(ended) - min(ended)) / 1000, 1),
        "recall_p50_ms": sorted(reply.timings_ms.recall for reply in replies)[len(replies) // 2],
        "recall_failed": lines.count("recall failed"),
        "recall_gate_shut": lines.count("gate recall is shut"),
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.backlog", description=__doc__)
    parser.add_argument("--jobs", type=int, default=3000)
    parser.add_argument("--outage", type=float, default=120.0, metavar="SECONDS")
    parser.add_argument("--responders", type=int, default=1)
    told = parser.parse_args()
    os.environ |= {"MEM0_TELEMETRY": "False"}
    print(json.dumps(measure(told.jobs, told.outage, told.responders), indent=2))


if __name__ == "__main__":
    main()
