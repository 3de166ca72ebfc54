"""Says why a chat waits, or has no memory: one line that names what is wrong and its cure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from queue import Empty, SimpleQueue

from afterword.producer.admin.async_admin import AsyncOperator
from afterword.producer.cli.remedies import Trouble, trouble, unread
from afterword.producer.cli.terminal import WaitingMark, echo, one_line
from afterword.producer.cli.workers_seen import open_ledger
from afterword.producer.client.sync_client import Job
from afterword.shared.contracts import Event
from afterword.shared.errors import AfterwordError
from afterword.shared.ledger.queries import Waits
from afterword.shared.ledger.records import Gate, Overview
from afterword.shared.ledger.story_records import StepKind
from afterword.shared.settings import Settings

#: How long nothing happens before somebody looks why, and between two looks.
LOOK_S = 1.0

_Incoming = SimpleQueue[Event | BaseException | None]


def explained(
    events: Iterable[Event],
    find: Callable[[], Trouble | None],
    look_s: float = LOOK_S,
    *,
    mark: WaitingMark,
) -> Iterator[Event]:
    """Yield events as they come; while there is no text and none comes, print what `find` says.

    The same trouble is printed once, on standard error: what follows it in a pipe is a reply. The
    mark is shown as long as nothing else says why there is no text.
    """
    incoming: _Incoming = SimpleQueue()
    threading.Thread(target=_pump, args=(events, incoming), daemon=True).start()
    speaking, told = False, ""
    with mark:
        while True:
            try:
                event = incoming.get(timeout=None if speaking else look_s)
            except Empty:
                told = _print_trouble(find, told, mark)
                continue
            mark.hide()
            if event is None:
                return
            if isinstance(event, BaseException):
                raise event
            speaking = event.type == "delta" or (speaking and event.type != "restart")
            yield event


def _print_trouble(find: Callable[[], Trouble | None], told: str, mark: WaitingMark) -> str:
    """Print what is found, unless it was told; return the code of what was told last."""
    if not told:
        mark.show()
    found = find()
    if found is None or found.code == told:
        return told
    mark.hide()
    echo(f"[Waiting: {one_line(found.text)}]", err=True)
    return found.code


def _pump(events: Iterable[Event], incoming: _Incoming) -> None:
    try:
        for event in events:
            incoming.put(event)
    except BaseException as error:  # noqa: BLE001 whoever reads the events raises it
        incoming.put(error)
    else:
        incoming.put(None)


def print_unread(job: Job, settings: Settings, told: set[str]) -> None:
    """Print why memory could not be read for the reply of a job, unless it was `told` already."""
    try:
        reason = asyncio.run(_recall_reason(job, settings))
    except AfterwordError:  # Redis is away, or does not let this user read so much
        return
    if reason not in told:
        echo(f"[Memory: {one_line(unread(reason))}]", err=True)
        told.add(reason)


async def _recall_reason(job: Job, settings: Settings) -> str:
    async with AsyncOperator(settings) as operator:
        steps = (await operator.story(job.id)).steps
    return next((step.reason for step in reversed(steps) if step.kind is StepKind.RECALLED), "")


def look(job: Job, settings: Settings) -> Trouble | None:
    """Return what keeps a job from its reply, None if that is only time."""
    try:
        gates, shards, waits = asyncio.run(_look(job, settings))
        return trouble(job.status(), gates, shards, settings.model, waits)
    except AfterwordError as error:  # Redis is away, or does not let this user read so much
        return Trouble("unknown", str(error))


async def _look(job: Job, settings: Settings) -> tuple[Sequence[Gate], Sequence[Overview], Waits]:
    async with open_ledger(settings) as checked:
        ledger = checked.ledger
        waits = await ledger.queries.waits(job.id)
        return await ledger.gates.not_open(), await ledger.maintenance.overview(), waits
