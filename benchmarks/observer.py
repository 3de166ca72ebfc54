"""Cost of reporting an event, with and without a subscriber."""

from __future__ import annotations

import timeit
from collections.abc import Callable
from functools import partial

from afterword.shared.events import ModelAnswered, RecallFinished
from afterword.shared.observer import Observer
from benchmarks.run_alone import run_alone
from benchmarks.sections import Finding, Options, Row

_CALLS, _REPEATS = 20_000, 5
#: The most that reporting an event may cost while nobody subscribes to its class, in nanoseconds.
_MOST_NS = 1000


def section(options: Options) -> Finding:
    """Report an event of four fields and one of nine, to nobody and to one subscriber."""
    silent, heard = Observer(), Observer()
    heard.subscribe(lambda _event, _context: None)
    repeats = _REPEATS * options.rounds
    rows = []
    for words, report in (("4 fields", _small), ("9 fields", _large)):
        unheard_ns = _nanoseconds(partial(report, silent), repeats)
        heard_ns = _nanoseconds(partial(report, heard), repeats)
        rows.append(Row(f"event of {words}, nobody subscribes", unheard_ns, "ns", _MOST_NS))
        rows.append(Row(f"event of {words}, one subscriber", heard_ns, "ns"))
    return Finding(
        rows=rows,
        text="The fastest of many runs: other load of the machine only makes runs slower. The "
        "subscriber does nothing.",
        runs={row.figure: row.value for row in rows},
    )


def _small(observer: Observer) -> None:
    observer.emit(RecallFinished, status="fresh", kept=5, dropped=1, duration_s=0.1)


def _large(observer: Observer) -> None:
    observer.emit(
        ModelAnswered,
        model="claude-sonnet-5-5",
        stop_reason="end_turn",
        input_tokens=1000,
        output_tokens=100,
        cache_read_tokens=0,
        cache_write_tokens=0,
        first_text_s=0.5,
        duration_s=2.0,
        request_id="req_1",
    )


def _nanoseconds(report: Callable[[], None], repeats: int) -> float:
    return round(min(timeit.repeat(report, number=_CALLS, repeat=repeats)) / _CALLS * 1e9)


if __name__ == "__main__":
    run_alone(section)
