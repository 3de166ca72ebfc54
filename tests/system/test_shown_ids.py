"""What Celery shows and logs of running work names no user and no tenant."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from afterword.producer import Producer
from afterword.shared.names import WRITE_TASK, lane_id, lane_tag, memory_key
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import MEMORY_FAULT_APP, Fleet
from tests.kit.workers.memory_faults import calls_hang

pytestmark = [pytest.mark.system, pytest.mark.redis]

USER, TENANT = "secret-user", "secret-tenant"
LANE = lane_id(memory_key(TENANT, USER), 0)


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet(AFTERWORD_MEMORY="embedded") as fleet:
        fleet.start("responses", "memories", app=MEMORY_FAULT_APP)
        yield fleet


def active(fleet: Fleet, **arguments: Any) -> list[dict[str, Any]]:
    """Return what workers say of the lanes that they hold."""
    shown = [one for answer in fleet.ask("active", **arguments) for one in answer]
    return [one for one in shown if one["name"] == WRITE_TASK]


def test_a_lane_at_work_is_shown_by_a_name_that_tells_no_user(fleet: Fleet) -> None:
    with calls_hang(fleet.data_dir, "add"), Producer(fleet.settings) as producer:
        job = producer.submit(user_id=USER, tenant=TENANT, message="I prefer Celsius.")
        assert job.wait(timeout=60).text
        wait_until(lambda: active(fleet, safe=None), "a memory worker holds the lane", 60)
        as_flower_asks = active(fleet, safe=True)
        printed = fleet.inspect_active(fleet.workers[1])
    wait_until(lambda: job.status().turn == "stored", "the turn is stored", 60)

    (as_printed,) = json.loads(printed).values()
    for [shown] in (as_flower_asks, as_printed):
        assert shown["id"].startswith(lane_tag(LANE) + ".")
        assert not shown["args"]
    for text in (printed, json.dumps(as_flower_asks), *(one.log for one in fleet.workers)):
        assert USER not in text
        assert TENANT not in text
