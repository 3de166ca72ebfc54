"""The tokenizer, BM25, and its combination with cosines."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterword.workers.adapters.mem0.sqlite.ranking import (
    Positions,
    Scale,
    best_first,
    bm25,
    combine,
)
from afterword.workers.adapters.mem0.sqlite.tokenizer import tokenize


def scores(query: str, *texts: str) -> list[float]:
    held = [tokenize(text) for text in texts]
    found: list[Positions] = [
        np.array([place for place, text in enumerate(held) if word in text], np.intp)
        for word in dict.fromkeys(tokenize(query))
    ]
    lengths = np.array([len(text) for text in held], np.float32)
    return [float(score) for score in bm25((places for places in found if len(places)), lengths)]


@pytest.mark.parametrize(
    ("text", "stems"),
    [
        ("I went RUNNING, my dogs ran!", ["went", "run", "dog", "ran"]),
        ("[8 May 2026] Café 7", ["8", "may", "2026", "cafe", "7"]),
        ("Straße, ﬁne, ＡＢＣ", ["strass", "fine", "abc"]),  # noqa: RUF001
        ("red ring", ["red", "ring"]),
        ("snake_case", ["snake", "case"]),
        ("It is what it is", ["it", "is", "what", "it", "is"]),
        ("我喜欢 iPhone手机", ["我喜", "喜欢", "iphon", "手机"]),
        ("我", ["我"]),
        ("... !?", []),
    ],
)
def test_words_are_stems_without_case_accents_and_stop_words(text: str, stems: list[str]) -> None:
    assert tokenize(text) == stems


def test_a_rare_word_weighs_more_than_a_common_one() -> None:
    rare, common, _ = scores("cello tea", "I play cello", "I like tea", "I make tea")
    assert rare > common > 0


def test_a_long_text_weighs_less_than_a_short_one() -> None:
    short, long, none = scores("cello", "cello lesson", "cello " + "thing " * 30, "tea")
    assert short > long > none == 0


def test_more_words_weigh_more() -> None:
    both, one = scores("Celsius thermometer", "Celsius thermometer", "Celsius barometer")
    assert both > one > 0


def test_no_texts_have_no_scores() -> None:
    assert scores("cello") == []


FLOATS = st.floats(-1, 1, width=32)
SCALES = st.builds(Scale, st.floats(-1, 0.9), st.floats(0.1, 2), st.floats(0, 2))


@given(st.lists(st.tuples(FLOATS, st.floats(0, 40, width=32))), SCALES)
def test_a_combined_score_is_between_0_and_1_and_grows_with_both(
    pairs: list[tuple[float, float]], scale: Scale
) -> None:
    cosines, matches = (np.array([pair[side] for pair in pairs], np.float32) for side in (0, 1))
    fused = combine(cosines, matches, scale)
    assert ((fused >= 0) & (fused <= 1.0001)).all()
    for one, better in pairwise(pairs):
        if one[0] <= better[0] and one[1] <= better[1]:
            assert fused[pairs.index(one)] <= fused[pairs.index(better)]


def test_the_scale_of_e5_is_spread_over_the_whole_range() -> None:
    e5 = Scale(floor=0.7, span=0.3, word_weight=0.3)
    none = np.zeros(3, np.float32)
    fused = combine(np.array([0.6, 0.85, 1.0], np.float32), none, e5)
    assert fused == pytest.approx([0, 0.5 / 1.3, 1 / 1.3])


def test_the_best_match_by_words_adds_its_whole_weight_and_others_their_share() -> None:
    equal = np.full(3, 0.5, np.float32)
    fused = combine(equal, np.array([0, 2, 4], np.float32), Scale(word_weight=0.5))
    assert fused == pytest.approx([0.5 / 1.5, 0.75 / 1.5, 1 / 1.5])


def test_the_best_come_first_and_of_equals_the_newer() -> None:
    values = np.array([0.1, 0.9, 0.5, 0.9], np.float32)
    assert best_first(values, 3).tolist() == [3, 1, 2]
    assert best_first(values, 0).tolist() == []
    assert best_first(values[:0], 3).tolist() == []
