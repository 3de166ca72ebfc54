"""A door is a test of one way in from outside, tried with many inputs, which are counted."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from _pytest.terminal import TerminalReporter

#: How many inputs each door was given in this process.
TRIED: Counter[str] = Counter()


def door(
    name: str, *, inputs: int = 500, **things: st.SearchStrategy[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a test of a door: called with `inputs` draws of each of `things`, by their names.

    `make test` tries so many inputs, always the same; `make shuffle` draws new ones; `make fuzz`
    goes on for as long as it may, guided by the code that an input reaches. The test may also take
    fixtures, which are made once for all inputs. It must be a plain function: one that needs an
    event loop runs one itself. How many inputs each door tried is printed at the end of the run.
    """

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def counted(*args: Any, **kwargs: Any) -> None:
            TRIED[name] += 1
            test(*args, **kwargs)

        bounded = settings(
            max_examples=inputs, deadline=None, suppress_health_check=list(HealthCheck)
        )
        drawn: Callable[..., None] = bounded(given(**things)(counted))
        return cast("Callable[..., None]", pytest.mark.door(name)(drawn))

    return decorate


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Attach the count to the report, which is all that the main process hears of a test."""
    mark = item.get_closest_marker("door")
    name = str(mark.args[0]) if mark else ""
    before = TRIED[name]
    try:
        return (yield)
    finally:
        if name:
            item.user_properties.append(("door", [name, TRIED[name] - before]))


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Print how many inputs each door tried."""
    tried: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if getattr(report, "when", "") == "call":
                tried.update(dict(v for k, v in report.user_properties if k == "door"))
    if tried:
        terminalreporter.section("inputs tried at each door")
        for name, count in sorted(tried.items()):
            terminalreporter.line(f"{count:9,} {name}")
