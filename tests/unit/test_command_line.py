"""What the command line reads and prints, without a server."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import click
import pytest

from afterword.producer import (
    DeadLetterFilter,
    Estimate,
    ReplayPace,
    ReplayPlan,
    ReplayRun,
    ReplayState,
)
from afterword.producer.admin import fleet_status
from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.main import cli, main
from afterword.producer.cli.options import Duration, PointInTime
from afterword.shared.clock import utc_now
from afterword.shared.errors import InvalidRequest
from afterword.shared.ledger.dead_letter_records import ReplayOutcome
from afterword.shared.ledger.records import Overview, TaskHealth, WorkerSeen
from tests.kit.command_line import afterword

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)
RUN = ReplayRun(
    "r1", "olga", NOW, NOW, {"code": "rejected"}, ReplayPace(), ReplayState.STOPPED, "queue_full",
    3, canary_passed=True, outcomes={ReplayOutcome.STORED: 2},
)  # fmt: skip


def read(kind: click.ParamType[Any], text: str) -> Any:
    return kind.convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("10min", 600), ("2h", 7200), ("3d", 259_200), ("1w", 604_800),
     ("1.5h", 5400), ("20", 20), ("0", 0)],
)  # fmt: skip
def test_a_duration_is_read(text: str, seconds: float) -> None:
    assert read(Duration(), text) == seconds


@pytest.mark.parametrize(
    "text", ["", "soon", "-1", "-1s", "nan", "inf", "1e400", "10M", "2 days", "9" * 12 + "d", "m"]
)
def test_an_invalid_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="such as 90s, 10m, 2h or 3d"):
        read(Duration(), text)


@pytest.mark.finding(36)
def test_a_point_in_time_is_iso_8601_or_a_duration_before_now() -> None:
    assert read(PointInTime(), "2026-11-22T10:00") == NOW
    assert read(PointInTime(), "2026-11-22T12:00+02:00") == NOW
    assert read(PointInTime(), "20261122") == NOW.replace(hour=0)
    moment = read(PointInTime(), "10m")
    assert timedelta(minutes=10) <= utc_now() - moment < timedelta(minutes=11)


@pytest.mark.finding(20)
@pytest.mark.parametrize("text", ["yesterday", "10", "2026-13-01", "9" * 12 + "d"])
def test_an_invalid_point_in_time_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(click.BadParameter, match="2026-11-22T10:00, or a duration before now"):
        read(PointInTime(), text)


def test_a_field_that_is_refused_is_called_as_the_command_line_calls_it() -> None:
    fields = iter(["user_id", "ids", "other"])

    @command(examples=[])
    @click.option("--user", "user_id")
    @click.argument("ids", metavar="[JOB_ID]...", nargs=-1)
    def refuse(**_: Any) -> None:
        raise InvalidRequest(next(fields), "must not be empty")

    said = []
    for _ in range(3):
        with pytest.raises(InvalidRequest) as raised:
            refuse.main([], standalone_mode=False)
        said.append(str(raised.value).partition(":")[0])
    assert said == ["--user", "JOB_ID", "other"]


@pytest.mark.finding(36)
def test_a_run_is_shown_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    render.replay_run(RUN, {"j1": ReplayOutcome.STORED})
    shown = capsys.readouterr().out
    assert "outcomes: stored 2\n" in shown
    assert "state: stopped\n" in shown
    assert "pace: rate 5.0, canary 1, max_dead 10, stall_timeout_s 300.0\n" in shown
    assert "canary_passed: yes\n" in shown
    assert "filter: code rejected\n" in shown
    assert shown.endswith("j1: stored\n")
    assert "<" not in shown


@pytest.mark.finding(36)
def test_a_run_that_should_be_running_shows_its_last_sign_of_life(
    capsys: pytest.CaptureFixture[str],
) -> None:
    killed = replace(
        RUN, state=ReplayState.RUNNING, reason="", updated_at=utc_now() - timedelta(minutes=4)
    )
    render.replay_runs([killed])
    render.replay_run(killed, {})
    shown = capsys.readouterr().out
    assert shown.count("running, last step 4.0 min ago") == 2


@pytest.mark.finding(36)
@pytest.mark.parametrize("apply", [False, True])
def test_a_plan_says_whether_it_is_carried_out(
    apply: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    estimate = Estimate(0, 0, 0, 0, None, 0.0, "")
    plan = ReplayPlan(DeadLetterFilter(), ReplayPace(), (), 1, 0, 1, {}, estimate)
    render.plan(plan, apply=apply)
    assert capsys.readouterr().out.startswith("replaying: " if apply else "would replay: ")


@pytest.mark.finding(36)
def test_a_list_of_any_length_is_printed_as_it_comes(capsys: pytest.CaptureFixture[str]) -> None:
    printed: list[str] = []

    async def values(count: int) -> AsyncIterator[dict[str, str]]:
        for number in range(count):
            printed.append(capsys.readouterr().out)
            yield {"id": f"{number}\x1b"}

    for count in (0, 1, 3):
        printed.clear()
        asyncio.run(render.json_array(values(count)))
        printed.append(capsys.readouterr().out)
        found = [{"id": f"{number}\x1b"} for number in range(count)]
        assert "".join(printed) == json.dumps(found, indent=2) + "\n"
        assert all(printed[1:]), "each is printed before the next is read"


@pytest.mark.parametrize(
    ("tasks", "shown"),
    [
        ((), "ok"),
        ((TaskHealth("sweep", "failing", 3, 0.2, None),), "sweep failing, never ok"),
        (
            (
                TaskHealth("sweep", "failing", 3, 0.2, 90),
                TaskHealth("deduplicate", "late", 0, 600, 600),
            ),
            "sweep failing, last ok 1.5 min ago, deduplicate late, last ok 10.0 min ago",
        ),
    ],
)
def test_the_status_shows_periodic_tasks_that_fail_or_are_late(
    tasks: tuple[TaskHealth, ...], shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = WorkerSeen("host:1", "replies", NOW, "0.1.0", tasks, memory="hosted", memory_place="a")
    gone = WorkerSeen("host:2", "replies", NOW - timedelta(seconds=16), "0.1.0")
    found = fleet_status.summary([Overview(NOW, 0, 0, 0, 0, (seen, gone), {}, ())])
    assert found["workers"] == [
        {
            "queue": "replies",
            "name": "host:1",
            "version": "0.1.0",
            "seen_s": 0.0,
            "draining": False,
            "memory": "hosted",
            "memory_place": "a",
            "periodic_tasks": [asdict(task) for task in tasks],
        }
    ]
    render.workers(found["workers"])
    assert capsys.readouterr().out.splitlines() == [
        "worker  queue    version  memory  last seen  periodic tasks",
        f"host:1  replies  0.1.0    hosted  0.0 s ago  {shown}",
    ]


def test_a_run_is_json_all_through(capsys: pytest.CaptureFixture[str]) -> None:
    render.json_record({"run": RUN, "outcomes_by_id": {"j1": ReplayOutcome.STORED}})
    shown = json.loads(capsys.readouterr().out)
    assert shown["run"]["outcomes"] == {"stored": 2}
    assert shown["run"]["started_at"] == "2026-11-22T10:00:00+00:00"
    assert shown["outcomes_by_id"] == {"j1": "stored"}


@pytest.mark.finding(20)
def test_a_bug_is_one_line_without_content(monkeypatch: pytest.MonkeyPatch) -> None:
    @command(examples=[])
    def crash() -> None:
        raise ZeroDivisionError("marmalade")

    monkeypatch.setitem(cli.commands, "crash", crash)
    printed = afterword("crash", bug=True)
    assert printed.code == 1
    (line,) = printed.stderr.splitlines()
    assert "ZeroDivisionError at afterword/producer/cli/command.py:" in line
    assert "marmalade" not in line


def test_a_terminal_without_a_character_gets_an_escape(monkeypatch: pytest.MonkeyPatch) -> None:
    data = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(data, encoding="latin-1"))
    with pytest.raises(SystemExit):
        main(["usage", "--Zo\u00eb\u0142"])
    sys.stderr.flush()
    assert b"No such option '--Zo\xeb\\u0142'" in data.getvalue()
