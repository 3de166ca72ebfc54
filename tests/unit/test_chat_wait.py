"""A chat says what it waits for: once, in one line, with a cure, and goes on when that is over."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from afterword.producer.cli.chat_wait import explained
from afterword.producer.cli.checks.judgement import of_gates
from afterword.producer.cli.remedies import OF_A_MODEL, OF_MEMORY, Trouble, trouble, unread
from afterword.producer.cli.terminal import WaitingMark
from afterword.shared.contracts import Event, JobStatus
from afterword.shared.errors import Fault
from afterword.shared.ledger.queries import AT_CAP, NOT_KNOWN, Waits
from afterword.shared.ledger.records import Gate, GateState, Overview, WorkerSeen
from afterword.shared.lifecycle import JobState, TurnState
from tests.conftest import ROOT

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
AT = WorkerSeen("responses@here", "replies", NOW)
MODEL = "claude-sonnet-5-5"


class Tap:
    """Events that come when the test lets them."""

    def __init__(self, *events: Event) -> None:
        self._events = events
        self._open = threading.Event()
        self.looks = 0

    def __iter__(self) -> Iterator[Event]:
        self._open.wait(60)
        yield from self._events

    def find(self, *found: Trouble | None) -> Trouble | None:
        """Say what is found at each look, and let the events come after the last of them."""
        self.looks += 1
        if self.looks == len(found):
            self._open.set()
        return found[min(self.looks, len(found)) - 1]


FINAL = Event(id="1-1", type="final")


def test_each_trouble_is_said_once_and_the_events_come_through(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tap = Tap(FINAL)
    shut, gone = Trouble("shut", "it is shut"), Trouble("gone", "it is\ngone")
    found = (None, shut, shut, gone)
    events = list(explained(tap, lambda: tap.find(*found), look_s=0.001, mark=WaitingMark()))
    assert events == [FINAL]
    assert tap.looks >= len(found)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "[Waiting: it is shut]\n[Waiting: it is\\ngone]\n"


def test_what_the_events_raise_is_raised() -> None:
    def broken() -> Iterator[Event]:
        yield FINAL
        raise ConnectionError

    events = explained(broken(), lambda: None, mark=WaitingMark())
    assert next(events) == FINAL
    with pytest.raises(ConnectionError):
        next(events)


def test_nobody_looks_while_text_comes() -> None:
    begun = threading.Event()
    looked: list[bool] = []

    def speaking() -> Iterator[Event]:
        yield Event(id="1-1", type="delta", text="a")
        begun.wait(60)
        yield FINAL

    def find() -> None:
        looked.append(begun.is_set())

    events = explained(speaking(), find, look_s=0.001, mark=WaitingMark())
    assert next(events).text == "a"
    so_far = len(looked)
    threading.Timer(0.05, begun.set).start()
    assert next(events) == FINAL
    assert len(looked) == so_far


def test_dots_are_shown_until_there_is_something_to_say(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("click._compat.isatty", lambda _stream: True)  # else click erases nothing
    tap, trouble = Tap(FINAL), Trouble("shut", "it is shut")
    mark = WaitingMark(can_erase=True)
    list(explained(tap, lambda: tap.find(None, None, trouble, None), look_s=0.001, mark=mark))
    printed = capsys.readouterr()
    assert printed.out == "...\r\x1b[K"
    assert printed.err == "[Waiting: it is shut]\n"


# --- what is found


def status(
    state: JobState = JobState.QUEUED, code: str | None = None, age_s: float = 2
) -> JobStatus:
    return JobStatus(
        job_id="j",
        state=state,
        turn=TurnState.NONE,
        attempts=1,
        created_at=NOW - timedelta(seconds=age_s),
        deadline=NOW + timedelta(hours=1),
        code=code,
    )


def gate(code: str, fault: Fault, name: str = f"claude/{MODEL}", by: str = "") -> Gate:
    since = NOW - timedelta(seconds=90)
    return Gate(name, GateState.SHUT, code, fault, since, NOW, by=by, reason="moving" if by else "")


def found(
    one: JobStatus,
    *gates: Gate,
    workers: tuple[WorkerSeen, ...] = (AT,),
    waits: Waits = NOT_KNOWN,
) -> str:
    shards = [Overview(NOW, 1, 0, 0, 0, workers, {}, ())]
    seen = trouble(one, gates, shards, MODEL, waits)
    return seen.text if seen else ""


@pytest.mark.parametrize(
    ("shut", "says"),
    [
        (gate("key_refused", Fault.OPERATOR), "the API key (key_refused) for 1.5 min. Set ANTHRO"),
        (gate("billing", Fault.OPERATOR), "no credit (billing) for 1.5 min. Look at the account"),
        (gate("model_not_found", Fault.OPERATOR), "Set AFTERWORD_MODEL"),
        (gate("overloaded", Fault.PROVIDER), "overloaded (overloaded) for 1.5 min. Nothing to do"),
        (gate("rate_limited", Fault.PROVIDER), "(rate_limited)"),
        (gate("connection_refused", Fault.PROVIDER), "Check ANTHROPIC_BASE_URL"),
        (gate("of_a_newer_version", Fault.PROVIDER), "Claude cannot be asked (of_a_newer_version)"),
        (gate("shut_by_hand", Fault.OPERATOR, by="ann"), "shut by ann: moving. Open it if"),
    ],
)  # fmt: skip
def test_a_shut_gate_says_what_is_wrong_and_what_to_do(shut: Gate, says: str) -> None:
    said = found(status(), shut)
    assert says in said
    assert said.endswith("Your message waits for up to 1.0 h")


def test_the_gate_of_the_model_that_replies_comes_first_and_those_of_memory_do_not_count() -> None:
    other = gate("overloaded", Fault.PROVIDER, "claude/claude-haiku-5-5")
    assert "(billing)" in found(status(), other, gate("billing", Fault.OPERATOR))
    assert found(status(), gate("store_busy", Fault.PROVIDER, "recall")) == ""


def test_without_a_worker_nothing_else_matters() -> None:
    silent = WorkerSeen("responses@here", "replies", NOW - timedelta(minutes=1))
    memories = WorkerSeen("memories@here", "memories", NOW)
    shut = gate("billing", Fault.OPERATOR)
    said = found(status(), shut, workers=(silent, memories))
    assert said.startswith("no response worker is running. Start one: afterword worker responses.")


def test_an_attempt_that_failed_is_told_while_no_gate_is_shut() -> None:
    assert "limits the requests" in found(status(code="rate_limited"))
    assert "rate limit with Claude has no room" in found(status(code="quota_used_up"))


def test_only_time_is_no_trouble_until_it_is_long() -> None:
    assert found(status()) == ""
    assert "workers are busy" in found(status(age_s=11))
    assert "the model has not begun to answer" in found(status(JobState.RUNNING, age_s=11))


def test_what_an_operator_lets_wait_is_told_at_once() -> None:
    said = found(status(), waits=Waits("an order: pause-replies by ann", NOW))
    assert said.startswith("it waits for an order: pause-replies by ann until 2026-11-30 12:00:00Z")
    assert "See afterword job j." in said


@pytest.mark.parametrize("what", [AT_CAP, "an earlier message of its conversation"])
def test_workers_are_busy_only_if_a_job_waits_for_one(what: str) -> None:
    assert found(status(), waits=Waits(what)) == ""
    assert found(status(age_s=11), waits=Waits(what)).startswith(f"it waits for {what}. See")
    ready = Waits("a response worker, behind 3 of its tenant's jobs")
    assert "workers are busy" in found(status(age_s=11), waits=ready)


def test_a_memory_that_cannot_be_read_says_what_is_wrong_and_what_to_do() -> None:
    assert unread("key_refused").startswith("mem0 refuses the API key (key_refused). Set MEM0_API")
    assert unread("of_a_newer_version").endswith("(of_a_newer_version). Run afterword doctor")
    assert "()" not in unread("")


def test_a_gate_that_somebody_has_to_help_does_not_say_that_there_is_nothing_to_do() -> None:
    """A disk that is full is the provider's fault, and does not become empty by itself."""
    page = (ROOT / "docs/reference/codes.md").read_text()
    rows = [line.split("|")[1:5] for line in page.splitlines() if line.startswith("| `")]
    helped = [
        code
        for codes, fault, _, cure in (row for row in rows if len(row) == 4)
        if fault.strip().startswith("provider") and not cure.strip().startswith("nothing")
        for code in re.findall(r"`(\w+)`", codes)
    ]
    assert {"store_full", "connection_refused", "embedder_failed"} <= {*helped}
    for code in helped:
        (judged,) = of_gates([gate(code, Fault.PROVIDER, "remember")])
        assert "Nothing" not in judged.remedy, code
    (judged,) = of_gates([gate("overloaded", Fault.PROVIDER)])
    assert judged.remedy == "Nothing to do: it is tried again by itself"
    (judged,) = of_gates([gate("newly_invented", Fault.REQUEST)])
    assert judged.remedy == "Once it works, what waits resumes by itself."


def test_every_code_that_has_words_is_in_the_reference() -> None:
    page = (ROOT / "docs/reference/codes.md").read_text()
    assert OF_MEMORY.keys() <= set(re.findall(r"`(\w+)`", page))
    known = set(re.findall(r"`(\w+)`", page.partition("## Why a turn is not stored")[0]))
    assert OF_A_MODEL.keys() <= known
