"""Background work that fails is shown by `status` until it works again; the worker goes on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import BROKEN_SWEEP_APP, CANARY, Fleet

pytestmark = [pytest.mark.system, pytest.mark.redis]


def tasks(fleet: Fleet) -> list[dict[str, Any]] | None:
    """Return what `status` says of the periodic tasks of the one worker, `None` without one."""
    for worker in json.loads(fleet.afterword("status", "--json").stdout)["workers"]:
        return list(worker["periodic_tasks"])
    return None


def test_a_sweep_that_fails_is_shown_until_it_works_again() -> None:
    with Fleet() as fleet:
        fleet.data_dir.mkdir(parents=True)
        switch = fleet.data_dir / "sweep-fails"
        switch.touch()
        (worker,) = fleet.start("memories", app=BROKEN_SWEEP_APP)

        (task,) = wait_until(lambda: tasks(fleet) or [], "it is shown", 30)
        assert (task["name"], task["state"]) == ("sweep", "failing")
        assert "sweep failing, never ok" in fleet.afterword("status").stdout
        fleet.afterword("healthcheck", "memories")
        alarms = [line for line in worker.log.splitlines() if "internal error: KeyError" in line]
        assert alarms
        assert all(" ERROR " in line and "broken_sweep_app.py:" not in line for line in alarms)
        assert CANARY not in worker.log

        switch.unlink()
        wait_until(lambda: tasks(fleet) == [], "it is shown no more", 30)
        assert "sweep failing" not in fleet.afterword("status").stdout
        assert "periodic task sweep works again" in worker.log
