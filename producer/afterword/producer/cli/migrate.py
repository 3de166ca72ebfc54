"""`afterword migrate memories`: copies all memories to another backend, and compares both."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from pydantic import BaseModel

from afterword.producer.admin.migration_pause import MigrationPause
from afterword.producer.admin.operator_name import user_and_host
from afterword.producer.checked_ledger import CheckedLedger
from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.interruptible import run_interruptible
from afterword.producer.cli.local_stack import require
from afterword.producer.cli.options import (
    InputFile,
    NumberRange,
    apply_option,
    by_option,
    json_option,
)
from afterword.producer.cli.terminal import echo, tell_of_dry_run
from afterword.producer.cli.workers_seen import open_ledger, running
from afterword.shared.discovery import settings_in_use
from afterword.shared.errors import LeaseLost, Misconfigured
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.names import lane_id, user_of
from afterword.shared.settings import Settings

if TYPE_CHECKING:
    from afterword.workers.memories.migrate import Counts, MemoryMigration, Progress
    from afterword.workers.ports import MigratableMemories

_BACKENDS = click.Choice(["hosted", "selfhosted", "embedded"])


class MigrationReport(BaseModel):
    """What a migration found and did in its last pass over all users.

    `verified` is true if the target then held just what the source held. The counts are explained
    in [Move memories](../how-to/move-memories.md).
    """

    source: str
    target: str
    applied: bool
    verified: bool
    passes: int
    users: int
    memories: int
    present: int
    copied: int
    edited: int
    removed: int
    dropped: int
    own: int
    unreadable: int
    refused: int
    erased: int
    strangers: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Migration:
    """What was asked for: the settings of both sides, and how."""

    source: Settings
    target: Settings
    rate: float
    pause: bool
    apply: bool
    by: str

    @property
    def name(self) -> str:
        """Return an id of both places, which reveals neither."""
        places = [
            f"{one.backend} {one.mem0_host} {_text(one.mem0_api_key)} {_text(one.postgres_url)} "
            f"{one.data_dir} {one.memory_owner}"
            for one in (self.source, self.target)
        ]
        return hashlib.sha256("\n".join(places).encode()).hexdigest()[:16]

    @property
    def words(self) -> dict[str, str]:
        """Return both backends, for people and for the audit."""
        return {"from": self.source.backend, "to": self.target.backend}


@click.group()
def migrate() -> None:
    """Move what is kept to another place."""


@command(
    exit_1="the target does not hold just what the source holds, or a backend is away",
    examples=[
        "afterword migrate memories --from embedded --to hosted --to-env hosted.env",
        "afterword migrate memories --from embedded --to hosted --to-env hosted.env --apply",
    ],
)
@click.option(
    "--from", "source", type=_BACKENDS, required=True, help="The backend in use (AFTERWORD_MEMORY)."
)
@click.option("--to", "target", type=_BACKENDS, required=True, help="The backend to copy to.")
@click.option(
    "--to-env",
    "file",
    type=InputFile(),
    help="File with the variables of the target, a NAME=VALUE in each line: its keys, address or "
    "folder. What it does not name is as in the environment.",
)
@click.option(
    "--rate",
    type=NumberRange(min=0, min_open=True, max=100_000),
    default=10.0,
    show_default=True,
    metavar="N",
    help="At most this many calls of the backends a second.",
)
@click.option(
    "--pause/--no-pause",
    default=True,
    show_default=True,
    help="While memory workers run, let memories wait during all passes but the first.",
)
@apply_option
@by_option
@json_option
def memories(  # noqa: PLR0913 the options of a command
    *,
    source: str,
    target: str,
    file: Path | None,
    rate: float,
    pause: bool,
    apply: bool,
    by: str | None,
    as_json: bool,
) -> None:
    """Copy the memories of all users to another backend.

    Both are compared until they are equal. Texts, times, jobs and conversations are kept, nothing
    is extracted again, and the source is not changed. It can be interrupted and run again at any
    time. While memory workers run, memories are paused once all users were copied, until both
    backends were compared again. For the last run, stop the memory workers; then start them with
    the new backend. Without --apply, it only counts what would be copied.
    """
    require("mem0", extra="workers")
    here = settings_in_use()
    if here.backend != source:
        raise Misconfigured(
            "AFTERWORD_MEMORY", f"is {here.backend} here; --from must be the backend in use"
        )
    there = _target_settings(here, target, file)
    asked = _Migration(here, there, rate, pause, apply, by or user_and_host())
    if _place(here) == _place(there):
        raise click.UsageError("source and target are the same: name the target's with --to-env")
    report = run_interruptible(_migrate(asked))
    if as_json:
        render.json_record(report)
    else:
        _print(report)
    if apply and not report.verified:
        raise click.exceptions.Exit(1)


def _target_settings(here: Settings, target: str, file: Path | None) -> Settings:
    """Return the settings with the target's variables over those of the environment."""
    named = _variables(file) if file is not None else {}
    there = Settings.load(os.environ | named | {"AFTERWORD_MEMORY": target})
    return there if "AFTERWORD_DATA_DIR" in named else _beside(there, here)


