"""A pytest plugin that tries one door until its time is over, with atheris where that is installed.

`python -m tests.fuzz` loads it before anything of the product is imported, for atheris follows
only code that it has instrumented at its import.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial, wraps
from inspect import Signature
from typing import Any, NoReturn

import pytest

try:
    import atheris
except ImportError:
    atheris = None
else:
    atheris.instrument_imports(include=["afterword"], enable_loader_override=False).__enter__()

#: When to stop, in seconds after the start.
SECONDS = float(os.environ.get("FUZZ_SECONDS", "60"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a door's test for `SECONDS` instead of once."""
    if pyfuncitem.get_closest_marker("door") is None:
        return None
    given: Any = pyfuncitem.obj
    fixtures = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    if atheris is None:
        _draw(partial(given, **fixtures))
    given.__signature__ = Signature()  # without the fixtures, which are given here
    inner = given.hypothesis.inner_test
    given.hypothesis.inner_test = wraps(inner)(lambda **things: inner(**things, **fixtures))
    _mutate(given.hypothesis.fuzz_one_input)


def _mutate(try_one: Callable[[bytes], object]) -> NoReturn:
    """Give the door inputs that atheris makes of those that reached new code."""
    until = time.monotonic() + SECONDS

    def try_until_then(data: bytes) -> None:
        if time.monotonic() > until:
            _end(0)
        _report_failure(partial(try_one, data))

    # The size of an input is that of the choices made for it, not of what is built of them.
    atheris.Setup([sys.argv[0], "-max_len=4096", "-len_control=0", "-verbosity=0"], try_until_then)
    atheris.Fuzz()
    raise AssertionError("unreachable: libFuzzer ends the process")


def _draw(test: Callable[[], object]) -> NoReturn:
    """Give the door inputs that Hypothesis draws: atheris has no wheel for this platform."""
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        _report_failure(test)
    _end(0)


def _report_failure(call: Callable[[], object]) -> None:
    try:
        call()
    except BaseException:  # noqa: BLE001 whatever it is, it is what was looked for
        traceback.print_exc()
        _end(1)


def _end(code: int) -> NoReturn:
    """Print the counts and end: atheris cannot be left in any other way."""
    from tests.kit.fuzz.doors import TRIED

    how = "atheris" if atheris else "Hypothesis alone, as atheris is not installed"
    for name, count in TRIED.items():
        print(f"{count:9,} inputs at {name} in {SECONDS:.0f} s at most, with {how}")
    if code:
        print("To replay and shrink it: make shuffle ARGS=tests/fuzz")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
