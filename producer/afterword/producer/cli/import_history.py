"""`afterword import`: past conversations of a file go to memory, and none is answered."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.admin.history import ImportCounts, ImportProgress
from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import InputFile, by_option, json_option
from afterword.producer.cli.terminal import echo
from afterword.shared.plurals import quantity

_LINE_EVERY_S = 5.0


@command(
    name="import",
    exit_1="turns of users that are about to be erased were left out",
    examples=["afterword import history.jsonl", "afterword import history.jsonl --json"],
)
@click.argument("file", type=InputFile())
@by_option
@json_option
def import_history(*, file: Path, by: str | None, as_json: bool) -> None:
    """Import past turns into memory.

    FILE has one turn a line, as JSON: user_id, message and at, and if known reply, tenant,
    conversation_id, timezone and key. Every line is checked before anything is written. Each turn
    goes to memory as if it had been answered here; no model is called for a reply. Repeat the
    command to resume an import: what was imported in the last 90 days is left out.
    """
    with _progress() as progress:
        counts = asyncio.run(_import(file, by, progress))
    if as_json:
        render.json_record(counts)
    else:
        echo(_line(counts))
    if counts.erased:
        raise click.exceptions.Exit(1)


async def _import(file: Path, by: str | None, progress: ImportProgress) -> ImportCounts:
    async with AsyncOperator(by=by) as operator:
        return await operator.import_history(file, progress)


def _line(counts: ImportCounts) -> str:
    left_out = f", {counts.erased} left out: their users are about to be erased"
    imported = quantity(counts.imported, "turn")
    line = f"{imported} imported, {counts.known} imported before"
    return line + (left_out if counts.erased else "")


@contextmanager
def _progress() -> Iterator[ImportProgress]:
    """Show how far the import is, on standard error: a bar on a terminal, lines elsewhere."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    bar: Any = None

    def show(counts: ImportCounts, total: int) -> None:
        nonlocal bar
        bar = bar or click.progressbar(length=total, label="import", file=sys.stderr)
        bar.update(counts.turns - bar.pos)

    try:
        yield show
    finally:
        if bar is not None:
            bar.render_finish()


def _lines() -> ImportProgress:
    printed_s = float("-inf")

    def show(counts: ImportCounts, total: int) -> None:
        nonlocal printed_s
        now_s = asyncio.get_running_loop().time()
        if now_s - printed_s >= _LINE_EVERY_S:
            echo(f"{counts.turns} of {quantity(total, 'turn')}", err=True)
            printed_s = now_s

    return show
