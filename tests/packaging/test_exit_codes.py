"""The exit codes of the command line are those that the documents list."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from afterword.producer.cli.command import Command
from afterword.producer.cli.main import cli, main
from tests.conftest import ROOT

NOWHERE = "redis://127.0.0.1:1/0"
NO_JOB = f"j00_{1:032x}"

#: What each command needs to be understood.
NEEDS = {
    "submit": "hello --user ann",
    "healthcheck": "responses",
    "forget": "ann",
    "worker": "responses",
    "console": "--listen 127.0.0.1:0",
    "gate open": "recall",
    "keys create": "ann",
    "keys revoke": "none",
    "job": NO_JOB,
    "gate shut": "recall",
    "dead bury": NO_JOB,
    "pause": "replies",
    "resume": "replies",
    "strike": "acme",
    "limits": "acme --weight 2",
    "drain": "host:1",
    "dead show": NO_JOB,
    "dead replay": "--all",
    "dead discard": "--all",
    "import": "/dev/null",
    "memories list": "ann",
    "memories search": "ann birds",
    "memories show": "ann m",
    "memories edit": "ann m text",
    "memories delete": "ann m",
    "memories export": "ann",
    "migrate memories": "--from embedded --to hosted",
    "dead resume": "r0",
    "dead abort": "r0",
}

#: They start what they need, or become what they start.
STARTERS = frozenset({"chat", "up", "worker"})

#: It needs neither a setting nor Redis.
OFFLINE = "schema"


def commands(group: click.Group, before: str = "") -> list[str]:
    """Return all commands of a group, those of its groups among them."""
    found: list[str] = []
    for name, command in group.commands.items():
        found += commands(command, f"{name} ") if isinstance(command, click.Group) else [name]
    return [before + name for name in found]


def rows() -> dict[str, str]:
    """Return the table of commands in the documents: when the exit code of each is 1, besides."""
    text = (ROOT / "docs/reference/exit-codes.md").read_text()
    return dict(re.findall(r"^\| `([a-z ]+)` \|(?: (.+?))? \|$", text, re.MULTILINE))


def listed() -> list[str]:
    return list(rows())


def found(command: str) -> Command:
    """Return a command by its name."""
    there: click.Command = cli
    for name in command.split():
        assert isinstance(there, click.Group)
        there = there.commands[name]
    assert isinstance(there, Command)
    return there


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AFTERWORD_REDIS_URL", NOWHERE)
    monkeypatch.setenv("AFTERWORD_SUBMIT_TIMEOUT_S", "0.1")
    monkeypatch.setenv("AFTERWORD_MEMORY", "off")


def code_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Return the exit code of a command line."""
    monkeypatch.setattr(sys, "argv", ["afterword", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def line(command: str) -> list[str]:
    return [*command.split(), *NEEDS.get(command, "").split()]


def test_every_command_is_listed_once() -> None:
    assert sorted(listed()) == sorted(commands(cli))


@pytest.mark.parametrize("command", listed())
def test_the_help_says_what_the_documents_say(command: str) -> None:
    assert found(command).exit_1 == rows()[command].replace("`", "")


@pytest.mark.parametrize("command", listed())
def test_the_help_names_redis_and_settings_where_they_are_used(command: str) -> None:
    codes = found(command).exit_codes()
    told = ("Redis" in codes.get("1", ""), "setting" in codes["2"])
    assert told == (command != OFFLINE, command != OFFLINE)


@pytest.mark.parametrize("command", listed())
def test_the_help_shows_command_lines_that_are_understood(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("history.jsonl", "hosted.env"):
        (tmp_path / name).touch()
    assert found(command).examples
    for example in found(command).examples:
        words = shlex.split(example)
        words = words[words.index("afterword") + 1 :]
        words = words[: next((at for at, word in enumerate(words) if word in "<>|"), None)]
        assert " ".join(words).startswith(command)
        arguments = words[len(command.split()) :]
        # The parent counts: click keeps the names of the help option of the first context.
        parent = click.Context(cli, **cli.context_settings)
        with found(command).make_context(command, arguments, parent) as context:
            assert context.command.name == command.rsplit(maxsplit=1)[-1]


@pytest.mark.parametrize("command", listed())
def test_help_is_0_and_a_wrong_option_2(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    assert code_of(monkeypatch, *command.split(), "--help") == 0
    if command != "worker":  # its further options are Celery's
        assert code_of(monkeypatch, *line(command), "--no-such-option") == 2


@pytest.mark.parametrize("command", listed())
def test_a_wrong_setting_is_2_but_a_finding_of_the_doctor(
    monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("AFTERWORD_FOO", "1")
    expected = {"doctor": 1, OFFLINE: 0}.get(command, 2)
    assert code_of(monkeypatch, *line(command)) == expected


@pytest.mark.parametrize("command", [name for name in listed() if name not in {*STARTERS, OFFLINE}])
def test_a_redis_that_is_away_is_1(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    if command == "migrate memories":
        monkeypatch.setenv("AFTERWORD_MEMORY", "embedded")
    assert code_of(monkeypatch, *line(command)) == 1


def test_what_a_command_does_fits_into_the_list_of_commands_on_a_narrow_terminal() -> None:
    def groups(group: click.Group, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        for name, command in group.commands.items():
            if isinstance(command, click.Group):
                yield from groups(command, (*path, name))

    for path in groups(cli, ()):
        told = CliRunner().invoke(cli, [*path, "--help"], terminal_width=78).output  # of 80 columns
        listed = told.partition("Show this message and exit.\n")[2].splitlines()
        assert listed, path
        assert [line for line in listed if line.endswith("...")] == [], path
