"""`afterword top` and `status --watch` on a real ledger: they look, and say when they cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from afterword.producer.admin.fleet_status import found_in
from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.cli.main import main
from afterword.producer.cli.top import Top
from afterword.producer.cli.watch import watch
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from tests.kit.ledger.builder import submit_and_answer, submit_job
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import until

pytestmark = pytest.mark.redis

#: Rarer than any test lasts: what is looked at meanwhile was asked for by a key.
HOUR_S = 3600.0

#: So long a look is tried: more than a Redis that has just started takes on a busy machine.
PATIENCE_S = 4.0


@dataclass
class Running:
    """A `Top` that somebody sits before."""

    top: Top
    keys: PipeInput
    ended: asyncio.Task[None]

    @property
    def looks(self) -> int:
        return len(self.top.history.looks)


@pytest.fixture
async def running(ledger: Ledger) -> AsyncIterator[Running]:
    top = Top(CheckedLedger(ledger), every_s=HOUR_S, late_s=300.0)
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        ended = asyncio.create_task(top.run())
        await until(lambda: top.history.looks, "it looked")
        yield Running(top, keys, ended)
        if not ended.done():
            keys.send_text("q")
        await ended


@pytest.fixture
def mortal() -> Iterator[Valkey]:
    """Give a Valkey that this test may kill."""
    with Valkey() as valkey:
        yield valkey


async def test_it_shows_what_is_in_the_ledger(ledger: Ledger) -> None:
    await submit_job(ledger, tenant="acme")
    top = Top(CheckedLedger(ledger), every_s=HOUR_S, late_s=300.0)
    await top.look()
    [look] = top.history.looks
    assert look.status["queues"]["replies"]["ready"] == 1
    assert [account.tenant for account in look.accounts] == ["acme"]


async def test_a_key_asks_for_a_look_at_once(ledger: Ledger, running: Running) -> None:
    await submit_and_answer(ledger)
    running.keys.send_text("r")
    await until(lambda: running.looks == 2, "it looked again")
    assert running.top.history.looks[-1].replies == 1


async def test_space_pauses_and_goes_on(running: Running) -> None:
    running.keys.send_text(" ")
    await until(lambda: running.top.paused, "it pauses")
    running.keys.send_text(" ")
    await until(lambda: not running.top.paused, "it goes on")


async def test_plus_and_minus_change_how_often_it_looks(running: Running) -> None:
    running.keys.send_text("-")
    await until(lambda: running.top.every_s == HOUR_S / 2, "more often")
    running.keys.send_text("++")
    await until(lambda: running.top.every_s == 60.0, "at least once a minute")


@pytest.mark.parametrize("key", ["q", "\x03"])
async def test_it_ends(running: Running, key: str) -> None:
    running.keys.send_text(key)
    await running.ended


async def test_it_says_while_redis_is_away_and_no_longer(
    settings: Settings, mortal: Valkey
) -> None:
    own = settings.model_copy(update={"redis_url": mortal.url})
    async with Ledger(own, patience_s=PATIENCE_S) as ledger:
        top = Top(CheckedLedger(ledger), every_s=HOUR_S, late_s=300.0)
        await top.look()
        mortal.kill()
        await top.look()
        assert "refused" in top.history.failure
        assert len(top.history.looks) == 1
        mortal.start()
        await top.look()
        assert (top.history.failure, len(top.history.looks)) == ("", 2)


async def test_a_watch_says_while_redis_is_away_and_goes_on(
    settings: Settings, mortal: Valkey, capsys: pytest.CaptureFixture[str]
) -> None:
    own = settings.model_copy(update={"redis_url": mortal.url})
    looks = 0
    async with Ledger(own, patience_s=PATIENCE_S) as ledger:

        async def look() -> int:
            nonlocal looks
            looks += 1
            if looks == 2:
                mortal.kill()
            if looks == 3:
                mortal.start()
            await found_in(ledger)
            return looks

        await watch(look, print, 0.001, until=lambda number: number == 3)
    said = capsys.readouterr()
    assert [line for line in said.out.splitlines() if line.isdigit()] == ["1", "3"]
    assert "refused" in said.err


async def test_without_a_terminal_it_names_another_command(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AFTERWORD_REDIS_URL", str(settings.redis_url))
    with pytest.raises(SystemExit) as ended:
        await asyncio.to_thread(main, ["top"])
    assert ended.value.code == 2
    assert "use: afterword status --watch" in capsys.readouterr().err


async def test_a_watched_job_is_looked_at_until_it_and_its_turn_are_settled(
    ledger: Ledger, settings: Settings, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    job_id = await submit_and_answer(ledger, remember=False)
    monkeypatch.setenv("AFTERWORD_REDIS_URL", str(settings.redis_url))
    monkeypatch.setenv("AFTERWORD_NAMESPACE", settings.namespace)
    with pytest.raises(SystemExit) as ended:
        await asyncio.to_thread(main, ["status", job_id, "--json", "--watch", "1h"])
    assert ended.value.code in (None, 0)
    [line] = capsys.readouterr().out.splitlines()
    assert '"state": "succeeded"' in line


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["top", "--every", "0.1"], "--every"),
        (["status", "--watch", "0.1"], "--watch"),
        (["status", "--watch", "j00_"], "is not a duration"),
    ],
)
def test_what_cannot_be_is_refused_before_a_look(
    arguments: list[str], error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert error in capsys.readouterr().err
