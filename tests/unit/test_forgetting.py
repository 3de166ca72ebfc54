"""Which messages ask to forget something, and say nothing else."""

# ruff: noqa: RUF001 - letters of other scripts that look like Latin ones

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterword.workers.rules.forgetting import asks_to_forget
from afterword.workers.rules.remembering import reason_in
from tests.unit.test_relevance import MESSAGES

FORGETS = [
    "Forget my cat",
    "Please forget that I live in Ghent.",
    "Can you forget what I told you about my job?",
    "Delete my address from your memory.",
    "Erase everything you know about me.",
    "Stop remembering my weight!",
    "Vergiss meine Katze.",
    "Vergiss bitte, dass ich in Gent wohne.",
    "Lösche meine Adresse aus deinem Gedächtnis.",
    "Oublie mon chat.",
    "Oublie que j'habite à Gand, s'il te plaît.",
    "Efface mon adresse de ta mémoire.",
    "Olvida a mi gato.",
    "Olvídate de que vivo en Gante.",
    "Borra mi dirección de tu memoria.",
    "Dimentica il mio gatto.",
    "Dimentica che abito a Gand.",
    "Cancella il mio indirizzo dalla tua memoria.",
    "Esqueça o meu gato.",
    "Esquece que eu moro em Gante.",
    "Apaga a minha morada da tua memória.",
    "Kedimi unut.",
    "Gent'te yaşadığımı unut lütfen.",
    "Adresimi hafızandan sil.",
    "Забудь про мою кошку.",
    "Забудь, что я живу в Генте.",
    "Удали мой адрес из памяти.",
    "انسَ قطتي.",
    "انسَ أنني أعيش في غنت.",
    "احذف عنواني من ذاكرتك.",
    "मेरी बिल्ली को भूल जाओ।",
    "यह भूल जाइए कि मैं गेंट में रहता हूँ।",
    "मेरा पता अपनी याददाश्त से हटा दो।",
    "请忘记我的猫。",
    "把我的地址忘掉。",
    "忘了我的猫吧。",
    "私の猫のことは忘れて。",
    "私の住所を忘れてください。",
    "私の住所を記憶から消してください。",
]

SAYS_MORE = [
    "Forget my cat, I have a dog now.",
    "Forget my old number. The new one ends in 55.",
    "Forget my cat and remember that I have a dog.",
    "Don't forget my birthday, it's on 5 May.",
    "I forget my keys all the time.",
    "Don't let me forget my pills.",
    "Delete my last paragraph.",
    "Vergiss nicht, dass ich keine Nüsse esse.",
    "Ich vergesse ständig meine Schlüssel.",
    "Vergiss meine Katze, ich habe jetzt einen Hund.",
    "N'oublie pas que je suis végétarien.",
    "J'oublie toujours mes clés.",
    "No olvides que soy celíaca.",
    "Olvido siempre mis llaves.",
    "Non dimenticare che sono vegana.",
    "Não esqueças que sou vegano.",
    "Doğum günümü unutma.",
    "Anahtarımı hep unutuyorum.",
    "Не забудь, что я веган.",
    "Я забываю свои ключи.",
    "لا تنسَ أنني نباتي.",
    "أنسى مفاتيحي كثيرًا.",
    "मत भूलो कि मैं शाकाहारी हूँ।",
    "मैं अपनी चाबी भूल जाता हूँ।",
    "别忘了我不吃肉。",
    "我忘了带钥匙。",
    "忘记我的钥匙在哪了",
    "私が菜食だということを忘れないで。",
    "薬を飲むのを忘れて困った。",
    "",
    "Forget my cat " + "and all that " * 12,
]


@pytest.mark.parametrize("text", FORGETS)
def test_what_asks_to_forget_is_not_remembered(text: str) -> None:
    assert asks_to_forget(text)
    for pleasantries in (False, True):
        assert reason_in(text, pleasantries=pleasantries) in ("request_only", "question_only")


@pytest.mark.parametrize("text", SAYS_MORE)
def test_what_says_more_is_no_request_to_forget(text: str) -> None:
    assert not asks_to_forget(text)


def test_nothing_that_is_worth_remembering_asks_to_forget() -> None:
    worth = [each["text"] for each in MESSAGES if each["verdict"] == "keep"]
    assert [text for text in worth if asks_to_forget(text)] == []


@given(st.sampled_from([*FORGETS, *SAYS_MORE]), st.text(max_size=40))
def test_whatever_is_written_is_judged(text: str, more: str) -> None:
    asks_to_forget(text + more)


@pytest.mark.parametrize("part", ["forget my ", "a ", "unut ", "\u5fd8", "\u5fd8\u308c", "please "])
def test_judging_takes_little(part: str) -> None:
    asks_to_forget(part)
    began = time.process_time()
    asks_to_forget("forget" + (part * 120)[:114])
    assert time.process_time() - began < 0.05
