"""Every panel shows something, and each signal of the scalers moves only its own workers."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from dataclasses import fields
from typing import Any, get_type_hints

import pytest
import yaml

from afterword.shared import events
from afterword.shared.contracts import MemoryStatus
from afterword.shared.errors import Fault
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import CallOutcome, CallReport
from afterword.shared.lifecycle import TurnState
from afterword.shared.observer import emit
from tests.conftest import ROOT
from tests.kit.ledger.builder import (
    LedgerInspector,
    claim_lane,
    lane_of,
    submit_and_answer,
    submit_job,
)
from tests.kit.ledger.fixtures import inspector, ledger, settings
from tests.kit.promql.evaluate import evaluate, selectors
from tests.kit.promql.queries import (
    DASHBOARD,
    adapter_queries,
    all_queries,
    keda_queries,
    panel_queries,
)
from tests.kit.promql.stage import Stage

__all__ = ["inspector", "ledger", "settings"]

pytestmark = pytest.mark.redis

#: A value of each type that a field of an event has.
VALUES: dict[Any, Any] = {
    str: "word", int: 3, float: 0.5, bool: True, Fault: Fault.PROVIDER,
    TurnState: TurnState.STORED, MemoryStatus: "fresh", events.RecordKind: "worker",
}  # fmt: skip


#: More than any test takes.
HOUR_S = 3600


@pytest.fixture
def stage(ledger: Ledger, inspector: LedgerInspector) -> Iterator[Stage]:
    found = Stage(ledger, inspector)
    with found.open():
        yield found


def everything_happens() -> None:
    """Report an event of each class."""
    for kind in events.EVENTS:
        hints = get_type_hints(kind)
        emit(kind, **{one.name: VALUES[hints[one.name]] for one in fields(kind)})


async def test_every_query_answers_while_everything_happens(stage: Stage) -> None:
    report = CallReport(CallOutcome.SHUT, "overloaded", Fault.PROVIDER, 600)
    await stage.ledger.gates.report_outcome("remember", "token", report)
    await stage.look()
    stage.each = everything_happens
    stage.pass_minutes(20)

    quiet = {"absent(afterword_ledger_up)"}
    for name, query in all_queries().items():
        for metric, labels in selectors(query):
            if metric != "process_cpu_seconds_total" and query not in quiet:
                assert labels - {"job"} <= stage.recording.labels_of(metric), (name, metric)
        evaluate(query, stage.recording, stage.times[-1])
    for name, query in panel_queries():
        if "process_cpu" not in query:  # a test of tests/system scrapes a real process
            assert evaluate(query, stage.recording, stage.times[-1]), name


def test_the_dashboard_is_laid_out_and_says_what_each_panel_is() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({panel["title"] for panel in panels}) == len(panels)
    shown = [panel for panel in panels if panel["type"] != "row"]
    assert all(panel["description"].endswith(".") for panel in shown)
    for one, other in itertools.combinations(panels, 2):
        assert not overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return all(
        one[at] < other[at] + other[size] and other[at] < one[at] + one[size]
        for at, size in (("x", "w"), ("y", "h"))
    )


def test_grafana_and_prometheus_find_the_files_that_the_compose_file_mounts() -> None:
    compose = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    mounted = [
        volume.split(":")
        for name in ("prometheus", "grafana")
        for volume in compose["services"][name]["volumes"]
        if volume.startswith("./")
    ]
    assert mounted
    assert [source for source, *_ in mounted if not (ROOT / source).exists()] == []
    folder = ROOT / "deploy/monitoring"
    told = yaml.safe_load((folder / "prometheus.yml").read_text())
    places = {target for _, target, _ in mounted}
    assert set(told["rule_files"]) <= places
    (dashboards,) = yaml.safe_load(
        (folder / "grafana/provisioning/dashboards/afterword.yml").read_text()
    )["providers"]
    assert dashboards["options"]["path"] in places
    (source,) = yaml.safe_load(
        (folder / "grafana/provisioning/datasources/prometheus.yml").read_text()
    )["datasources"]
    used = {
        panel["datasource"]["uid"]
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        if "datasource" in panel
    }
    assert used == {source["uid"]}
    (job,) = told["scrape_configs"]
    (found,) = job["dns_sd_configs"]
    assert set(found["names"]) <= compose["services"].keys()


def wanted(stage: Stage) -> dict[str, int]:
    """Return how many workers of each kind the scalers ask for, as Kubernetes counts."""
    asked = {"responses": 0, "memories": 0}
    for name, query, threshold in keda_queries():
        (value,) = evaluate(query, stage.recording, stage.times[-1]).values()
        kind = name.partition(" ")[0]
        asked[kind] = max(asked[kind], math.ceil(value / threshold))
    return asked


async def scale(stage: Stage) -> dict[str, int]:
    await stage.look()
    stage.pass_minutes(1)
    return wanted(stage)


async def test_an_idle_fleet_asks_for_no_workers(stage: Stage) -> None:
    assert await scale(stage) == {"responses": 0, "memories": 0}


async def test_jobs_that_wait_ask_for_response_workers_only(stage: Stage) -> None:
    for number in range(60):
        await submit_job(stage.ledger, user_id=f"u{number}")
    age(stage, "replies.3", -HOUR_S)
    assert await scale(stage) == {"responses": 0, "memories": 0}, "they have only just come"

    age(stage, "replies.3", 2 * HOUR_S)
    assert await scale(stage) == {"responses": 2, "memories": 0}


async def test_late_users_ask_for_memory_workers_only(stage: Stage) -> None:
    for number in range(25):
        await submit_and_answer(stage.ledger, user_id=f"u{number}")
    make_older(stage, 25, -HOUR_S)
    assert await scale(stage) == {"responses": 0, "memories": 0}, "they are not late yet"

    make_older(stage, 25, 2 * HOUR_S)
    assert await scale(stage) == {"responses": 0, "memories": 2}


async def test_what_waits_for_a_provider_asks_for_no_workers(stage: Stage) -> None:
    """More workers could do nothing: the lanes are late, but wait for a later time."""
    for number in range(25):
        await submit_and_answer(stage.ledger, user_id=f"u{number}")
        lane = lane_of(f"u{number}")
        claim = await claim_lane(stage.ledger, lane)
        (turn,) = stage.inspector.lane(lane)
        await stage.ledger.turns.begin(claim, turn)
        await stage.ledger.turns.postpone(
            claim, turn, 600, counted=False, code="overloaded", unknown_outcome=False
        )
    make_older(stage, 25, HOUR_S)
    assert await scale(stage) == {"responses": 0, "memories": 0}


async def test_the_signals_are_the_same_without_keda() -> None:
    names = {"responses": "replies", "memories": "memories"}
    theirs = {
        f"afterword_{names[kind]}_{signal.replace('-', '_')}": query
        for kind, signal, query in ((*name.split(" "), query) for name, query, _ in keda_queries())
    }
    assert dict(adapter_queries()) == theirs
    thresholds = sorted(threshold for _, _, threshold in keda_queries())
    told = (ROOT / "deploy/kubernetes/components/hpa/scalers.yaml").read_text()
    metrics = [one for hpa in yaml.safe_load_all(told) for one in hpa["spec"]["metrics"]]
    asked = {
        one["external"]["metric"]["name"]: float(one["external"]["target"]["averageValue"])
        for one in metrics
    }
    assert asked.keys() == theirs.keys()
    assert sorted(asked.values()) == thresholds


def age(stage: Stage, agenda: str, seconds: float) -> None:
    """Make everything that is ready in an agenda so much older."""
    place = stage.inspector.keys.place("hinted", agenda)
    for name in stage.inspector.redis.zrange(place, 0, -1):
        stage.inspector.redis.zincrby(place, -seconds * 1000, name)


def make_older(stage: Stage, users: int, seconds: float) -> None:
    """Make the oldest turns of that many users so much older."""
    behind = stage.inspector.keys.behind("default")
    for number in range(users):
        stage.inspector.redis.zincrby(behind, -seconds * 1000, lane_of(f"u{number}"))
