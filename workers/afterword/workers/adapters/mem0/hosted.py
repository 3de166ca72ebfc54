"""mem0's platform behind the memory port."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from afterword.shared.errors import (
    BadAnswer,
    IllegalStep,
    Misconfigured,
    ProviderError,
    Unavailable,
)
from afterword.shared.settings import MemorySettings
from afterword.workers.adapters.mem0.import_guard import mem0_in_parts, mem0_silenced
from afterword.workers.adapters.mem0.refusals import refusal
from afterword.workers.ports import Added, Exchange, Kept, Memories, Recalled, Turn

if TYPE_CHECKING:
    from afterword.workers.adapters.mem0.platform_client import PlatformClient

T = TypeVar("T")

#: One call takes at most this long; an add only has to be accepted in that time.
CALL_S = 10.0

#: mem0 names no limit; a longer query finds nothing that this much of it does not.
QUERY_CHARACTERS = 2000

#: How many memories of one turn are looked for, and mem0's largest page.
MOST_ROWS_OF_A_TURN = 200

#: Erasing is queued: how often it is asked after, and for how long.
ERASE_POLL_S = 0.5
ERASE_S = 60.0

_UNDER_WAY = ("PENDING", "RUNNING")


async def open_hosted(settings: MemorySettings, connections: int) -> Memories:
    """Open mem0's platform with at most so many calls at once; nothing is asked yet.

    Belongs to the process and the event loop that opened it. Raises `Misconfigured` without a key.
    """
    if settings.mem0_api_key is None:
        raise Misconfigured("MEM0_API_KEY", "must be set: mem0's platform asks for it")
    key = settings.mem0_api_key.get_secret_value()
    # Off the event loop: the import of mem0 alone takes a second or more.
    return Hosted(await asyncio.to_thread(_connect, key, settings.mem0_host, connections))


def _connect(key: str, host: str, connections: int) -> PlatformClient:
    with tempfile.TemporaryDirectory(prefix="mem0-") as folder:  # the import writes to it
        mem0_silenced(Path(folder))
        mem0_in_parts()
        from afterword.workers.adapters.mem0.platform_client import PlatformClient

        logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs addresses, owners in them
        return PlatformClient(key, host, connections)


class Hosted:
    """Keeps memories on mem0's platform, which extracts facts by itself, after the add.

    A call takes at most `call_s` seconds. Nothing is tried twice.
    """

    takes_batches = True

    def __init__(self, client: PlatformClient, *, call_s: float = CALL_S) -> None:
        self._client = client
        self._call_s = call_s

    async def search(self, owner: str, query: str, limit: int) -> Sequence[Recalled]:
        """Return at most `limit` memories that fit the query, best first."""
        asked = query[:QUERY_CHARACTERS].strip()
        if not asked:
            return ()  # mem0 refuses to search for nothing
        # No threshold: what is too far off is for the one who asks to say.
        call = self._client.search(asked, filters=_of(owner), top_k=limit, threshold=0.0)
        return await self._asked(call, _recalled_rows)

    async def add(self, owner: str, turn: Turn) -> Added:
        """Hand over what was said, never what was recalled for it; mostly `PENDING`."""
        call = self._client.add(
            [message for each in turn.exchanges for message in _messages(each)],
            user_id=_named(owner),
            metadata={
                "turn_id": turn.id,
                "attempt": turn.attempt,
                "said_at": turn.at.isoformat(),
            },
            timestamp=int(turn.at.timestamp()),
        )
        return await self._asked(call, _added, changes=True)

    async def find(self, owner: str, turn_id: str) -> Sequence[str]:
        """Return the ids of the memories that came from this turn; not of those still pending."""
        return [memory_id for copy in await self.copies(owner, turn_id) for memory_id in copy]

    async def copies(self, owner: str, turn_id: str) -> Sequence[Sequence[str]]:
        """Return the same, those of each attempt by itself."""
        filters = {"AND": [_of(owner), {"metadata": {"turn_id": turn_id}}]}
        call = self._client.get_all(filters=filters, page=1, page_size=MOST_ROWS_OF_A_TURN)
        return await self._asked(call, partial(_copies, (owner, turn_id)))

    async def remove(self, owner: str, memory_ids: Sequence[str]) -> None:  # noqa: ARG002 - ditto
        """Remove single memories, one call each."""
        for memory_id in memory_ids:
            await self._asked(self._client.drop(memory_id), lambda answer: answer["message"])

    async def follow(self, owner: str, event_id: str) -> Added:  # noqa: ARG002 - as the port has it
        """Ask once what became of an add; `BadAnswer` if it failed or is not known any more."""
        return await self._asked(self._client.event(event_id), _added, changes=True)

    async def forget(self, owner: str) -> None:
        """Remove everything of this owner, and wait until it is done."""
        call = self._client.delete_all(user_id=_named(owner))
        event_id = await self._asked(call, lambda answer: answer["event_id"])
        await self._erased(event_id)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _erased(self, event_id: str) -> None:
        end = asyncio.get_running_loop().time() + ERASE_S
        while await self._asked(self._client.event(event_id), _status) in _UNDER_WAY:
            if asyncio.get_running_loop().time() >= end:
                raise Unavailable("too_slow")
            await asyncio.sleep(ERASE_POLL_S)

    async def _asked(
        self, call: Awaitable[Any], read: Callable[[Any], T], *, changes: bool = False
    ) -> T:
        """Wait for one call and read its answer; raise one of `ProviderError` if either fails.

        mem0's errors hold content and the key: ours is raised outside of their handler, so that
        no chain of causes leads back to them.
        """
        try:
            async with asyncio.timeout(self._call_s):
                return read(await call)
        except ProviderError:
            raise  # ours already, and about an answer that is whole
        except TimeoutError:
            error: ProviderError = Unavailable("too_slow")
        except Exception as theirs:  # noqa: BLE001 whatever it is, it is this one call's
            error = refusal(theirs)
        error.unknown_outcome = changes and isinstance(error, (Unavailable, BadAnswer))
        raise error


def _named(owner: str) -> str:
    """Return the owner; without one mem0 would take everybody's memories for meant."""
    if not owner:
        raise IllegalStep("memories have an owner")
    return owner


