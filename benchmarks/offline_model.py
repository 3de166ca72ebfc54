"""What the offline model makes of memories: the share of right answers, by kind of question."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence

from afterword.shared.settings import Settings
from afterword.workers.local_stack import model_server
from afterword.workers.wiring import open_memories
from benchmarks.sections import Finding, Options, Row
from tests.kit.offline_model import exam
from tests.kit.offline_model.served import ServedModel

_ALL, _FACTS, _UNITS = 70, 85, 85


def section(_: Options) -> Finding:
    """Ask every question of the set `test` once; memories are found as by a worker."""
    found = asyncio.run(_results())
    facts = found.keys() - exam.UNKNOWN
    return Finding(
        rows=[
            Row("offline model, right answers", _share(found, found), "%", at_least=_ALL),
            Row("offline model, facts", _share(found, facts), "%", at_least=_FACTS),
            Row("offline model, right unit named", _share(found, exam.UNITS), "%", at_least=_UNITS),
            Row("offline model, unknown said so", _share(found, exam.UNKNOWN), "%"),
        ]
    )


async def _results() -> Mapping[str, Sequence[bool]]:
    os.environ |= model_server.CLIENT_ENV
    with tempfile.TemporaryDirectory() as folder, ServedModel() as served:
        settings = Settings(memory="embedded", data_dir=folder)
        memories = await open_memories(settings)
        assert memories is not None
        async with served.adapter() as model:
            try:
                return await exam.results(exam.cases("test"), memories, model)
            finally:
                await memories.aclose()


def _share(found: Mapping[str, Sequence[bool]], kinds: Collection[str]) -> float:
    counted = [one for kind in kinds for one in found[kind]]
    return 100 * sum(counted) / len(counted)
