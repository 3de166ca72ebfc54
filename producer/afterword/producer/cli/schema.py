"""`afterword schema`: the JSON Schema of what a command prints with `--json`."""

from __future__ import annotations

import click

from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.json_schemas import PRINTED, json_schema
from afterword.producer.cli.terminal import echo
from afterword.shared.errors import InvalidRequest


@command(
    offline=True,
    examples=["afterword schema", "afterword schema status", "afterword schema dead list"],
)
@click.argument("words", metavar="[COMMAND]...", nargs=-1)
def schema(*, words: tuple[str, ...]) -> None:
    """Print the JSON Schema of what a command prints with --json.

    Without a command, list those that print JSON; some print several things, as `status` and
    `status JOB_ID`. Of a command that prints an object a line, it is the schema of one. No setting
    and no Redis is needed.
    """
    if not words:
        for name in PRINTED:
            echo(name)
        return
    name = " ".join(words)
    if name not in PRINTED:
        raise InvalidRequest("words", f"{name!r} prints no JSON; see: afterword schema")
    render.json_record(json_schema(name))