def _of(owner: str) -> dict[str, str]:
    return {"user_id": _named(owner)}


def _messages(exchange: Exchange) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": exchange.user_text},
        {"role": "assistant", "content": exchange.reply_text},
    ]


def _rows(answer: Any) -> list[Mapping[str, Any]]:
    rows: list[Mapping[str, Any]] = answer["results"]
    return rows


def _recalled_rows(answer: Any) -> list[Recalled]:
    return [_recalled(row) for row in _rows(answer)]


def _copies(wanted: tuple[str, str], answer: Any) -> list[list[str]]:
    """Return the ids of the rows of one owner and turn, by the attempt that added them."""
    attempts: defaultdict[str, list[str]] = defaultdict(list)
    for row in _rows(answer):
        if _source(row) == wanted:
            attempts[row["metadata"].get("attempt") or ""].append(row["id"])
    return [attempts[attempt] for attempt in sorted(attempts)]


def _recalled(row: Mapping[str, Any]) -> Recalled:
    owner, turn_id = _source(row)
    # mem0 keeps whole seconds, so the turn's own time stands beside them.
    at = (row.get("metadata") or {}).get("said_at") or row.get("created_at")
    return Recalled(
        id=row["id"],
        owner=owner,
        text=row["memory"],
        score=float(row["score"]),
        created_at=_moment(at) if at else None,
        turn_id=turn_id,
    )


def _moment(iso: str) -> datetime:
    at = datetime.fromisoformat(iso)
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def _source(row: Mapping[str, Any]) -> tuple[str, str | None]:
    """Return whose memory it says it is, and of which turn."""
    return row.get("user_id") or "", (row.get("metadata") or {}).get("turn_id")


def _added(answer: Any) -> Added:
    """Return what an add came to; mem0 may have found nothing in it that is worth keeping."""
    if _status(answer) in _UNDER_WAY:
        return Added(Kept.PENDING, event_id=answer.get("event_id") or answer["id"])
    ids = tuple(row["id"] for row in answer["results"])
    return Added(Kept.STORED, ids) if ids else Added(Kept.NOTHING)


def _status(answer: Any) -> str:
    """Return how far a request has come; raise `BadAnswer` if it came to nothing."""
    match answer["status"]:
        case "FAILED":
            raise BadAnswer("event_failed")
        case "GONE":
            raise BadAnswer("event_gone")
        case "PENDING" | "RUNNING" | "SUCCEEDED" as status:
            return str(status)
        case _:
            raise BadAnswer("unknown_status", unknown_outcome=True)
