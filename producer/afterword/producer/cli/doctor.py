"""`afterword doctor`: whether a job would be accepted, answered and remembered now."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from functools import partial

import click

from afterword.producer.cli import render
from afterword.producer.cli.checks.broker import look_at_broker
from afterword.producer.cli.checks.claude import look_at_claude
from afterword.producer.cli.checks.finding import Finding, Level, fail, ok, run_all
from afterword.producer.cli.checks.ledger import look_at_ledger
from afterword.producer.cli.checks.memory import look_at_memory
from afterword.producer.cli.command import command
from afterword.producer.cli.options import json_option
from afterword.producer.cli.terminal import echo
from afterword.shared.discovery import settings_in_use
from afterword.shared.errors import AfterwordError

_MARKS = {Level.OK: "ok  ", Level.WARN: "warn", Level.FAIL: "FAIL"}


@command(
    exit_1="a check failed, a wrong setting included; with --strict: or warned",
    examples=["afterword doctor", "afterword doctor --strict --json"],
)
@click.option("--strict", is_flag=True, help="Exit with 1 for warnings, too.")
@json_option
def doctor(*, strict: bool, as_json: bool) -> None:
    """Check whether a job would be accepted, answered and remembered now.

    For each problem it prints what to do. It takes ten seconds at most and costs nothing: Claude
    counts tokens, and mem0's platform is only searched. What it writes to Redis, a broker or a
    memory of your own, it deletes at once.
    """
    findings, hangs = _examine()
    if as_json:
        render.json_record(findings)
    else:
        _print(findings)
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
    _import_clients()
    looks = {
        "redis": partial(look_at_ledger, settings),
        "broker": partial(look_at_broker, settings),
        "claude": partial(look_at_claude, settings),
        "memory": partial(look_at_memory, settings),
    }
    findings, hangs = run_all(looks)
    return [ok("settings", f"valid, memory backend {settings.backend}"), *findings], hangs


def _import_clients() -> None:
    """Import what takes seconds on a busy machine, before any check's time runs."""
    if importlib.util.find_spec("anthropic") is not None:
        importlib.import_module("anthropic")
        importlib.import_module("afterword.workers.wiring")


def _print(findings: Sequence[Finding]) -> None:
    for finding in findings:
        echo(f"{_MARKS[finding.level]}  {finding.check}: {finding.detail}")
        if finding.remedy:
            echo(f"      -> {finding.remedy}")
