"""Standard streams that fail: no text under any locale, or a full disk. One clear error each."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.kit.servers.fork_server import COMMAND

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.spread]

#: A device that takes nothing, where there is one.
FULL = Path("/dev/full")

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


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a full device")
def test_an_output_that_cannot_be_written_is_told_in_one_line() -> None:
    with FULL.open("wb") as full:
        ended = subprocess.run(
            [*COMMAND, "schema"], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert ended.returncode == 1
    said = ended.stderr.decode()
    assert said == "afterword: what it prints cannot be written: No space left on device\n"
