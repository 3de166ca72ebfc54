"""The same job for threads and processes, with the synchronous clients of the SDKs."""

from __future__ import annotations

import gc

import anthropic
import httpx
import httpx2
from mem0 import MemoryClient
from redis import Redis

from benchmarks.peers.async_clients import prompt, record
from benchmarks.peers.jobs import IN_FLIGHT, PROVIDER, REDIS, STREAMED


class Clients:
    """One client of each kind per process, shared by its threads."""

    def __init__(self) -> None:
        limits = httpx2.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
        self._claude = anthropic.Anthropic(
            api_key="k", base_url=PROVIDER, max_retries=0,
            http_client=anthropic.DefaultHttpxClient(limits=limits),
        )  # fmt: skip
        pool = httpx.Limits(max_connections=IN_FLIGHT, max_keepalive_connections=IN_FLIGHT)
        self._mem0 = MemoryClient("k", PROVIDER, httpx.Client(limits=pool, timeout=60))
        self._redis: Redis = Redis.from_url(REDIS, max_connections=2 * IN_FLIGHT)
        gc.collect()
        gc.freeze()

    def job(self, job: str, user: str, message: str) -> None:
        """Do the whole job, the writes as one pipeline."""
        found = self._mem0.search(message, filters={"user_id": user}, top_k=5, threshold=0.0)
        reply = self._ask(message, found["results"])
        with self._redis.pipeline(transaction=True) as pipeline:
            record(pipeline, job, user, message, reply)
            pipeline.execute()

    def _ask(self, message: str, rows: list[dict[str, str]]) -> str:
        asked = prompt(message, rows)
        if not STREAMED:
            whole = self._claude.messages.create(**asked)
            return "".join(block.text for block in whole.content if block.type == "text")
        with self._claude.messages.create(**asked, stream=True) as stream:
            pieces = [
                event.delta.text
                for event in stream
                if event.type == "content_block_delta" and event.delta.type == "text_delta"
            ]
        return "".join(pieces)
