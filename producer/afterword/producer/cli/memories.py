"""`afterword memories`: what is remembered of a user, listed, searched, edited, exported."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

import click

from afterword.producer.admin.memory_audit import Change, recorded_change
from afterword.producer.admin.wording import rows_left_out, utc_time
from afterword.producer.cli import render
from afterword.producer.cli.command import command
from afterword.producer.cli.options import (
    Duration,
    apply_option,
    by_option,
    json_option,
    limit_option,
    tell_of_more,
    tenant_option,
)
from afterword.producer.cli.terminal import echo, indented, json_escaped, tell_of_dry_run
from afterword.producer.client.async_client import AsyncProducer
from afterword.producer.client.async_memories import AsyncUserMemories
from afterword.producer.client.export_document import dropped_in
from afterword.producer.client.memory_calls import MAX_PAGE
from afterword.producer.client.sync_client import Producer
from afterword.shared.memory_contracts import Memory, UserExport

#: The most memories that one `list` prints.
_MOST = 1_000_000

#: The most characters of a memory that a table shows.
_SHOWN = 80

_NOT_DONE = "no memory worker has answered in time, or mem0 is away or refuses"

timeout_option = click.option(
    "--timeout",
    type=Duration(),
    default="30s",
    show_default=True,
    help="Wait this long for a memory worker, up to 10m.",
)


@click.group()
def memories() -> None:
    """List, search, edit, delete and export a user's memories.

    A memory worker must run: it alone has access to mem0. These commands print what users said:
    mind who can see your terminal.
    """


@command(
    "list",
    exit_1=_NOT_DONE,
    examples=[
        "afterword memories list user_42 --tenant acme",
        "afterword memories list user_42 --limit 1000000 --json",
    ],
)
@click.argument("user_id")
@tenant_option
@limit_option(100, _MOST)
@click.option("--after", metavar="CURSOR", help="Go on where an earlier list ended.")
@timeout_option
@json_option
def list_(
    *, user_id: str, tenant: str, limit: int, after: str | None, timeout: float, as_json: bool
) -> None:
    """List the memories of a user, the newest first. Nothing is changed."""
    asyncio.run(_list(user_id, tenant, limit, after, timeout, as_json=as_json))


@command(
    exit_1=_NOT_DONE, examples=['afterword memories search user_42 "Where do they live?" --limit 3']
)
@click.argument("user_id")
@click.argument("query")
@tenant_option
@limit_option(10, MAX_PAGE)
@timeout_option
@json_option
def search(
    *, user_id: str, query: str, tenant: str, limit: int, timeout: float, as_json: bool
) -> None:
    """Search the memories of a user, the best first. Nothing is changed."""
    with Producer() as producer:
        found = producer.memories(user_id, tenant=tenant).search(
            query, limit=limit, timeout=timeout
        )
    if as_json:
        render.json_record(found.memories)
    else:
        _print_table(found.memories)
    _warn_of_dropped(found.dropped)


@command(
    exit_1=_NOT_DONE,
    examples=["afterword memories show user_42 MEMORY_ID"],
)
@click.argument("user_id")
@click.argument("memory_id")
@tenant_option
@timeout_option
@json_option
def show(*, user_id: str, memory_id: str, tenant: str, timeout: float, as_json: bool) -> None:
    """Show one memory, its job, and who was given it. Nothing is changed."""
    with Producer() as producer:
        found = producer.memories(user_id, tenant=tenant).get(memory_id, timeout=timeout)
    _print_one(found, as_json=as_json)


@command(
    exit_1=_NOT_DONE,
    examples=['afterword memories edit user_42 MEMORY_ID "I live in Porto." --apply'],
)
@click.argument("user_id")
@click.argument("memory_id")
@click.argument("text")
@tenant_option
@apply_option
@by_option
@timeout_option
@json_option
def edit(  # noqa: PLR0913 the options of a command
    *,
    user_id: str,
    memory_id: str,
    text: str,
    tenant: str,
    apply: bool,
    by: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Replace the text of a memory. Its id, time and job stay.

    Other memories that said the same are deleted.
    Without --apply, the memory is shown as it is. The audit records who changed which memory, and
    no text.
    """
    named = _Named(user_id, tenant, memory_id, timeout)
    found = asyncio.run(_changed(named, text, apply=apply, by=by))
    _print_one(found, as_json=as_json)
    if apply:
        echo("Changed.", err=as_json)
    else:
        tell_of_dry_run("replace its text", err=as_json)


