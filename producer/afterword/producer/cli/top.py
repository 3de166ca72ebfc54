"""`afterword top`: the fleet, live, on a whole terminal."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import click

from afterword.producer.admin.fleet_status import look_at
from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.cli.command import command
from afterword.producer.cli.options import Duration, late_option
from afterword.producer.cli.terminal import one_line
from afterword.producer.cli.top_screen import History, Look, screen
from afterword.producer.cli.watch import SHORTEST_S, checked_interval
from afterword.producer.cli.workers_seen import open_ledger
from afterword.shared.clock import utc_now
from afterword.shared.errors import LedgerUnavailable
from afterword.shared.ledger.dead_letter_records import ReplayState

if TYPE_CHECKING:
    from prompt_toolkit import Application
    from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

#: Replay runs that are looked at; those that run are shown.
_RUNS = 10

_SLOWEST_S = 60.0

_STYLE = {"head": "bold", "late": "ansiyellow", "bad": "ansired bold"}


@command(examples=["afterword top", "afterword top --every 5s --late 10m"])
@click.option(
    "--every",
    "every_s",
    type=Duration(),
    default="2s",
    show_default=True,
    help="Look at the ledger this often.",
)
@late_option
def top(*, every_s: float, late_s: float) -> None:
    """Show queues, workers, gates, late users and replays, live.

    Keys: q quits, space pauses, r looks at once, + and - look less and more often. For a file or a
    pipe, use `afterword status --watch`. Nothing is changed.
    """
    checked_interval(every_s)
    asyncio.run(_top(every_s, late_s))


async def _top(every_s: float, late_s: float) -> None:
    async with open_ledger() as checked:
        await checked.for_reading()
        if not (sys.stdin.isatty() and sys.stdout.isatty()):
            raise click.UsageError("top needs a terminal; use: afterword status --watch")
        await Top(checked, every_s, late_s).run()


class Top:
    """Looks at the ledger and draws what it found, until somebody quits.

    A look that fails is said on the screen, above the last that was good, until one succeeds.
    """

    def __init__(self, checked: CheckedLedger, every_s: float, late_s: float) -> None:
        self.history = History(late_s)
        self.every_s = every_s
        self.paused = False
        self._checked = checked
        self._wanted = asyncio.Event()

    async def run(self) -> None:
        """Draw until a key ends it."""
        application = self._application()
        looking = asyncio.create_task(self._keep_looking(application))
        try:
            await application.run_async()
        finally:
            looking.cancel()
            with suppress(asyncio.CancelledError):
                await looking

    async def look(self) -> None:
        """Look once."""
        try:
            ledger = self._checked.ledger
            seen = await look_at(ledger, self.history.late_s)
            runs = await ledger.replay_runs.newest(_RUNS)
            found = Look(
                at=utc_now(),
                at_s=time.monotonic(),
                status=seen.status,
                accounts=seen.accounts,
                runs=[run for run in runs if run.state is ReplayState.RUNNING],
                problems=seen.problems,
            )
        except LedgerUnavailable as error:
            self.history.failure = one_line(str(error))
        else:
            self.history.failure = ""
            self.history.looks.append(found)

    async def _keep_looking(self, application: Application[None]) -> None:
        while True:
            await self.look()
            application.invalidate()
            await self._next_look()

    async def _next_look(self) -> None:
        """Wait until a key, or the time unless paused, asks for another look."""
        self._wanted.clear()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._wanted.wait(), self.every_s)
        if self.paused:
            await self._wanted.wait()

    def _application(self) -> Application[None]:
        from prompt_toolkit import Application
        from prompt_toolkit.formatted_text import StyleAndTextTuples
        from prompt_toolkit.layout import FormattedTextControl, Layout, Window
        from prompt_toolkit.styles import Style

        def drawn() -> StyleAndTextTuples:
            return [*screen(self.history, every_s=self.every_s, paused=self.paused)]

        return Application(
            layout=Layout(Window(FormattedTextControl(drawn), wrap_lines=False)),
            key_bindings=self._keys(),
            style=Style.from_dict(_STYLE),
            full_screen=True,
        )

    def _keys(self) -> KeyBindings:
        from prompt_toolkit.key_binding import KeyBindings

        keys = KeyBindings()
        for key, handle in {
            "q": self._quit,
            "c-c": self._quit,
            "space": self._pause,
            "r": self._look_now,
            "+": self._slower,
            "-": self._faster,
        }.items():
            keys.add(key)(handle)
        return keys

    def _quit(self, event: KeyPressEvent) -> None:
        event.app.exit()

    def _pause(self, _: KeyPressEvent) -> None:
        self.paused = not self.paused
        if not self.paused:
            self._wanted.set()

    def _look_now(self, _: KeyPressEvent) -> None:
        self._wanted.set()

    def _slower(self, _: KeyPressEvent) -> None:
        self.every_s = min(self.every_s * 2, _SLOWEST_S)

    def _faster(self, _: KeyPressEvent) -> None:
        self.every_s = max(self.every_s / 2, SHORTEST_S)
        self._wanted.set()
