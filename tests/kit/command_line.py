"""Runs the command line in this process, as a shell runs it in another."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from typing import NamedTuple

import pytest

from afterword.producer.cli.main import main


class Printed(NamedTuple):
    """What one command printed, and how it ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def everything(self) -> str:
        """All that it printed."""
        return self.stdout + self.stderr


def afterword(
    *argv: str, env: Mapping[str, str] | None = None, said: str | bytes = "", bug: bool = False
) -> Printed:
    """Run one command with settings and standard input; fail if it reports a bug of ours."""
    stdin = said.encode() if isinstance(said, str) else said
    streams = {
        "stdin": io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"),
        "stdout": io.TextIOWrapper(io.BytesIO(), encoding="utf-8"),
        "stderr": io.TextIOWrapper(io.BytesIO(), encoding="utf-8", errors="backslashreplace"),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        for name, stream in streams.items():
            patch.setattr(sys, name, stream)
        patch.setattr(os, "_exit", sys.exit)  # doctor's last resort would end the test run
        with pytest.raises(SystemExit) as ended:
            main(argv)
    stdout, stderr = _text(streams["stdout"]), _text(streams["stderr"])
    assert ("this is a bug" in stderr) is bug, stderr
    return Printed(int(ended.value.code or 0), stdout, stderr)


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    data = stream.buffer
    assert isinstance(data, io.BytesIO)
    return data.getvalue().decode()
