"""Words that the shell and the console have in common: one wording for what is the same."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from afterword.producer import Memory, ReplayPace, ReplayRun, ReplayState
from afterword.producer.admin.wording import run_state, with_reason
from afterword.producer.cli import render
from afterword.producer.cli.terminal import tell_of_dry_run
from afterword.producer.web import rendering
from tests.conftest import ROOT

AT = datetime(2026, 12, 1, tzinfo=UTC)


def run(state: ReplayState, reason: str = "") -> ReplayRun:
    return ReplayRun(
        id="r1", by="olga", started_at=AT, updated_at=AT, filter={}, pace=ReplayPace(),
        state=state, reason=reason, dead_letters=1, canary_passed=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("state", "reason", "said"),
    [
        (ReplayState.DONE, "", "done"),
        (ReplayState.STOPPED, "canary_buried", "stopped (canary_buried)"),
        (ReplayState.RUNNING, "", "running, last step 1.5 min ago"),
    ],
)
def test_the_state_of_a_run_has_one_wording(state: ReplayState, reason: str, said: str) -> None:
    assert run_state(run(state, reason), AT + timedelta(seconds=90)) == said
    if state is not ReplayState.RUNNING:
        assert render.replay_state(run(state, reason)) == said
        assert rendering.run_state(run(state, reason)) == said


def test_a_state_without_a_reason_stands_alone() -> None:
    assert (with_reason("failed", "too_long"), with_reason("queued", None)) == (
        *("failed (too_long)", "queued"),
    )


def test_a_dry_run_says_how_it_becomes_true(capsys: pytest.CaptureFixture[str]) -> None:
    tell_of_dry_run("erase this user")
    tell_of_dry_run("fix them", option="--fix", err=True)

    told = capsys.readouterr()
    assert told.out == "Nothing was changed. Add --apply to erase this user.\n"
    assert told.err == "Nothing was changed. Add --fix to fix them.\n"


def test_no_command_words_its_dry_run_by_itself() -> None:
    commands = (ROOT / "producer/afterword/producer/cli").glob("*.py")
    found = [one.name for one in commands if "Nothing was changed" in one.read_text()]
    assert found == ["terminal.py"]


def test_a_table_without_rows_says_that_there_is_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    render.replay_runs([])
    head, *rows = capsys.readouterr().out.splitlines()
    assert (head.split()[0], rows) == ("run", ["none"])
    render.replay_runs([run(ReplayState.DONE)])
    assert "none" not in capsys.readouterr().out


def test_times_have_one_form_on_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    render.replay_run(run(ReplayState.DONE), {})
    assert "started_at: 2026-12-01 00:00:00.000Z\n" in capsys.readouterr().out
    render.record(Memory(id="m", text="I like tea.", created_at=AT + timedelta(milliseconds=7)))
    assert "created_at: 2026-12-01 00:00:00.007Z\n" in capsys.readouterr().out
