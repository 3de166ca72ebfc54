"""Measure how often memory finds what was said: `python -m benchmarks.recall [PATH ...]`.

Without a path, the probe of short facts is measured; with `--second`, the one that no rule was
fitted to. Memory is used as workers use it: the same
store, embedder, rule of what is worth remembering, recall and prompt. A memory that extracts facts
is given recorded ones (see `benchmarks.recall.extraction`).
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from benchmarks.recall import dataset, extraction, short_facts
from benchmarks.recall.backends import BACKENDS
from benchmarks.recall.measure import DEPTH, Asked, Measured, Share, measure

_FIRST = DEPTH // 2


def main(arguments: Sequence[str]) -> int:
    """Measure data sets and print a table of each; return 2 if one cannot be read."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.recall", description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="a data set, as JSON")
    parser.add_argument("--second", action="store_true", help="measure the second probe")
    parser.add_argument(
        "--language",
        nargs="*",
        choices=short_facts.languages(),
        default=[],
        help="measure only these languages of a probe",
    )
    parser.add_argument(
        "--backend", choices=BACKENDS, default="embedded", help="default: %(default)s"
    )
    parser.add_argument(
        "--facts",
        type=Path,
        default=extraction.RECORD,
        metavar="FILE",
        help="recorded facts, for a backend that extracts; default: those of the probe",
    )
    parser.add_argument("--misses", action="store_true", help="list what was not found")
    parsed = parser.parse_args(arguments)
    try:
        read = {str(path): dataset.read(path) for path in parsed.paths}
        facts = None if parsed.backend == "embedded" else extraction.read(parsed.facts)
    except (OSError, ValueError, LookupError) as error:
        print(error, file=sys.stderr)
        return 2
    folder = short_facts.SECOND if parsed.second else short_facts.PROBE
    probe = {folder.name: short_facts.build(*parsed.language, folder=folder)}
    for name, one in (read or probe).items():
        try:
            measured = asyncio.run(measure(one, parsed.backend, facts))
        except extraction.NotRecorded as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        print(table(f"{name}, {parsed.backend}", measured), flush=True)
        if parsed.misses:
            print(*_misses(measured.asked), sep="\n")
    return 0


def table(name: str, measured: Measured) -> str:
    """Return the shares of each group of questions, and of each user in it, as Markdown."""
    found = f"found among {_FIRST} | 95 % | among {DEPTH} | 95 % | in the backend's own order"
    lines = [
        f"{name}: {measured.skipped} turns were not worth storing",
        "",
        f"| questions | user | n | {found} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    ordered = sorted(measured.asked, key=lambda one: (one.question.group, one.user))
    for group, some in groupby(ordered, key=lambda one: one.question.group):
        asked = list(some)
        lines.append(_row(f"**{group}**", "all", asked))
        for user, own in groupby(asked, key=lambda one: one.user):
            lines.append(_row(group, user, own))
    return "\n".join([*lines, ""])


def _row(group: str, user: str, asked: Iterable[Asked]) -> str:
    listed = list(asked)
    shares = (Share.within(depth, listed) for depth in (_FIRST, DEPTH))
    cells = (f"{one.percent:.0f} | {one.interval[0]:.0f}–{one.interval[1]:.0f}" for one in shares)  # noqa: RUF001
    own = [one.own_place for one in listed]
    first, deep = (f"{Share.of(depth, own).percent:.0f}" for depth in (_FIRST, DEPTH))
    return f"| {group} | {user} | {len(listed)} | {' | '.join(cells)} | {first}, {deep} |"


def _misses(asked: Iterable[Asked]) -> Sequence[str]:
    missed = [one for one in asked if one.place is None or one.place >= _FIRST]
    return [f"{one.user}, {one.question.group}, {one.place}: {one.question.text}" for one in missed]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
