"""mem0's own client of its platform, without what would block, and with what it lacks.

Import it only after `mem0_silenced` and `mem0_in_parts` of
`afterword.workers.adapters.mem0.import_guard`.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
from httpx_aiohttp import HttpxAiohttpClient
from mem0.client.main import AsyncMemoryClient

CONNECT_S = 3.0
KEEPALIVE_S = 30.0

#: What `PlatformClient.event` says of an event that the platform does not know.
GONE = "GONE"


class PlatformClient(AsyncMemoryClient):  # type: ignore[misc]
    """Asks mem0's platform; on aiohttp, since httpx's own pools cost ten times as much a call."""

    def __init__(self, key: str, host: str, connections: int) -> None:
        """Ask nothing yet. Time limits, but for that to connect, are the caller's."""
        limits = httpx.Limits(max_connections=connections, keepalive_expiry=KEEPALIVE_S)
        timeout = httpx.Timeout(None, connect=CONNECT_S)
        super().__init__(key, host, HttpxAiohttpClient(limits=limits, timeout=timeout))

    def _validate_api_key(self) -> None:
        """Skip mem0's ping, which blocks the event loop; its answer is used for nothing else."""
        self.org_id = self.project_id = "unused"

    async def event(self, event_id: str) -> Any:
        """Return what became of a request that is worked on later."""
        response = await self.async_client.get(f"/v1/event/{quote(event_id, safe='')}/")
        if response.status_code == httpx.codes.NOT_FOUND:
            return {"status": GONE}
        response.raise_for_status()
        return response.json()

    async def drop(self, memory_id: str) -> Any:
        """Delete one memory; no error if it is gone."""
        if not memory_id:
            raise ValueError("a memory without an id")
        response = await self.async_client.delete(f"/v1/memories/{quote(memory_id, safe='')}/")
        if response.status_code in (httpx.codes.NOT_FOUND, httpx.codes.NO_CONTENT):
            return {"message": GONE}
        response.raise_for_status()
        return response.json()

    async def aclose(self) -> None:
        """Close the connections."""
        await self.async_client.aclose()
