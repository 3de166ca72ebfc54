"""The command `afterword`: its commands, its exit codes, one line per error."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from afterword.producer.cli.account import account
from afterword.producer.cli.audit import audit
from afterword.producer.cli.budgets import budgets
from afterword.producer.cli.chat import chat
from afterword.producer.cli.command import SectionedGroup
from afterword.producer.cli.console import console
from afterword.producer.cli.dead import dead
from afterword.producer.cli.doctor import doctor
from afterword.producer.cli.drain import drain
from afterword.producer.cli.forget import forget
from afterword.producer.cli.gate import gate
from afterword.producer.cli.healthcheck import healthcheck
from afterword.producer.cli.import_history import import_history
from afterword.producer.cli.job import job
from afterword.producer.cli.keys import keys
from afterword.producer.cli.limits import limits
from afterword.producer.cli.memories import memories
from afterword.producer.cli.metrics import metrics
from afterword.producer.cli.migrate import migrate
from afterword.producer.cli.pause import pause, resume
from afterword.producer.cli.quarantine import quarantine
from afterword.producer.cli.reconcile import reconcile
from afterword.producer.cli.restored import restored
from afterword.producer.cli.schema import schema
from afterword.producer.cli.status import status
from afterword.producer.cli.steering import orders
from afterword.producer.cli.strike import strike
from afterword.producer.cli.submit import submit
from afterword.producer.cli.terminal import OutputFailed, echo, one_line
from afterword.producer.cli.top import top
from afterword.producer.cli.up import up
from afterword.producer.cli.usage import usage
from afterword.producer.cli.worker import worker
from afterword.shared.error_location import error_location, error_name
from afterword.shared.errors import (
    AfterwordError,
    InvalidRequest,
    JobNotFound,
    MemoryNotFound,
    Misconfigured,
)
from afterword.shared.version import __version__

#: What the caller has to fix: exit code 2.
_USAGE = (InvalidRequest, Misconfigured, JobNotFound, MemoryNotFound)


@click.group(
    cls=SectionedGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__)
def cli() -> None:
    """Chat replies that remember each user.

    Settings are read from the environment (AFTERWORD_REDIS_URL, ANTHROPIC_API_KEY, MEM0_API_KEY
    and others); without AFTERWORD_REDIS_URL, commands use the local stack that `afterword up` or
    `afterword chat` runs. `afterword doctor` checks them. Commands that destroy or repeat something
    change nothing without --apply.
    """


cli.add_section("Begin", chat, up, submit, doctor)
cli.add_section("Run", worker, healthcheck, metrics, console, keys)
cli.add_section("Look", status, top, job, account, usage, budgets, orders, audit)
cli.add_section("Steer", pause, resume, strike, limits, drain, gate)
cli.add_section("Repair", dead, quarantine, reconcile, restored)
cli.add_section("Memories of users", memories, forget, import_history, migrate)
cli.add_section("For programs", schema)


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; every error is one line on standard error, without a traceback."""
    _read_and_write_any_text()
    try:
        # Outside its standalone mode, click returns the exit code that a command raised.
        code = cli.main(args, prog_name="afterword", standalone_mode=False)
    except click.ClickException as error:
        shown = io.StringIO()
        error.show(shown)
        echo(shown.getvalue(), err=True, nl=False)
        sys.exit(2)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(130)
    except AfterwordError as error:
        echo(f"afterword: {one_line(str(error))}", err=True)
        sys.exit(2 if isinstance(error, _USAGE) else 1)
    except OutputFailed as error:
        _give_up_output()
        echo(f"afterword: what it prints cannot be written: {error}", err=True)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 a traceback could show what users said
        place = f"{error_name(error)} at {error_location(error)}"
        echo(f"afterword: {place}: this is a bug, please report this line", err=True)
        sys.exit(1)
    sys.exit(code)


def _give_up_output() -> None:
    """Drop what was printed and not written: Python would try again at its end, and complain."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _read_and_write_any_text() -> None:
    """Let bytes that are no text in this locale be refused or escaped, and end no command."""
    for stream, errors in (
        (sys.stdin, "surrogateescape"),
        (sys.stdout, "backslashreplace"),
        (sys.stderr, "backslashreplace"),
    ):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors)
