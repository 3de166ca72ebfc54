"""A user's memories, for code without an event loop."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from afterword.producer.client.blocking import BlockingJobService
from afterword.producer.client.export_document import ExportDocument
from afterword.producer.client.memory_calls import (
    Cursor,
    MemoryCall,
    MemoryId,
    Owner,
    PageLimit,
    Text,
    WaitSeconds,
    memory_in,
    page_in,
)
from afterword.shared.arguments import checked
from afterword.shared.errors import MemoriesUnavailable
from afterword.shared.ledger.memory_requests import MemoryAction
from afterword.shared.memory_contracts import Memory, MemoryPage


class UserMemories:
    """The memories of one user: list, search, look at, edit, delete and export them.

    Returned by `Producer.memories`. Every call is answered by a memory worker, which alone has
    access to mem0; `timeout` says for how many seconds it is waited for, up to 600.

    Each call raises `MemoriesUnavailable` if no worker or mem0 does it in time, `InvalidRequest`
    for an argument that is not valid, and what `Producer.submit` raises of Redis.
    """

    def __init__(self, service: BlockingJobService, owner: Owner) -> None:
        self._service = service
        self._owner = owner

    @checked
    def list(
        self, *, limit: PageLimit = 100, after: Cursor | None = None, timeout: WaitSeconds = 30.0
    ) -> MemoryPage:
        """Return a page of the user's memories, the newest first.

        Args:
            limit: the most memories of the page, 1 to 100; of long ones there may be fewer.
            after: the `next` of the page before.
            timeout: for how long to wait, in seconds.

        """
        return page_in(self._ask("list", timeout, limit=limit, after=after))

    @checked
    def all(self, *, timeout: WaitSeconds = 30.0) -> Generator[Memory, None, None]:
        """Yield all of the user's memories, the newest first, page by page.

        What is stored or deleted meanwhile may be missing, and rows that cannot be read are left
        out: the pages of `list` count those. `timeout` is that of each page.
        """
        for page in self._pages(timeout):
            yield from page.memories

    @checked
    def search(
        self, query: Text, *, limit: PageLimit = 10, timeout: WaitSeconds = 30.0
    ) -> MemoryPage:
        """Return the memories that fit a query best, as for a reply, whatever their scores.

        Args:
            query: what to search for; limited as a message is.
            limit: the most memories, 1 to 100; of long ones there may be fewer.
            timeout: for how long to wait, in seconds.

        """
        self._service.check_memory_text("query", query)
        return page_in(self._ask("search", timeout, query=query, limit=limit))

    @checked
    def get(self, memory_id: MemoryId, *, timeout: WaitSeconds = 30.0) -> Memory:
        """Return one memory, and which replies were given it; raises `MemoryNotFound`."""
        return memory_in(self._ask("show", timeout, id=memory_id))

    @checked
    def edit(self, memory_id: MemoryId, text: Text, *, timeout: WaitSeconds = 30.0) -> Memory:
        """Replace the text of a memory, and return it as it is now; raises `MemoryNotFound`.

        It waits until no turn of the user is being stored. No retry or replay of its turn brings
        the old text back; other memories that said the same are deleted. It is safe to repeat.
        `text` is limited as a message is, secrets in it are treated as those of a message, and
        characters that nobody sees are left out.
        """
        self._service.check_memory_text("text", text, self._owner.tenant)
        return memory_in(self._ask("edit", timeout, id=memory_id, text=text))

    @checked
    def delete(self, memory_id: MemoryId, *, timeout: WaitSeconds = 30.0) -> None:
        """Delete a memory for good; raises `MemoryNotFound`.

        So are all memories of the user that say the same, in whatever case and spacing: a reply
        would be given one of them. It waits until no turn of the user is being stored. No retry or
        replay of its turn brings the memory back. What was said stays in its conversation, and in
        replies that were given the memory, as long as those are kept: `Operator.forget` erases all
        of it.
        """
        self._ask("delete", timeout, id=memory_id)

    @checked
    def export(self, *, timeout: WaitSeconds = 30.0) -> Generator[str, None, None]:
        """Yield all that is known of the user, as the text of one JSON document (`UserExport`).

        Memories, conversations, jobs with their requests, replies and events, usage, idempotency
        keys, imported turns, the receipt of an erasure: all that an erasure removes. Join the
        pieces, or write each as it comes: they are small, however much there is. `timeout` is that
        of each page of memories; `memories_dropped` counts the rows of mem0 that could not be read.
        If it raises, the document is not whole, and no valid JSON.
        """
        document = ExportDocument(self._owner, self._service.now())
        dropped = 0
        try:
            for page in self._pages(timeout):
                dropped += page.dropped
                for memory in page.memories:
                    yield document.add("memories", memory.model_dump(mode="json"))
        except MemoriesUnavailable as error:
            document.note_unavailable(error)
        yield document.add("memories_dropped", dropped)
        for section, record in self._service.records_of(self._owner):
            yield document.add(section, record)
        yield document.end()

    def _pages(self, timeout_s: float) -> Generator[MemoryPage, None, None]:
        after = None
        while True:
            page = self.list(after=after, timeout=timeout_s)
            yield page
            if page.next is None:
                return
            after = page.next

    def _ask(self, action: MemoryAction, timeout_s: float, **said: Any) -> Any:
        call = MemoryCall(self._owner, action, said, timeout_s)
        return self._service.ask_about_memories(call)
