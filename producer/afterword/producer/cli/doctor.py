"""`afterword doctor`: whether a job would be accepted, answered and remembered now."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial

import click

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.cli import render
from afterword.producer.cli.checks.broker import look_at_broker
from afterword.producer.cli.checks.claude import look_at_claude
from afterword.producer.cli.checks.finding import Finding, Level, fail, ok, run_all
from afterword.producer.cli.checks.ledger import look_at_ledger
from afterword.producer.cli.checks.memory import look_at_memory
from afterword.producer.cli.command import command
from afterword.producer.cli.drill import Drill
from afterword.producer.cli.interruptible import run_interruptible
from afterword.producer.cli.options import Duration, json_option
from afterword.producer.cli.terminal import echo
from afterword.producer.client.async_client import AsyncProducer
from afterword.shared.discovery import settings_in_use
from afterword.shared.errors import AfterwordError, InvalidRequest
from afterword.shared.settings import Settings

#: The memories whose mem0 runs in this process, and what imports that.
_OPEN_SOURCE = ("embedded", "selfhosted")
_IMPORT_GUARD = "afterword.workers.adapters.mem0.import_guard"

_MARKS = {Level.OK: "ok  ", Level.WARN: "warn", Level.FAIL: "FAIL"}


@command(
    exit_1="a check failed, a wrong setting included; with --strict: or warned",
    examples=[
        "afterword doctor",
        "afterword doctor --strict --json",
        'afterword doctor --drill --restart "docker compose restart responses memories"',
    ],
)
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings, too.")
@click.option(
    "--drill",
    "drills",
    is_flag=True,
    help="If no check fails, let the fleet answer, remember, recall, replay and erase a user of "
    "its own. It asks Claude five times.",
)
@click.option(
    "--restart", metavar="COMMAND", help="During the drill, restart the workers by this command."
)
@click.option(
    "--timeout",
    "patience_s",
    type=Duration(),
    default="5m",
    show_default=True,
    help="Longest time for each step of the drill.",
)
@json_option
def doctor(
    *, strict: bool, drills: bool, restart: str | None, patience_s: float, as_json: bool
) -> None:
    """Check that jobs are accepted, answered and remembered.

    For each problem it prints what to do. It takes ten seconds at most and costs nothing: Claude
    counts tokens, and mem0's platform is only searched. What it writes to Redis, a broker or a
    memory of your own, it deletes at once. With --drill, the live fleet proves it, which takes some
    minutes: see the guide "Ask the doctor".
    """
    if restart and not drills:
        raise click.UsageError("--restart is a step of --drill")
    findings, hangs = _examine()
    show = _nothing if as_json else _print
    for finding in findings:
        show(finding)
    if drills and any(finding.level is Level.FAIL for finding in findings):
        echo("No drill: a check failed.", err=True)
    elif drills:
        findings += run_interruptible(_drill(patience_s, _words(restart), show))
    if as_json:
        render.json_record(findings)
    bad = {Level.FAIL, Level.WARN} if strict else {Level.FAIL}
    code = int(any(finding.level in bad for finding in findings))
    if hangs:  # in code that cannot be cancelled, and whose threads Python would wait for
        sys.stdout.flush()
        os._exit(code)
    if code:
        raise click.exceptions.Exit(code)


def _examine() -> tuple[list[Finding], bool]:
    try:
        settings = settings_in_use()
    except AfterwordError as error:
        return [fail("settings", str(error), "Fix this and run the command again.")], False
    _import_clients(settings)
    looks = {
        "redis": partial(look_at_ledger, settings),
        "broker": partial(look_at_broker, settings),
        "claude": partial(look_at_claude, settings),
        "memory": partial(look_at_memory, settings),
    }
    findings, hangs = run_all(looks)
    return [ok("settings", f"valid, memory backend {settings.backend}"), *findings], hangs


def _import_clients(settings: Settings) -> None:
    """Import what takes seconds on a busy machine, before any check's time runs."""
    if importlib.util.find_spec("anthropic") is not None:
        importlib.import_module("anthropic")
        importlib.import_module("afterword.workers.wiring")
    if importlib.util.find_spec("mem0") is not None and settings.backend in _OPEN_SOURCE:
        importlib.import_module(_IMPORT_GUARD).import_mem0()


async def _drill(
    patience_s: float, restart: Sequence[str], show: Callable[[Finding], None]
) -> list[Finding]:
    settings = settings_in_use()
    found: list[Finding] = []
    async with AsyncProducer(settings) as producer, AsyncOperator(settings) as operator:
        async for finding in Drill(producer, operator, settings, patience_s, restart).steps():
            show(finding)
            found.append(finding)
    return found


def _words(command: str | None) -> list[str]:
    try:
        return shlex.split(command or "")
    except ValueError as error:
        raise InvalidRequest("restart", str(error)) from None


def _print(finding: Finding) -> None:
    echo(f"{_MARKS[finding.level]}  {finding.check}: {finding.detail}")
    if finding.remedy:
        echo(f"      -> {finding.remedy}")


def _nothing(_: Finding) -> None:
    """Print nothing: the JSON of all comes at the end."""
