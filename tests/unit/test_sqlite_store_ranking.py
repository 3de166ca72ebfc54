"""How memories are ranked: what words are worth, what neighbours lend, who yields to whom."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterword.workers.adapters.mem0.sqlite import ranking
from afterword.workers.adapters.mem0.sqlite.ranking import (
    LEND_S,
    LENT,
    REPLY_LENT,
    Floats,
    Positions,
    Scale,
    best_first,
    combine,
    credits_of,
    lend,
    lend_meaning,
    lend_replies,
    neighbours,
    word_points,
    words_in_common,
    yield_to_newer,
)
from afterword.workers.adapters.mem0.sqlite.store import SqliteStore
from afterword.workers.adapters.mem0.sqlite.tokenizer import (
    index_text,
    query_words,
)
from tests.kit.sqlite_store.hashing_embedder import DIMS
from tests.kit.sqlite_store.store import open_store


def points(query: str, *texts: str) -> list[float]:
    """Return what the words of each text are worth for a query."""
    held = [index_text(text).tokens for text in texts]

    def positions(token: str) -> Positions:
        return np.array([place for place, text in enumerate(held) if token in text], np.intp)

    words = [[(positions(token), share) for token, share in word] for word in query_words(query)]
    lengths = np.array([index_text(text).length for text in texts], np.float32)
    return [float(one) for one in word_points(words, credits_of(lengths))]


def floats(*values: float) -> Floats:
    return np.array(values, np.float32)


def numbers(*values: int) -> ranking.Numbers:
    return np.array(values, np.int64)


def a_minute_apart(count: int) -> Sequence[ranking.Marks]:
    """Return the neighbours of so many texts of one conversation."""
    return neighbours(numbers(*[1] * count), numbers(*range(0, 60 * count, 60)))


def test_a_rare_word_weighs_more_than_a_common_one() -> None:
    rare, common, _ = points("cello tea", "I play cello", "I like tea", "I make tea")
    assert rare > common > 0


def test_a_word_is_worth_the_same_whatever_else_matches() -> None:
    texts = ["I like tea", "I play cello", *(f"thing {number}" for number in range(98))]
    alone, _, *_ = points("tea", *texts)
    beside, _, *_ = points("tea cello", *texts)
    assert alone == beside


def test_the_best_of_a_bad_lot_gains_little() -> None:
    chatter = [f"we use thing {number}" for number in range(50)]
    *_, common, rare = points("use marmalade", *chatter, "we use this", "I like marmalade")
    assert common < 0.01
    assert rare > 0.05


def test_function_words_weigh_little_by_their_own_statistics() -> None:
    # Polish: not one of the languages whose function words are known.
    texts = [f"ja nie lubię rzeczy {number}, ale to nie jest źle" for number in range(50)]
    *_, common, rare = points("nie mandolina", *texts, "nie wiem", "gram: mandolina")
    assert common < 0.01
    assert rare > 0.05


def test_a_long_text_weighs_little_less_than_a_short_one() -> None:
    short, long, none = points("cello", "cello lesson", "cello " + "thing " * 30, "tea")
    assert short > long > short / 2 > none == 0


def test_more_words_weigh_more() -> None:
    both, one = points("Celsius thermometer", "Celsius thermometer", "Celsius barometer")
    assert both > one > 0


def test_a_word_that_begins_alike_weighs_less_than_the_word() -> None:
    word, other, none = points("Marmalade", "marmalade", "marmaladenbrot", "jam")
    assert word > other > none == 0


def test_no_texts_have_no_points() -> None:
    assert points("cello") == []


FLOATS = st.floats(0, 1, width=32)


@given(st.lists(st.tuples(FLOATS, st.floats(0, 40, width=32))))
def test_a_score_is_between_0_and_1_and_grows_with_both(pairs: list[tuple[float, float]]) -> None:
    similarity, words = (floats(*(pair[side] for pair in pairs)) for side in (0, 1))
    scores = combine(similarity, words)
    assert ((scores >= 0) & (scores <= 1)).all()
    for one, better in pairwise(pairs):
        if one[0] <= better[0] and one[1] <= better[1]:
            assert scores[pairs.index(one)] <= scores[pairs.index(better)]


def test_similarity_is_spread_over_the_whole_range() -> None:
    found = Scale(floor=0.7, span=0.3).similarity(floats(0.6, 0.85, 1.0))
    assert found == pytest.approx([0, 0.5, 1])


def test_directions_that_mean_nothing_are_taken_out() -> None:
    scale = Scale(ignored=floats(1, 0, 0).reshape(1, 3))
    vectors = floats(0.8, 0.6, 0, 0.8, 0, 0.6).reshape(2, 3)
    assert scale.reduced(vectors) == pytest.approx(floats(0, 1, 0, 0, 0, 1).reshape(2, 3))
    assert Scale().reduced(floats(0, 0, 0)) == pytest.approx([0, 0, 0])


def test_many_vectors_are_reduced_as_each_of_them_is() -> None:
    scale = Scale(ignored=floats(0, 1, 0).reshape(1, 3))
    vectors = np.random.default_rng(7).normal(size=(2000, 3)).astype("<f2")
    one_by_one = np.array([scale.reduced(vector) for vector in vectors])
    assert scale.reduced(vectors) == pytest.approx(one_by_one, abs=1e-6)
    assert scale.reduced(vectors[:0]).shape == (0, 3)


def test_neighbours_of_a_conversation_lend_their_words() -> None:
    one, two = LENT
    lent = lend(floats(0, 0, 0, 1, 0), a_minute_apart(5))
    assert lent == pytest.approx([0, two, one, 1, one])


def test_another_conversation_or_a_later_day_lends_nothing() -> None:
    lent = lend(floats(0, 1, 0), neighbours(numbers(1, 2, 1), numbers(0, 1, 2)))
    assert lent == pytest.approx([0, 1, 0])
    apart = numbers(0, LEND_S, 2 * LEND_S + 1)
    lent = lend(floats(0, 1, 0), neighbours(numbers(1, 1, 1), apart))
    assert lent == pytest.approx([LENT[0], 1, 0])
    assert lend(floats(), a_minute_apart(0)).tolist() == []


def test_what_stands_out_lends_its_meaning_more_to_what_follows() -> None:
    meant = floats(*[0.1] * 10, 0.1, 0.1, 0.6, 0.1, 0.1, *[0.1] * 10)
    before, found, after = lend_meaning(meant, a_minute_apart(25))[11:14]
    assert found == np.float32(0.6)
    assert before == pytest.approx(0.1 + 0.5 * 0.2)
    assert after == pytest.approx(0.1 + 0.5 * 0.4)


def test_what_follows_a_memory_that_was_found_is_found_before_what_is_little_like_it(
    tmp_path: Path,
) -> None:
    unlike = [f"{axis:02}" for axis in range(2, 30)]
    vectors = {text: np.eye(DIMS)[int(text)] for text in unlike}
    vectors |= {"found": np.eye(DIMS)[0], "next": np.eye(DIMS)[1]}
    vectors |= {"rival": np.eye(DIMS)[0] * 0.2 + np.eye(DIMS)[30]}
    with closing(open_store(tmp_path / "store")) as store:
        for minute, text in enumerate([*unlike[:14], "found", "next", *unlike[14:], "rival"]):
            payload = {
                "user_id": "a",
                "data": text,
                "conversation_id": "talk" if text in {"found", "next"} else text,
                "created_at": datetime.fromtimestamp(60 * minute, UTC).isoformat(),
            }
            store.insert([vectors[text].tolist()], [payload], [text])
        rows = store.search("what", np.eye(DIMS)[0].tolist(), 3, {"user_id": "a"})
    assert [row.id for row in rows] == ["found", "next", "rival"]


def test_what_means_no_more_than_others_lends_nothing() -> None:
    meant = floats(*[0.6] * 3, *[0.1] * 10)
    assert lend_meaning(meant, a_minute_apart(13)).tolist() == meant.tolist()


@pytest.mark.parametrize("count", range(1, 11))
def test_among_a_few_memories_none_stands_out(count: int) -> None:
    """A user who has said two things is not shown both of them, whatever the question is."""
    meant = floats(0.6, *[0.0] * (count - 1))
    assert lend_meaning(meant, a_minute_apart(count)).tolist() == meant.tolist()


def test_another_conversation_lends_no_meaning() -> None:
    meant, apart = floats(0.1, 0.6, *[0.1] * 20), numbers(*range(22))
    assert lend_meaning(meant, neighbours(apart, numbers(*[0] * 22))).tolist() == meant.tolist()


def test_a_similarity_with_what_is_lent_is_at_most_1() -> None:
    meant = floats(*[0.0] * 40, 1, 0.9, 1)
    assert max(lend_meaning(meant, a_minute_apart(43))) == 1
    assert lend_meaning(floats(), a_minute_apart(0)).tolist() == []


def test_a_short_answer_gains_by_the_reply_that_it_answers() -> None:
    worth, lengths = floats(1, 1, 0, 1), floats(9, 5, 40, 5)
    near = neighbours(numbers(1, 1, 1, 2), numbers(0, 60, 120, 180))
    gained = lend_replies(worth, lengths, near)
    assert gained == pytest.approx([0, REPLY_LENT, 0, 0])
    later = neighbours(numbers(1, 1), numbers(0, LEND_S + 1))
    gained = lend_replies(floats(1, 0), floats(5, 5), later)
    assert gained.tolist() == [0, 0]
    assert lend_replies(floats(), floats(), a_minute_apart(0)).tolist() == []


def test_the_older_of_two_that_say_nearly_the_same_yields() -> None:
    vectors = floats(1, 0, 0.99, 0.14, 0, 1).reshape(3, 2)
    lowered = yield_to_newer(floats(0.52, 0.5, 0.4), vectors, numbers(1, 2, 3))
    assert lowered[0] < lowered[2] < lowered[1]
    assert lowered[1:] == pytest.approx([0.5, 0.4])


def test_nothing_yields_to_a_newer_one_that_is_much_worse() -> None:
    vectors = floats(1, 0, 1, 0).reshape(2, 2)
    assert yield_to_newer(floats(0.9, 0.1), vectors, numbers(1, 2)) == pytest.approx([0.9, 0.1])


def test_the_best_come_first_and_of_equals_the_newer() -> None:
    values = floats(0.1, 0.9, 0.5, 0.9)
    assert best_first(values, 3).tolist() == [3, 1, 2]
    assert best_first(values, 0).tolist() == []
    assert best_first(values[:0], 3).tolist() == []


@given(st.lists(st.sampled_from([0.1, 0.2, 0.3])), st.integers(0, 9))
def test_the_best_of_many_are_those_of_a_full_sort(values: list[float], count: int) -> None:
    places = sorted(range(len(values)), key=lambda place: (values[place], place), reverse=True)
    assert best_first(floats(*values), count).tolist() == places[:count]


def test_the_best_of_some_are_looked_for_among_them_only() -> None:
    assert best_first(floats(0.1, 0.9, 0.5, 0.9, 0.5), 2, np.array([0, 2, 4])).tolist() == [4, 2]


_MATCHES = st.tuples(
    st.sets(st.integers(0, 9), min_size=1).map(lambda found: np.array(sorted(found), np.intp)),
    st.sampled_from([0.5, 1.0]),
)


@given(
    st.lists(
        st.lists(st.lists(_MATCHES, min_size=1, max_size=3), max_size=4), min_size=1, max_size=3
    ),
    st.sets(st.integers(0, 9)),
)
def test_many_queries_among_some_texts_are_worth_what_each_is_among_all(
    queries: list[list[ranking.Matches]], some: set[int]
) -> None:
    credit = credits_of(np.arange(10, dtype=np.float32))
    among = np.array(sorted(some), np.intp)
    found = words_in_common(queries, credit, among)
    for one, query in zip(found, queries, strict=True):
        assert one == pytest.approx(word_points(query, credit)[among], abs=1e-6)


def test_what_only_asks_for_work_comes_after_what_is_about_as_good(tmp_path: Path) -> None:
    meant, *unlike = np.eye(DIMS)
    nearness = {"ask": 0.7, "tell": 0.65, "other": 0.5}
    vectors = {
        text: share * meant + np.sqrt(1 - share * share) * axis
        for (text, share), axis in zip(nearness.items(), unlike, strict=False)
    }
    with closing(_store_that_knows_requests(tmp_path, "ask")) as store:
        for text, vector in vectors.items():
            store.insert([vector.tolist()], [{"user_id": "a", "data": text}], [text])
        rows = store.search("what", meant.tolist(), 3, {"user_id": "a"})
    assert [row.id for row in rows] == ["tell", "ask", "other"]


def test_a_request_is_one_no_more_once_it_was_edited(tmp_path: Path) -> None:
    asked, told, _ = np.eye(DIMS)[:3]
    with closing(_store_that_knows_requests(tmp_path, "ask")) as store:
        store.insert([asked.tolist()], [{"user_id": "a", "data": "ask"}], ["first"])
        store.insert([(asked + told / 4).tolist()], [{"user_id": "a", "data": "tell"}], ["second"])
        store.update("first", asked.tolist(), {"user_id": "a", "data": "tell more"})
        rows = store.search("what", asked.tolist(), 2, {"user_id": "a"})
    assert [row.id for row in rows] == ["first", "second"]


def _store_that_knows_requests(folder: Path, request: str) -> SqliteStore:
    return SqliteStore(
        folder / "store",
        embedder="hashing",
        dims=DIMS,
        scale=Scale(),
        is_request=request.__eq__,
    )
