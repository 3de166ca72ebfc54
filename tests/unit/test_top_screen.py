"""What `afterword top` shows of the looks that it took."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from afterword.producer.admin.fleet_status import summary
from afterword.producer.cli.top_screen import (
    BAD,
    LATE,
    LOOKS,
    ROWS,
    Fragment,
    History,
    Look,
    screen,
    sparkline,
)
from afterword.shared.errors import Fault
from afterword.shared.ledger.dead_letter_records import ReplayPace, ReplayRun, ReplayState
from afterword.shared.ledger.order_records import OrderKind, SteeringOrder
from afterword.shared.ledger.records import (
    Account,
    AgendaCount,
    Gate,
    GateState,
    Overview,
    TaskHealth,
    WorkerSeen,
)
from afterword.shared.lifecycle import JobState, TurnState

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


def account(tenant: str = "acme", **fields: Any) -> Account:
    numbers = {"users_behind": 0, "users_late": 0, "oldest_s": 0.0} | fields
    jobs, turns = dict.fromkeys(JobState, 0), dict.fromkeys(TurnState, 0)
    return Account(tenant, jobs, turns, **numbers)


def look(at_s: float = 0.0, *, done: int = 0, **parts: Any) -> Look:
    workers = parts.pop("workers", (WorkerSeen("host:1", "replies+memories", NOW, "0.1.0"),))
    agendas = (
        AgendaCount("replies.3", 12, 1, 2, datetime.fromtimestamp(NOW.timestamp() - 3, UTC), 12),
    )
    counts = {"job:succeeded:acme": done, "turn:stored:acme": done}
    found = summary([Overview(NOW, 0, 0, 0, 0, workers, counts, agendas)])
    found |= {
        "gates": [],
        "orders": [],
        "quarantined": {},
        "newest_quarantined": None,
        "message_batches": {"batches": 0, "turns": 0, "oldest_s": 0.0, "undeleted": 0},
        "durability": "d1",
    }
    found |= parts.pop("status", {})
    given = {"accounts": [account()], "runs": [], "problems": []} | parts
    return Look(at=NOW, at_s=at_s, status=found, **given)


def shown(*looks: Look, failure: str = "", paused: bool = False) -> list[Fragment]:
    history = History(late_s=300.0, failure=failure)
    history.looks.extend(looks)
    return screen(history, every_s=2.0, paused=paused)


def text_of(fragments: list[Fragment]) -> str:
    return "".join(text for _, text in fragments)


def styles_of(fragments: list[Fragment], part: str) -> set[str]:
    return {style for style, text in fragments if part in text}


def test_orders_in_force_are_shown() -> None:
    order = SteeringOrder(OrderKind.BLOCK, "kim", NOW, None, tenant="acme", waiting=3)
    text = text_of(shown(look(status={"orders": [order]})))
    assert "block  tenant acme  kim  3" in text


def test_a_healthy_fleet_shows_nothing_in_colour() -> None:
    drawn = shown(look())
    assert {style for style, _ in drawn} <= {"", "class:head"}
    text = text_of(drawn)
    assert "replies   12     1        2        3.0 s" in text
    assert "host:1  replies+memories  0.1.0" in text
    assert "dead letters: none" in text
    assert "users late (over 5.0 min): 0" in text


def test_before_the_first_look_it_says_so() -> None:
    assert "no look yet" in text_of(shown())


def test_rates_are_what_was_done_between_two_looks() -> None:
    rows = text_of(shown(look(0, done=10), look(2, done=15), look(4, done=25))).splitlines()
    assert [row.split()[6] for row in rows if row.startswith(("replies", "memories"))] == [
        "5.0",
        "5.0",
    ]


def test_a_count_that_fell_is_no_negative_rate() -> None:
    history = History(300.0)
    history.looks.extend([look(0, done=10), look(1, done=4), look(1, done=4)])
    assert history.rates("replies") == [0.0]


def test_only_the_last_looks_are_kept() -> None:
    history = History(300.0)
    history.looks.extend(look(number) for number in range(LOOKS + 5))
    assert len(history.looks) == LOOKS
    assert history.looks[0].at_s == 5


@pytest.mark.parametrize(
    ("values", "bars"), [([], ""), ([0, 0], "▁▁"), ([0, 7], "▁█"), ([7, 3.5, 0], "█▅▁")]
)
def test_a_sparkline_is_as_high_as_its_highest_value(values: list[float], bars: str) -> None:
    assert sparkline(values) == bars


def test_a_look_that_failed_is_said_above_the_last_good_one_and_no_longer_once_one_succeeds() -> (
    None
):
    failed = shown(look(), failure="Redis is away")
    assert styles_of(failed, "below is what was seen last: Redis is away") == {BAD}
    assert "host:1" in text_of(failed)
    assert "below is what" not in text_of(shown(look()))


@pytest.mark.parametrize(
    ("parts", "line", "style"),
    [
        ({"problems": ["maxmemory-policy is allkeys-lru"]}, "unfit: maxmemory", BAD),
        ({"workers": ()}, "no workers", BAD),
        (
            {"status": {"gates": [
                Gate("claude/m", GateState.SHUT, "overloaded", Fault.PROVIDER, NOW, NOW)]}},
            "claude/m  shut   overloaded (provider)", BAD,
        ),
        (
            {"workers": (WorkerSeen("w", "replies", NOW, "1",
                                    (TaskHealth("sweep", "failing", 3, 0.2, None),)),)},
            "sweep failing, never ok", LATE,
        ),
        ({"accounts": [account(users_behind=3, users_late=2, oldest_s=900)]},
         "users late (over 5.0 min): 2", LATE),
        ({"status": {"dead_letters": {"turns": 3, "jobs": 0}}}, "dead letters: 3 turns", LATE),
        ({"status": {"quarantined": {"not_a_hint": 7}}}, "quarantined: 7 not_a_hint", LATE),
        ({"status": {"held": {"jobs": 1, "lanes": 0, "newest_version": 9}}},
         "held for version 9: 1 jobs", LATE),
    ],
)  # fmt: skip
def test_what_needs_attention_is_coloured(parts: dict[str, Any], line: str, style: str) -> None:
    assert styles_of(shown(look(**parts)), line) == {style}


def test_the_worst_tenants_come_first_and_the_rest_is_counted() -> None:
    accounts = [account(f"t{number:02}", users_late=number) for number in range(ROWS + 3)]
    text = text_of(shown(look(accounts=accounts)))
    assert text.index("t10") < text.index("t09") < text.index("t03")
    assert "t02" not in text
    assert "... and 3 more; 11 tenants in all" in text


def test_a_troubled_worker_is_shown_however_many_there_are() -> None:
    fine = [WorkerSeen(f"a{number:02}", "replies", NOW, "1") for number in range(ROWS + 2)]
    sick = WorkerSeen("z", "memories", NOW, "1", (TaskHealth("sweep", "late", 0, 60, 60),))
    drawn = shown(look(workers=(*fine, sick)))
    assert styles_of(drawn, "sweep late") == {LATE}
    assert "... and 3 more; 11 workers in all (1 memories, 10 replies)" in text_of(drawn)


def test_replays_that_run_are_shown() -> None:
    run = ReplayRun(
        "r1", "ops", NOW, NOW, {}, ReplayPace(), ReplayState.RUNNING, "", 12, canary_passed=True
    )
    assert "r1          ops  running" in text_of(shown(look(runs=[run])))


def test_a_name_cannot_act_on_the_terminal() -> None:
    text = text_of(shown(look(accounts=[account("a\x1b[2J\nb"), account("c")])))
    assert r"a\x1b[2J\nb" in text


def test_a_pause_is_said() -> None:
    assert "paused" in text_of(shown(look(), paused=True)).splitlines()[0]
