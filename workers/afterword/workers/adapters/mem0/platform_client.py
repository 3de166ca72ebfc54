"""mem0's client of its platform, without the call that blocks and with calls that it lacks.

Import it only after `prepare_mem0_import` and `make_mem0_import_lazy` of
`afterword.workers.adapters.mem0.import_guard`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
from httpx_aiohttp import HttpxAiohttpClient
from mem0.client.main import AsyncMemoryClient

from afterword.workers.ports import EventGone

CONNECT_S = 3.0
KEEPALIVE_S = 30.0


class PlatformClient(AsyncMemoryClient):  # type: ignore[misc]
    """Calls mem0's platform over aiohttp: httpx's own pools cost ten times as much per call."""

    def __init__(self, key: str, host: str, connections: int) -> None:
        """Make no request. The caller enforces the time limits, except that for connecting."""
        limits = httpx.Limits(max_connections=connections, keepalive_expiry=KEEPALIVE_S)
        timeout = httpx.Timeout(None, connect=CONNECT_S)
        super().__init__(key, host, HttpxAiohttpClient(limits=limits, timeout=timeout))

    def _validate_api_key(self) -> None:
        """Skip mem0's ping, which blocks the event loop. Only these unused ids depend on it."""
        self.org_id = self.project_id = "unused"

    async def get_event(self, event_id: str) -> Any:
        """Return the state of a queued request; raise `EventGone` if mem0 knows it no more."""
        response = await self.async_client.get(f"/v1/event/{quote(event_id, safe='')}/")
        if response.status_code == httpx.codes.NOT_FOUND:
            raise EventGone
        response.raise_for_status()
        return response.json()

    async def list_entities(self, page: int, page_size: int) -> Any:
        """Return a page of the users, agents, apps and runs that have memories."""
        asked = {"page": page, "page_size": page_size}
        response = await self.async_client.get("/v1/entities/", params=asked)
        response.raise_for_status()
        return response.json()

    async def get_memory(self, memory_id: str) -> Any:
        """Return one memory; None if mem0 has none with this id."""
        response = await self.async_client.get(_memory_path(memory_id))
        return _unless_missing(response)

    async def edit_memory(self, memory_id: str, text: str) -> Any:
        """Replace the text of one memory; return None if mem0 has none with this id."""
        response = await self.async_client.put(_memory_path(memory_id), json={"text": text})
        return _unless_missing(response)

    async def delete_memory(self, memory_id: str) -> Any:
        """Delete one memory; no error if it is gone."""
        response = await self.async_client.delete(_memory_path(memory_id))
        if response.status_code in (httpx.codes.NOT_FOUND, httpx.codes.NO_CONTENT):
            return {"message": "gone"}
        response.raise_for_status()
        return response.json()

    async def aclose(self) -> None:
        """Close the connections."""
        await self.async_client.aclose()


def _memory_path(memory_id: str) -> str:
    """Return the path of one memory; without an id it would be that of all."""
    if not memory_id:
        raise ValueError("a memory id is required")
    return f"/v1/memories/{quote(memory_id, safe='')}/"


def _unless_missing(response: httpx.Response) -> Any:
    if response.status_code == httpx.codes.NOT_FOUND:
        return None
    response.raise_for_status()
    return response.json()
