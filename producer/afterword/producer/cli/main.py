"""The command `afterword`: its verbs, its exit codes, one line per error."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from afterword.producer.cli import (
    account,
    chat,
    dead,
    doctor,
    forget,
    healthcheck,
    quarantine,
    replay,
    stack,
    status,
    submit,
    usage,
)
from afterword.shared.errors import AfterwordError, InvalidRequest, JobNotFound, Misconfigured
from afterword.shared.version import __version__

#: What the caller has to mend: docs/reference/exit-codes.md has a table of all of them.
_USAGE = (InvalidRequest, Misconfigured, JobNotFound)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def cli() -> None:
    """Chat replies that remember each user, and never wait for memory.

    Settings come from the environment: see docs/reference/settings.md, or `afterword doctor`.
    """


for command in (
    account.account,
    healthcheck.healthcheck,
    replay.audit,
    chat.chat,
    dead.dead,
    doctor.doctor,
    forget.forget,
    quarantine.quarantine,
    account.reconcile,
    stack.up,
    stack.worker,
    status.status,
    submit.submit,
    usage.usage,
):
    cli.add_command(command)


def main() -> NoReturn:
    """Run the command line; every error of ours is one line on standard error."""
    try:
        # Outside its standalone mode, click returns the exit code that a command raised.
        code = cli.main(prog_name="afterword", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(130)
    except AfterwordError as error:
        click.echo(f"afterword: {error}", err=True)
        sys.exit(2 if isinstance(error, _USAGE) else 1)
    sys.exit(code)
