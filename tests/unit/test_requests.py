"""Which messages only ask for work, and which of them surely say nothing else."""

# ruff: noqa: RUF001 - letters of other scripts that look like Latin ones

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from afterword.workers.rules.requests import LONGEST_REQUEST, is_request, is_request_only
from tests.unit.test_relevance import MESSAGES, MOST_LOST

#: Those that are stored all the same lose a little of their score.
MOST_TAKEN = 0.25

REQUESTS = [
    "Give me a recipe for pancakes.",
    "Thanks! Now translate the second line.",
    "please write a limerick about a fox",
    "Schreibe ein kurzes Märchen über einen Fuchs.",
    "Donne-moi une recette de crêpes.",
    "Dame una receta de tortitas.",
    "Explícame qué es la fotosíntesis.",
    "Dá-me uma receita de panquecas.",
    "Bana bir şiir yaz.",
    "मुझे पैनकेक की विधि बताओ।",
    "एक कहानी सुनाइए।",
    "给我一个煎饼的食谱。",
    "パンケーキの作り方を教えて。",
]

TELLING = [
    "Give me prices in euros.",
    "Tell me when my sister lands.",
    "Write to Anna about the flat.",
    "Show me trains before 8.",
    "Always explain it briefly.",
    "Write me answers without lists.",
    "I write novels.",
    "Explain it to me, I am deaf.",
    "Gib mir die Preise in Franken.",
    "Suche eine Wohnung am See.",
    "Schreib immer in ganzen Sätzen.",
    "Donne-moi toujours des réponses courtes.",
    "Dame las distancias en millas.",
    "Háblame de usted, por favor.",
    "Enseña matemáticas en un instituto.",
    "Di solito bevo caffè.",
    "Da bambino vivevo al mare.",
    "Dammi le distanze in miglia.",
    "De manhã bebo chá.",
    "Diz-me as distâncias em milhas.",
    "En sevdiğim mevsim yaz.",
    "Fiyatları euro cinsinden söyle.",
    "Пиши ответы без списков.",
    "Я пишу письма.",
    "أكتب روايات.",
    "मेरे बच्चे दो।",
    "दूरी मील में बताओ।",
    "我写小说。",
    "温度请用摄氏度告诉我。",
    "小説を書いています。",
    "距離はマイルで教えてください。",
    "Schrijf een gedicht over de herfst.",
    "สวัสดี",
    "Thanks!",
    "",
    "Write a poem. " + "It may be long. " * (LONGEST_REQUEST // 16),
]


#: They ask for work, and say a little of who asks, or may do so.
DOUBTFUL = [
    "Напиши письмо арендодателю.",
    "Дайте, пожалуйста, рецепт блинов.",
    "أعطني وصفة للفطائر.",
    "Scrivi una lettera al padrone di casa.",
    "Please draft a letter to the landlord. Make it polite.",
    "Give me a riddle for the party.",
    "Explain inflation in simple words.",
    "Write a slogan for a bakery.",
    "Gib mir bitte ein Rezept für Pfannkuchen.",
    "Rédigez une lettre au propriétaire.",
    "Dammi una ricetta per le frittelle.",
    "Escreva uma carta ao senhorio.",
    "Fotosentezi kısaca açıkla.",
    "اكتب رسالة إلى صاحب البيت.",
    "请写一封给房东的信。",
    "大家さんへの手紙を書いてください。",
]

#: One clause asks, another one tells.
BESIDE = [
    "Draft an email, the boiler broke again.",
    "Explain the rules - new here.",
    "Find me a song about rain, singing it on stage.",
    "Schreib eine Mail, die Heizung ist kaputt.",
    "Escribe un correo, duermo mal.",
    "Scrivi una mail, dormo male.",
    "Escreve um texto, moro sozinha.",
    "Bir şarkı öner, uykum hafif.",
    "Посоветуй фильм, сплю плохо.",
    "曲を勧めて、眠りが浅いの。",
]


@pytest.mark.parametrize("text", REQUESTS)
def test_what_only_asks_for_work_says_nothing_else(text: str) -> None:
    assert is_request(text)
    assert is_request_only(text)


@pytest.mark.parametrize("text", DOUBTFUL)
def test_what_may_say_more_is_a_request_that_is_kept(text: str) -> None:
    assert is_request(text)
    assert not is_request_only(text)


@pytest.mark.parametrize("text", TELLING)
def test_what_tells_something_is_none(text: str) -> None:
    assert not is_request(text)
    assert not is_request_only(text)


@pytest.mark.parametrize("text", BESIDE)
def test_what_stands_beside_a_request_is_kept(text: str) -> None:
    assert not is_request_only(text)


@pytest.mark.parametrize("judge", [is_request, is_request_only])
def test_next_to_nothing_that_is_worth_remembering_is_a_request(
    judge: Callable[[str], bool],
) -> None:
    worth = [message["text"] for message in MESSAGES if message["verdict"] == "keep"]
    most = MOST_LOST if judge is is_request_only else MOST_TAKEN
    assert sum(map(judge, worth)) <= most * len(worth)


@pytest.mark.parametrize(
    "part", ["write ", "a ", "\u7ed9\u6211", "yaz ", "please write a ", "\u3066"]
)
def test_judging_the_longest_message_takes_little(part: str) -> None:
    is_request_only(part)
    began = time.process_time()
    is_request_only((part * LONGEST_REQUEST)[:LONGEST_REQUEST])
    assert time.process_time() - began < 0.05
