"""`afterword doctor --drill`: a live fleet proves that it remembers, and that it forgets."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from afterword.producer import Operator
from afterword.producer.cli.drill import TENANT
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import MEMORY_FAULT_APP, Fleet
from tests.kit.workers.memory_faults import calls_are_rejected

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    """Give a fleet whose erasures need not wait for long writes."""
    with Fleet(AFTERWORD_WRITE_TIMEOUT_S="2") as opened:
        yield opened


def test_a_fleet_remembers_over_a_restart_of_its_workers_and_forgets(fleet: Fleet) -> None:
    first = fleet.start("responses", "memories")
    fleet.start("responses", "memories")
    restart = f"kill -TERM {first[0].pid} {first[1].pid}"
    found = json.loads(fleet.afterword("doctor", "--drill", "--restart", restart, "--json").stdout)
    drilled = [one for one in found if one["check"].startswith("drill")]
    assert [one["check"] for one in drilled] == [
        "drill: answer and remember",
        "drill: restart",
        "drill: recall",
        "drill: bury",
        "drill: replay",
        "drill: erase",
        "drill: erased",
    ]
    assert {one["level"] for one in drilled} == {"ok"}
    wait_until(lambda: not any(one.runs for one in first), "the first workers ended")
    assert erasures(fleet) == 2, "what it said after the erasure is erased as well"


def test_a_drill_ends_at_the_step_that_fails_and_leaves_no_user_behind(fleet: Fleet) -> None:
    fleet.start("responses", "memories", app=MEMORY_FAULT_APP)
    with calls_are_rejected(fleet.data_dir, "add"):
        printed = fleet.afterword("doctor", "--drill", code=1).stdout
    assert "FAIL  drill: answer and remember: the turn is dead, not stored" in printed
    assert "-> Run `afterword doctor`" in printed
    assert "drill: recall" not in printed
    assert erasures(fleet) == 1


def test_without_workers_the_checks_fail_and_there_is_no_drill(fleet: Fleet) -> None:
    ran = fleet.afterword("doctor", "--drill", code=1)
    assert "No drill: a check failed." in ran.stderr
    assert "drill:" not in ran.stdout
    assert erasures(fleet) == 0


def test_a_drill_sees_that_a_replay_stores_nothing(fleet: Fleet) -> None:
    fleet.start("responses", "memories", app=MEMORY_FAULT_APP)
    from_now_on = f"touch {fleet.data_dir / 'add.rejected'}"
    printed = fleet.afterword("doctor", "--drill", "--restart", from_now_on, code=1).stdout
    assert "FAIL  drill: replay: the replay is stopped (canary_buried): 1 dead" in printed
    assert "drill: erase" not in printed
    assert erasures(fleet) == 1


def erasures(fleet: Fleet) -> int:
    """Return how many erasures of a drill's user were requested."""
    with Operator(fleet.settings) as operator:
        return len([
            one
            for one in operator.audit()
            if one.action == "forget" and one.details["tenant"] == TENANT
        ])  # fmt: skip
