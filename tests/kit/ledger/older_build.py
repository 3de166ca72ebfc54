"""An older build in a process of its own: takes steps of the ledger, as it is told line by line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

#: What the older build runs: it knows nothing of this one, only its own `shared`.
_CHILD = """
import asyncio, json, sys

from afterword.shared.contracts import ChatRequest, Reply
from afterword.shared.errors import AfterwordError, Fault
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.lifecycle import TurnState
from afterword.shared.settings import Settings

claims, lanes = {}, {}


async def submit(ledger, fields, job_id=None):
    request = ChatRequest.model_validate(fields)
    named = (job_id or ledger.jobs.new_id(request), request)
    (accepted,) = await ledger.jobs.submit_many([named])
    if isinstance(accepted, Exception):
        raise accepted
    return accepted.job_id


async def claim(ledger, job_id, token):
    found = await ledger.jobs.claim(job_id, token)
    if found is not None:
        claims[job_id] = found
    return found and found.fence


async def finish(ledger, job_id, reply, skip=""):
    await ledger.jobs.finish(claims[job_id], Reply.model_validate(reply), skip=skip)


async def delta(ledger, job_id, number, text):
    await ledger.jobs.append_delta(claims[job_id], number, text)


async def snooze(ledger, job_id, delay_s):
    await ledger.jobs.snooze(claims[job_id], delay_s, counted=False)


async def fail(ledger, job_id):
    await ledger.jobs.fail(claims[job_id], "rejected")


async def events(ledger, job_id):
    return [event.type for event in await ledger.queries.events(job_id, None)]


async def cancel(ledger, job_id):
    return await ledger.jobs.cancel(job_id)


async def sweep(ledger):
    await ledger.maintenance.sweep()


async def take(ledger, lane, token):
    found = await ledger.turns.claim_lane(lane, token, max_turns=20)
    if found is None:
        return []
    lanes[lane] = found
    return [turn.id for turn in found.turns]


async def begin(ledger, lane, turn):
    return await ledger.turns.begin(lanes[lane], turn)


async def settle(ledger, lane, turn, outcome):
    await ledger.turns.settle(lanes[lane], turn, TurnState(outcome), memory_ids=["m"])


async def bury(ledger, lane, turn):
    await ledger.turns.bury(lanes[lane], turn, "rejected", Fault.REQUEST, "0.1.0")


async def release(ledger, lane):
    await ledger.turns.release_lane(lanes[lane])


async def main():
    settings = Settings.model_validate(json.loads(sys.argv[1]))
    async with Ledger(settings, patience_s=5.0) as ledger:
        while line := await asyncio.to_thread(sys.stdin.readline):
            step, *arguments = json.loads(line)
            try:
                answer = {"ok": await globals()[step](ledger, *arguments)}
            except AfterwordError as error:
                answer = {"error": type(error).__name__}
            print(json.dumps(answer), flush=True)


asyncio.run(main())
"""


class Refused(Exception):
    """The older build raised one of its own errors; the text is its name."""


class OlderBuild:
    """A build that was released before, working on the same ledger."""

    def __init__(self, archive: Path, folder: Path, **settings: object) -> None:
        """Unpack it: its scripts are files beside its modules."""
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CHILD, json.dumps(settings)],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def do(self, step: str, *arguments: object) -> Any:
        """Let it take a step and return what that gave; raise `Refused`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([step, *arguments]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["ok"]

    def __enter__(self) -> Self:
        """Return it, running."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let it end."""
        self._process.communicate(timeout=30)
