"""Asks the memory backend: what is stored must be found again, and by its owner only."""

from __future__ import annotations

import importlib.util
import secrets
from typing import TYPE_CHECKING

from afterword.producer.cli.checks.finding import Finding, fail, ok
from afterword.producer.cli.remedies import OF_MEMORY, STORE
from afterword.shared.clock import utc_now
from afterword.shared.errors import AfterwordError, Misconfigured, ProviderError
from afterword.shared.plurals import quantity
from afterword.shared.settings import Settings

if TYPE_CHECKING:
    from afterword.workers.ports import Memories, SearchResult

_PLACES = {
    "hosted": "MEM0_HOST and the network",
    "selfhosted": "AFTERWORD_POSTGRES_URL and AFTERWORD_EMBEDDER",
    "embedded": "AFTERWORD_DATA_DIR",
}

#: Stored, found and deleted again; the facts are given, so no model is asked for them.
_SAID = "I like my tea with lemon."
_FACTS = '{"memory": [{"text": "Likes tea with lemon", "attributed_to": "user"}]}'


async def look_at_memory(settings: Settings) -> list[Finding]:
    """Return what is found of the memory backend.

    On mem0's platform an add costs money and takes a while: there it is only searched.
    """
    if importlib.util.find_spec("mem0") is None:
        return [ok("memory", "not installed, and not needed by a producer")]
    from afterword.workers.wiring import open_memories

    try:
        memories = await open_memories(settings)
        if memories is None:
            return [ok("memory", "off")]
        try:
            return [await _look(memories, settings.backend)]
        finally:
            await memories.aclose()
    except AfterwordError as error:
        return [_failed(error, settings.backend)]


async def _look(memories: Memories, backend: str) -> Finding:
    # Owners that no user has: a user's memory key holds one slash.
    owner, nobody = (f"afterword/doctor/{secrets.token_hex(8)}" for _ in range(2))
    # First what changes nothing: a backend that is away is not asked a second time.
    if wrong := _of_nobody(await memories.search(nobody, _SAID, 5)):
        return wrong
    if backend == "hosted":
        return ok("memory", "hosted answers")
    try:
        await _store(memories, owner)
        if not (await memories.search(owner, _SAID, 5)).memories:
            remedy = "Look at the log of the memory workers; report it if that says nothing."
            return fail("memory", "what was stored is not found again", remedy)
        kept = ok("memory", f"{backend} stores, finds and deletes")
        return _of_nobody(await memories.search(nobody, _SAID, 5)) or kept
    finally:
        await memories.forget(owner)


async def _store(memories: Memories, owner: str) -> None:
    from afterword.workers.ports import Turn

    turn = Turn(secrets.token_hex(8), _SAID, "Noted.", utc_now(), attempt="doctor", facts=_FACTS)
    await memories.add(owner, turn)


def _of_nobody(found: SearchResult) -> Finding | None:
    """Object to memories that were found for somebody who has none."""
    if not found.memories and not found.malformed:
        return None
    rows = len(found.memories) + found.malformed
    remedy = "Nobody is shown them, but recall finds the wrong ones: update what serves memory."
    return fail(
        "memory",
        f"a user who has none is given {quantity(rows, 'memory', 'memories')} of others",
        remedy,
    )


def _failed(error: AfterwordError, backend: str) -> Finding:
    if isinstance(error, Misconfigured):
        return fail("memory", str(error), f"Check {error.setting}.")
    place = _PLACES.get(backend, _PLACES["embedded"])
    code = error.code if isinstance(error, ProviderError) else ""
    what, cure = OF_MEMORY.get(code, ("call failed", f"Check {place}"))
    if cure == STORE:
        cure = f"Check {place}"
    return fail("memory", f"{what}: {error}", f"{cure}.")
