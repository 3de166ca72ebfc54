"""Standard input that is no text, under any locale: one clear error, before anything is sent."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.kit.servers.fork_server import COMMAND

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.spread]

NO_TEXT = b"a \xff caf\xe9\n"

#: Without Python's own mercy, the locale C is ASCII; the last one stands for any latin-1 locale.
LOCALES = (
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "C.UTF-8"},
    {"LC_ALL": "C", "PYTHONIOENCODING": "latin-1"},
)


def refused(argv: list[str], locale: dict[str, str], said: bytes) -> str:
    """Return what a command prints on standard error when it ends with 2."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
    env |= {"AFTERWORD_REDIS_URL": "redis://127.0.0.1:1/0"} | locale
    ended = subprocess.run(
        [*COMMAND, *argv], env=env, input=said, capture_output=True, timeout=60, check=False
    )
    assert ended.returncode == 2, ended.stderr
    return ended.stderr.decode()


@pytest.mark.parametrize("locale", LOCALES, ids=("ascii", "utf-8", "latin-1"))
def test_what_is_not_utf_8_is_refused_in_one_line_that_does_not_repeat_it(
    locale: dict[str, str],
) -> None:
    chat = refused(["chat"], locale, NO_TEXT)
    assert chat == "afterword: standard input: line 1 is not UTF-8\n"
    submit = refused(["submit", "-", "--user", "ann"], locale, NO_TEXT)
    assert submit.startswith("afterword: MESSAGE: must be valid Unicode")
    assert submit.count("\n") == 1
