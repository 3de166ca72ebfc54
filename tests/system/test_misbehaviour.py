"""Thousands of misbehaviours of Claude and mem0, in any order: all jobs and turns come to an end.

`MISBEHAVIOURS=10000` says how many; the figures are printed.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import random
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as some

from afterword.shared.ledger import gates
from afterword.workers import gate
from afterword.workers.rules import retry_policy as policy
from tests.kit.fault_runs.misbehaviour_run import CANARY, MisbehaviourRun
from tests.kit.fault_runs.misbehaviours import CLAUDE, MEM0

if TYPE_CHECKING:
    from tests.kit.servers.valkey import Valkey

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

WANTED = int(os.environ.get("MISBEHAVIOURS", "1000"))

#: Trials at a time; all that can go wrong is dealt to them, each kind three times.
AT_ONCE = 10
EVERYTHING = [*CLAUDE, *MEM0] * 3


@contextmanager
def silence() -> Iterator[list[str]]:
    """Give the log lines that hold content, whatever their level."""
    heard: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            line = self.format(record)
            if CANARY in line:
                heard.append(f"{record.name}: {record.msg}")

    ear, root = Ear(), logging.getLogger()
    level = root.level
    root.addHandler(ear)
    root.setLevel(logging.DEBUG)
    try:
        yield heard
    finally:
        root.removeHandler(ear)
        root.setLevel(level)


@pytest.fixture
def _brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every pause short."""
    pace = gates.RecoveryPace(first_s=0.01, longest_s=0.05, octave_s=0.01)
    monkeypatch.setattr(gates, "RecoveryPace", lambda: pace)
    monkeypatch.setattr(policy, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(policy, "LONGEST_PAUSE_S", 0.1)
    monkeypatch.setattr(policy, "OPERATOR_PAUSE_S", 0.05)
    monkeypatch.setattr(gate, "LOOK_S", 0.02)
    monkeypatch.setattr(policy, "FOLLOW_S", 0.03)
    monkeypatch.setattr(policy, "LONGEST_FOLLOW_S", 0.03)


@pytest.mark.timeout(900 * max(1, WANTED / 1000))
@pytest.mark.usefixtures("_brisk")
def test_every_job_and_turn_ends_once_however_both_providers_misbehave(valkey: Valkey) -> None:
    played: Counter[str] = Counter()
    ends: Counter[str] = Counter()

    @settings(
        max_examples=math.ceil(WANTED / len(EVERYTHING)),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(some.integers(0, 2**32))  # a whole order would be too long a word for Hypothesis
    def rehearse(seed: int) -> None:
        order = random.Random(seed).sample(EVERYTHING, len(EVERYTHING))
        scripts = [order[start::AT_ONCE] for start in range(AT_ONCE)]
        runs = [MisbehaviourRun(valkey.url, f"t-{uuid.uuid4().hex[:12]}", one) for one in scripts]
        with silence() as heard:
            asyncio.run(_run(runs))
        assert not heard, heard[:5]
        wrong = [line for run in runs for line in run.wrong]
        assert not wrong, wrong[:20]
        for run in runs:
            played.update(run.played)
            ends.update(run.ends)

    started, cpu = time.monotonic(), time.process_time()
    rehearse()
    print(_report(played, ends), f"{time.monotonic() - started:.0f} s", end=", ")
    print(f"{time.process_time() - cpu:.0f} s of CPU")
    assert played.total() >= WANTED * 0.8


async def _run(runs: Sequence[MisbehaviourRun]) -> None:
    await asyncio.gather(*(run.run() for run in runs))
    gc.collect()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert not left, f"tasks are left: {left}"


def _report(played: Counter[str], ends: Counter[str]) -> str:
    rows = [f"{ends.total()} jobs, {played.total()} misbehaviours"]
    rows += [f"  {count:6} {end}" for end, count in ends.most_common()]
    rows += [f"  {count:6} {name}" for name, count in sorted(played.items())]
    return "\n".join(rows)
