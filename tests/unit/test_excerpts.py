"""Which part of a long text matters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterword.workers.rules.excerpts import best_window, both_ends, words_of

FILLER = "The report was long and nobody read all of it. " * 60
FACT = "My locker is number 4481 on the second floor."
TEXT = st.text() | st.text("ab .\n日本。", min_size=100, max_size=600)


def shown(text: str, message: str, longest: int = 200) -> str:
    return text[best_window(text, words_of(message), longest)]


# -- both ends


def test_a_short_text_has_one_end() -> None:
    assert both_ends(" What is my dog's name? ", 400) == ("What is my dog's name?",)


@pytest.mark.parametrize(
    "text", [f"{FILLER}\n\n{FACT}", f"{FILLER}{FACT}", f"{FACT}\n{FILLER}", f"{FACT} {FILLER}"]
)
def test_a_question_before_or_after_a_paste_is_one_of_its_sentences(text: str) -> None:
    ends = both_ends(text, 200)

    assert any(FACT in end for end in ends)
    assert all(end.startswith(("The", "My")) and end.endswith(".") for end in ends)


def test_an_end_without_a_sentence_is_cut() -> None:
    assert both_ends("x" * 500 + "y" * 500, 100) == ("x" * 50, "y" * 50)


@given(TEXT, st.integers(2, 120))
def test_ends_are_short_and_stand_at_the_ends(text: str, longest: int) -> None:
    ends = both_ends(text, longest)

    assert sum(map(len, ends)) <= longest or ends == (text.strip(),)
    assert text.strip().startswith(ends[0])
    assert text.strip().endswith(ends[-1])
    assert all(ends) == bool(text.strip())


# -- the part that fits


@pytest.mark.parametrize("before", [0, 1, 30, 60])
@pytest.mark.parametrize("message", ["What is the number of my locker?", "LOCKERS?"])
def test_the_part_that_fits_the_message_is_shown(before: int, message: str) -> None:
    text = FILLER[: before * 47] + FACT + " " + FILLER

    part = shown(text, message)

    assert FACT in part
    assert part.startswith(("The", "My")), "it begins with a sentence"


def test_words_that_are_rare_in_the_text_count_for_more() -> None:
    text = "I read the report on the report. " * 40 + "Otto is my dog. " + FILLER
    assert "Otto" in shown(text, "Does the report on the report mention my dog?")


@pytest.mark.parametrize(
    ("fact", "message"),
    [
        ("我的狗叫旺财。", "狗叫什么"),
        ("犬の名前はレックスです。", "犬の名前は何"),
        ("मेरे कुत्ते का नाम टाइगर है।", "कुत्ते का नाम"),
        ("Мою собаку зовут Жучка.", "Как зовут собаку?"),
        ("Ma chienne s'appelle Élodie.", "chienne elodie"),
    ],
)
def test_the_part_is_found_in_any_script(fact: str, message: str) -> None:
    assert fact in shown(FILLER + fact + FILLER, message)


def test_what_fits_nowhere_is_shown_from_its_beginning() -> None:
    assert FILLER.startswith(shown(FILLER, "Welche Farbe?"))


@given(TEXT, TEXT, st.integers(1, 150))
def test_a_window_is_never_longer_than_allowed(text: str, message: str, longest: int) -> None:
    window = best_window(text, words_of(message), longest)

    assert 0 <= window.start <= window.stop <= len(text)
    assert len(text[window]) <= longest
    assert window.start < window.stop or not text


@given(st.integers(0, 2000), st.integers(60, 300))
def test_a_fact_of_one_place_is_shown_whole_wherever_it_stands(at: int, longest: int) -> None:
    text = "x " * at + "locker 4481" + " x" * 2000
    assert "locker 4481" in shown(text, "4481 locker", longest)