@command(
    exit_1=_NOT_DONE,
    examples=["afterword memories delete user_42 MEMORY_ID --apply"],
)
@click.argument("user_id")
@click.argument("memory_id")
@tenant_option
@apply_option
@by_option
@timeout_option
@json_option
def delete(  # noqa: PLR0913 the options of a command
    *,
    user_id: str,
    memory_id: str,
    tenant: str,
    apply: bool,
    by: str | None,
    timeout: float,
    as_json: bool,
) -> None:
    """Delete a memory, and all that say the same, for good.

    It cannot be undone, and no replay brings it back.
    What was said stays in its conversation and in replies: `afterword forget` erases all of it.
    Without --apply, the memory is shown. The audit records who deleted which memory, and no text.
    """
    named = _Named(user_id, tenant, memory_id, timeout)
    found = asyncio.run(_changed(named, None, apply=apply, by=by))
    _print_one(found, as_json=as_json)
    if apply:
        echo("Deleted.", err=as_json)
    else:
        tell_of_dry_run("delete it for good", err=as_json)


@command(
    exit_1=f"{_NOT_DONE}; then what was printed is not whole",
    examples=[
        "afterword memories export user_42 --tenant acme > user_42.json",
        "afterword memories export --schema",
    ],
)
@click.argument("user_id", required=False)
@tenant_option
@timeout_option
@click.option("--schema", is_flag=True, help="Print the JSON Schema of the document instead.")
def export(*, user_id: str | None, tenant: str, timeout: float, schema: bool) -> None:
    """Print all that is known of a user as one JSON document.

    Memories, conversations, jobs with their requests and replies, usage, idempotency keys, imported
    turns and the receipt of an erasure: the answer to a request for access. Nothing is changed.
    """
    if schema:
        render.json_record(UserExport.model_json_schema())
        return
    if user_id is None:
        raise click.UsageError("Missing argument 'USER_ID'.")
    dropped = 0
    with Producer() as producer:
        for piece in producer.memories(user_id, tenant=tenant).export(timeout=timeout):
            dropped += dropped_in(piece)
            echo(json_escaped(piece), nl=False)
    _warn_of_dropped(dropped)


class _Named(NamedTuple):
    """One memory, and how long each call about it may take."""

    user_id: str
    tenant: str
    memory_id: str
    timeout_s: float


async def _changed(named: _Named, text: str | None, *, apply: bool, by: str | None) -> Memory:
    """Give a memory another text, or delete it if that is None; return it as it is to be shown.

    Without `apply`, it is only looked up.
    """
    user_id, tenant, memory_id, timeout_s = named
    async with AsyncProducer() as producer:
        mine = producer.memories(user_id, tenant=tenant)
        found = await mine.get(memory_id, timeout=timeout_s)
        if not apply:
            return found
        change: Change = "memory_delete" if text is None else "memory_edit"
        async with recorded_change(change, user_id, tenant, found.id, by=by):
            if text is not None:
                return await mine.edit(memory_id, text, timeout=timeout_s)
            await mine.delete(memory_id, timeout=timeout_s)
            return found


async def _list(
    user_id: str, tenant: str, limit: int, after: str | None, timeout_s: float, *, as_json: bool
) -> None:
    async with AsyncProducer() as producer:
        listing = _Listing(producer.memories(user_id, tenant=tenant), limit, after, timeout_s)
        if as_json:
            await render.json_array(aiter(listing))
        else:
            _print_table([memory async for memory in listing])
    _warn_of_dropped(listing.dropped)
    if listing.after:
        tell_of_more(listing.after)


class _Listing:
    """Up to `limit` memories, read page by page.

    Afterwards `after` is where more of them begin, and `dropped` counts the rows that were left
    out.
    """

    def __init__(
        self, memories: AsyncUserMemories, limit: int, after: str | None, timeout_s: float
    ) -> None:
        self.after = after
        self.dropped = 0
        self._memories = memories
        self._left = limit
        self._timeout_s = timeout_s

    async def __aiter__(self) -> AsyncIterator[Memory]:
        while self._left:
            page = await self._memories.list(
                limit=min(self._left, MAX_PAGE), after=self.after, timeout=self._timeout_s
            )
            for memory in page.memories:
                yield memory
            self._left -= len(page.memories)
            self.after = page.next
            self.dropped += page.dropped
            if self.after is None:
                return


def _print_one(found: Memory, *, as_json: bool) -> None:
    if as_json:
        render.json_record(found)
    else:
        render.record(found)


def _print_table(found: Iterable[Memory]) -> None:
    render.table(
        ("id", "said", "job", "text"),
        [
            (
                memory.id,
                utc_time(memory.created_at) if memory.created_at else "-",
                memory.job_id or "-",
                _shortened(memory.text),
            )
            for memory in found
        ],
    )


def _shortened(text: str) -> str:
    line = " ".join(indented(text).split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}\N{HORIZONTAL ELLIPSIS}"


def _warn_of_dropped(rows: int) -> None:
    if rows:
        echo(rows_left_out(rows), err=True)


for _command in (list_, search, show, edit, delete, export):
    memories.add_command(_command)
