"""Whether what a command printed with `--json` is what its schema says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import click
from jsonschema import Draft202012Validator

from afterword.producer.cli.json_schemas import json_schema
from afterword.producer.cli.main import cli


def assert_fits_schema(arguments: Sequence[str], printed: str) -> None:
    """Fail if a command's output is another; one that prints no JSON prints what it likes."""
    found = _parsed(arguments)
    if found is None:
        return
    name, chosen = found
    lines = name in ("dead export", "submit --stream") or (
        name.startswith("status") and chosen.get("every_s")
    )
    values = map(json.loads, printed.splitlines()) if lines else [json.loads(printed)]
    for value in values:
        _validator(name).validate(value)


@cache
def _validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(
        json_schema(name), format_checker=Draft202012Validator.FORMAT_CHECKER
    )


def _parsed(arguments: Sequence[str]) -> tuple[str, dict[str, Any]] | None:
    """Return the name of what a command prints, and its options; None if that is no JSON."""
    command: click.Command = cli
    words: list[str] = []
    rest = list(arguments)
    while isinstance(command, click.Group) and rest and rest[0] in command.commands:
        words.append(rest.pop(0))
        command = command.commands[words[-1]]
    if isinstance(command, click.Group) or command.name == "worker":
        return None
    # A command keeps the help option of the first context that it meets.
    names = cli.context_settings["help_option_names"]
    context = command.make_context(
        command.name, rest, resilient_parsing=True, help_option_names=names
    )
    chosen = context.params
    name = " ".join(words)
    if not (chosen.get("as_json") or name == "dead export"):
        return None
    return name + _case(chosen), chosen


def _case(chosen: dict[str, Any]) -> str:
    """Return which of several things it prints."""
    cases = {
        " JOB_ID": {"every_s", "with_content"} & {*chosen} and chosen.get("job_id"),
        " --user": "with_content" in chosen and chosen.get("user_id"),
        " RUN_ID": "limit" in chosen and chosen.get("run_id"),
        " --stream": chosen.get("stream"),
        " --wait": "stream" in chosen and chosen.get("wait_s"),
    }
    return next((case for case, holds in cases.items() if holds), "")
