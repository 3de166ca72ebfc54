"""The tokens of the word index, in the scripts and languages that need something of their own."""

# ruff: noqa: RUF001 - letters of other scripts that look like Latin ones

from __future__ import annotations

from collections.abc import Sequence

import pytest

from afterword.workers.adapters.mem0.sqlite.folding import fold
from afterword.workers.adapters.mem0.sqlite.function_words import without_function_words
from afterword.workers.adapters.mem0.sqlite.tokenizer import (
    index_text,
    query_words,
)


def share_of_match(query: str, text: str) -> float:
    """Return what the best match of a query's words counts in a text, 0 for none."""
    tokens = set(index_text(text).tokens)
    return max((share for word in query_words(query) for token, share in word if token in tokens))


def words_of(query: str) -> Sequence[str]:
    return [word[0][0] for word in query_words(query)]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("I went, my dogs ran!", ["i", "went", "my", "dog", "ran"]),
        ("[8 May 2026] Café 7", ["8", "may", "2026", "cafe", "7"]),
        ("Maße, ﬁne, ＡＢＣ", ["mass", "fine", "abc"]),
        ("red ring, red", ["red", "ring"]),
        ("snake_case", ["snake", "case"]),
        ("我喜欢 iPad手机", ["我喜", "喜欢", "ipad", "手机"]),
        ("我", ["我"]),
        ("... !?", []),
    ],
)
def test_a_text_is_found_by_its_stems(text: str, tokens: list[str]) -> None:
    assert index_text(text).tokens == tokens


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("ガス代", "ガスを止めた"),  # not カス
        ("पत्नी का नाम", "मेरी पत्नी मीरा है"),
        ("பூனை", "என் பூனை கருப்பு"),
        ("แมว", "ฉันมีแมวสองตัว"),
        ("İSTANBUL", "istanbul'da oturuyorum"),
        ("IŞIK", "ışık"),
        ("DİYARBAKIR", "diyarbakır"),
        ("إسلام", "اسلام"),
        ("مدرسة", "المدرسة"),
        ("علي", "على"),
        ("كِتَاب", "كتاب"),
        ("ёлка", "елка"),
        ("собаки", "собака"),
        ("किताबें", "किताब"),
        ("Ångström", "angstrom"),
        ("straße", "STRASSE"),
        ("Đà Nẵng", "Đa Nang"),
    ],
)
def test_spellings_and_forms_of_one_word_match(query: str, text: str) -> None:
    assert share_of_match(query, text) == 1


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("Erdnuss", "Ich habe eine Erdnussallergie"),
        ("Allergie", "Ich habe eine Erdnussallergie"),
        ("Erdnussallergie", "Erdnuss geht gar nicht"),
        ("alerjim", "alerjiler"),
        ("evlerimizden", "evlerimiz"),
        ("приготовление", "приготовить"),
    ],
)
def test_parts_of_compounds_and_forms_match_for_less(query: str, text: str) -> None:
    assert 0 < share_of_match(query, text) < 1


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("कल", "काला"),  # the vowel signs tell them apart
        ("か", "が"),
        ("มา", "แมว"),
        ("кит", "кот"),
        ("ring", "red"),
    ],
)
def test_other_words_do_not_match(query: str, text: str) -> None:
    tokens = set(index_text(text).tokens)
    assert not [token for word in query_words(query) for token, _ in word if token in tokens]


@pytest.mark.parametrize(
    "code", ["ana.gomez@example.org", "AB-1234/7", "10.0.0.17", "v2.3.1-rc1", "+49-30-1234"]
)
def test_addresses_and_numbers_match_as_a_whole_too(code: str) -> None:
    tokens = index_text(f"It is {code}, I think.").tokens
    assert fold(code.lstrip("+")) in tokens
    assert words_of(f"What is {code}?")[-1] == fold(code.lstrip("+"))


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("What is my dog called?", ["call", "dog"]),
        ("Wie heißt mein Hund?", ["heisst", "hund"]),
        ("Quel est le nom de mon chien ?", ["chien", "nom"]),
        ("¿Cómo se llama mi perro?", ["llama", "perro"]),
        ("Come si chiama il mio cane?", ["cane", "chiama"]),
        ("Qual é o nome do meu cão?", ["cao", "nome"]),
        ("Köpeğimin adı ne?", ["adi", "kopegimin"]),
        ("Как зовут мою собаку?", ["зовут", "мо", "собак"]),
        ("ما اسم كلبي؟", ["اسم", "كلب"]),
        ("मेरे कुत्ते का नाम क्या है?", ["कुत्त", "नाम"]),
        ("我的狗叫什么？", ["叫什", "狗叫", "的狗"]),
        ("It is what it is", ["is", "it", "what"]),
    ],
)
def test_function_words_of_a_query_are_left_out(query: str, words: list[str]) -> None:
    assert sorted(words_of(query)) == words


def test_a_word_that_is_a_function_word_in_another_language_stays() -> None:
    assert list(without_function_words(["where", "is", "my", "son"])) == ["son"]
    assert list(without_function_words(["was", "ist", "hat"])) != ["hat"]
    assert list(without_function_words(["die", "with", "me"])) == ["die"]


def test_words_are_counted_with_repeats() -> None:
    assert index_text("tea, tea and more tea").length == 5