def _beside(there: Settings, here: Settings) -> Settings:
    """Return settings with the data folder of others."""
    return there.model_copy(update={"data_dir": here.data_dir})


def _variables(file: Path) -> dict[str, str]:
    """Read a file of variables; raise `UsageError` naming the line that is none."""
    found = {}
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        raise click.UsageError(f"--to-env: {file} cannot be read as text") from None
    for number, line in enumerate(lines, 1):
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if not equals or not name.isidentifier():
            raise click.UsageError(f"--to-env: line {number} of {file} is not NAME=VALUE")
        quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
        found[name] = value[1:-1] if quoted else value
    return found


def _place(settings: Settings) -> tuple[Any, ...]:
    """Return what distinguishes the place of memories from another."""
    match settings.backend:
        case "hosted":
            return ("hosted", settings.mem0_host, _text(settings.mem0_api_key))
        case "selfhosted":
            return ("selfhosted", _text(settings.postgres_url))
        case backend:
            return (backend, settings.data_dir)


def _text(secret: Any) -> str:
    return secret.get_secret_value() if secret else ""


async def _migrate(asked: _Migration) -> MigrationReport:
    async with open_ledger(asked.source) as checked:
        ledger = await (checked.get() if asked.apply else checked.for_reading())
        async with _opened(asked.source) as source, _opened(asked.target) as target:
            if asked.apply:
                progress = await _copied(asked, checked, source, target)
            else:
                progress = await _work(asked, ledger, source, target).run(_progress(""))
        if asked.apply and running(await ledger.maintenance.overview(), "memories"):
            echo(
                "Memory workers run: what they store from now on is only in the source. Stop them "
                "and run this once more before you start them with the new backend.",
                err=True,
            )
    return MigrationReport(
        source=asked.source.backend,
        target=asked.target.backend,
        applied=asked.apply,
        verified=progress.counts.equal,
        passes=progress.number,
        **progress.counts.model_dump(),
    )


async def _copied(
    asked: _Migration,
    checked: CheckedLedger,
    source: MigratableMemories,
    target: MigratableMemories,
) -> Progress:
    ledger = checked.ledger
    lease = await ledger.migrations.begin(asked.name)
    token = secrets.token_hex(8)
    await ledger.replay_runs.add_audit_entry(asked.by, "migrate memories", asked.words, token)
    pauses = asked.pause and running(await ledger.maintenance.overview(), "memories")
    pause = MigrationPause(checked, asked.by, asked.name) if pauses else None

    async def keep(progress: Progress) -> None:
        await lease.keep(progress.model_dump_json())
        if pause is not None:
            await pause.extend()

    try:
        return await _work(asked, ledger, source, target, keep).run(
            _progress(lease.progress), pause.begin if pause else None
        )
    finally:
        if pause is not None:
            await pause.end()
        with suppress(LeaseLost):
            await lease.leave()


def _work(
    asked: _Migration,
    ledger: Ledger,
    source: MigratableMemories,
    target: MigratableMemories,
    keep: Callable[[Progress], Awaitable[None]] | None = None,
) -> MemoryMigration:
    from afterword.workers.memories.migrate import MemoryMigration, Rules

    rules = Rules(
        asked.rate, asked.source.shards, asked.apply, asked.target.visible_s, on_wait=_tell_of_wait
    )
    return MemoryMigration(source, target, ledger.erasures, rules, keep, _name_difference)


def _progress(kept: str) -> Progress:
    from afterword.workers.memories.migrate import Progress

    return Progress.read(kept)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[MigratableMemories]:
    from afterword.workers.wiring import open_memories

    memories = await open_memories(settings)
    assert memories is not None, "only `off` opens none"
    try:
        yield memories
    finally:
        await memories.aclose()


def _tell_of_wait(seconds: float, code: str) -> None:
    echo(f"A backend does not answer as it should ({code}); next try in {seconds:g} s", err=True)


def _name_difference(owner: str, counts: Counts) -> None:
    tenant, user_id = user_of(lane_id(owner, 0))
    wrong = {"own": counts.own, "unreadable": counts.unreadable, "refused": counts.refused}
    found = ", ".join(f"{count} {name}" for name, count in wrong.items() if count)
    echo(f"user {user_id} of tenant {tenant}: {found}", err=True)


def _print(report: MigrationReport) -> None:
    render.record(report)
    if not report.applied:
        tell_of_dry_run("copy them")
    elif report.verified:
        echo(f"Verified: {report.target} holds what {report.source} holds.")
    else:
        echo(f"Not equal yet: {_why(report)}")


def _why(report: MigrationReport) -> str:
    if report.copied + report.edited + report.removed:
        return "memories were stored meanwhile. Stop the memory workers, and run this again."
    return "the users whose memories differ are named above."


migrate.add_command(memories)
