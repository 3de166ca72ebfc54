"""The door of the command line: whatever a person or a script types after `afterword`."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import click
import pytest
from hypothesis import strategies as st

from afterword.producer.cli.main import cli
from tests.kit.command_line import afterword
from tests.kit.fuzz.broken import EXTREMES
from tests.kit.fuzz.doors import door

CANARY = "marmalade"
ENV = {
    "AFTERWORD_REDIS_URL": f"redis://u:{CANARY}@127.0.0.1:1/0",
    "AFTERWORD_SUBMIT_TIMEOUT_S": "0.001",
}
JOB = "j00_" + "0" * 32

#: They would start processes, or call Claude.
STARTERS = frozenset({"chat", "doctor", "up", "worker"})

#: With them, a command goes on until it is interrupted.
ENDLESS = frozenset({"--watch"})


class Verb(NamedTuple):
    """A command, and the names of its options."""

    words: tuple[str, ...]
    options: tuple[str, ...]


def verbs(group: click.Group, *before: str) -> Iterator[Verb]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from verbs(command, *before, name)
        elif name not in STARTERS:
            options = {one for parameter in command.params for one in parameter.opts}
            yield Verb((*before, name), tuple(sorted(options - ENDLESS)))


VERBS = list(verbs(cli))
VALUES = (
    st.sampled_from(
        [JOB, "r0", "ann", "acme", "10m", "3d", "1e400", "999999999999d", "2026-11-22T10:00",
         "9999-12-31", "0001-01-01", "-1", "0", "5", "nan", "inf", "{}", "[1]", "-", "--", "=",
         "\udcff", "-1d", "1" * 5000, "replies", "responses", "memory", "provider", "enqueue"]
    )
    | st.sampled_from([one for one in EXTREMES if isinstance(one, str) and len(one) < 1000])
    | st.text(max_size=20)
)  # fmt: skip


@st.composite
def lines(draw: st.DrawFn) -> tuple[str, ...]:
    """Draw a command line: a command that there is, and options and values that may not fit."""
    verb = draw(st.sampled_from(VERBS))
    known = st.sampled_from([one for one in verb.options if one.startswith("-")] or ["--help"])
    words = draw(st.lists(known | VALUES | st.tuples(known, VALUES).map("=".join), max_size=6))
    return tuple(word.replace("\0", "") for word in (*verb.words, *words))


@pytest.mark.finding(20)
@pytest.mark.finding(17)
@door("command line", argv=lines())
def test_a_command_line_is_run_or_refused(argv: tuple[str, ...]) -> None:
    printed = afterword(*argv, env=ENV, said="hello \udcff".encode(errors="surrogateescape"))

    assert printed.code in (0, 1, 2)
    assert CANARY not in printed.everything
    assert "Traceback" not in printed.everything
    shown = set(printed.everything) - set("\n\t\u200c\u200d")
    assert not [one for one in shown if unicodedata.category(one) in ("Cc", "Cf", "Cs")]


@pytest.mark.finding(20)
@pytest.mark.parametrize(
    ("argv", "named"),
    [
        ("usage --tenant \udcff", "--tenant"),
        ("usage --user \udcff", "--user"),
        ("dead runs \udcff", "RUN_ID"),
        ("dead resume \udcff", "RUN_ID"),
        ("dead list --since 999999999999d", "--since"),
        ("dead list --limit 0", "--limit"),
        ("dead list --tenant \udcff", "--tenant"),
        ("account --late 1e400", "--late"),
        ("account --late -5m", "--late"),
        ("account --tenant \udcff", "--tenant"),
        ("audit --limit 0", "--limit"),
        ("forget \udcff", "USER_ID"),
        ("forget ann --by \udcff", "--by"),
        ("dead discard \udcff", "JOB_ID"),
        ("dead replay --all --rate nan", "--rate"),
        ("dead replay --all --max-dead 0", "--max-dead"),
        ("migrate memories --from embedded --to hosted --rate nan", "--rate"),
        ("strike acme --per-minute nan", "--per-minute"),
        ("dead list --code \udcff", "--code"),
        ("submit x --user \udcff", "--user"),
        ("submit x --user ann --max-tokens 0", "--max-tokens"),
        ("submit x --user ann --metadata [1]", "--metadata"),
        ("submit \udcff --user ann", "MESSAGE"),
    ],
)
def test_a_wrong_value_is_named_as_it_was_typed(argv: str, named: str) -> None:
    printed = afterword(*argv.split(" "), env=ENV)
    assert printed.code == 2
    assert named in printed.stderr.splitlines()[-1]
