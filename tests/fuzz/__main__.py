"""Tries doors for hours, one after the other: `python -m tests.fuzz --door hints --minutes 60`."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

_PLAIN = ["-p", "no:xdist", "-p", "no:randomly", "--hypothesis-profile=hunt", "tests/fuzz"]


class _Collected:
    """Takes the doors' tests from pytest's collection."""

    def __init__(self) -> None:
        self.tests: dict[str, str] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note each test of a door by the door's name."""
        for item in session.items:
            if mark := item.get_closest_marker("door"):
                self.tests[item.nodeid] = mark.args[0]


def main() -> int:
    """Fuzz the doors that were asked for; return 1 if one of them let something in."""
    parser = argparse.ArgumentParser(description="Try the doors with many inputs.")
    parser.add_argument("--door", help="only this one")
    parser.add_argument("--minutes", type=float, default=10.0, help="for all of them together")
    asked = parser.parse_args()
    environ = dict(os.environ)  # the tests change theirs
    found = _Collected()
    pytest.main(["--collect-only", "-qqq", "--no-summary", *_PLAIN], [found])
    tests = [test for test, name in found.tests.items() if asked.door in (None, name)]
    if not tests:
        parser.error(f"no such door; there are {', '.join(sorted(set(found.tests.values())))}")
    return max(
        _fuzz(test, environ | {"FUZZ_SECONDS": str(asked.minutes * 60 / len(tests))})
        for test in tests
    )


def _fuzz(test: str, environ: dict[str, str]) -> int:
    """Try one door in a process of its own, which atheris takes over."""
    pytest_ = [sys.executable, "-m", "pytest", "-p", "tests.kit.fuzz.long_run"]
    with subprocess.Popen(
        [*pytest_, "-q", "-s", "--timeout=0", *_PLAIN[:-1], test],
        env=environ,
        start_new_session=True,
    ) as running:
        code = running.wait()
        with suppress(ProcessLookupError):  # what its fixtures started outlives such an end
            os.killpg(running.pid, signal.SIGKILL)
    return int(code != 0)


if __name__ == "__main__":
    sys.exit(main())
