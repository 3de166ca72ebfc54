"""Which messages only ask for work."""

# ruff: noqa: RUF001 - letters of other scripts that look like Latin ones

from __future__ import annotations

import pytest

from afterword.workers.rules.requests import LONGEST_REQUEST, is_request_only
from tests.unit.test_relevance import MESSAGES, MOST_LOST

REQUESTS = [
    "Give me a recipe for pancakes.",
    "Thanks! Now translate the second line.",
    "please write a limerick about a fox",
    "Please draft a letter to the landlord. Make it polite.",
    "Schreibe ein kurzes Märchen über einen Fuchs.",
    "Gib mir bitte ein Rezept für Pfannkuchen.",
    "Donne-moi une recette de crêpes.",
    "Rédigez une lettre au propriétaire.",
    "Dame una receta de tortitas.",
    "Explícame qué es la fotosíntesis.",
    "Dammi una ricetta per le frittelle.",
    "Scrivi una lettera al padrone di casa.",
    "Dá-me uma receita de panquecas.",
    "Escreva uma carta ao senhorio.",
    "Bana bir şiir yaz.",
    "Fotosentezi kısaca açıkla.",
    "Напиши письмо арендодателю.",
    "Дайте, пожалуйста, рецепт блинов.",
    "اكتب رسالة إلى صاحب البيت.",
    "أعطني وصفة للفطائر.",
    "मुझे पैनकेक की विधि बताओ।",
    "एक कहानी सुनाइए।",
    "给我一个煎饼的食谱。",
    "请写一封给房东的信。",
    "大家さんへの手紙を書いてください。",
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


@pytest.mark.parametrize("text", REQUESTS)
def test_what_asks_for_work_is_a_request(text: str) -> None:
    assert is_request_only(text)


@pytest.mark.parametrize("text", TELLING)
def test_what_tells_something_is_none(text: str) -> None:
    assert not is_request_only(text)


def test_next_to_nothing_that_is_worth_remembering_is_a_request() -> None:
    worth = [message["text"] for message in MESSAGES if message["verdict"] == "keep"]
    assert sum(map(is_request_only, worth)) <= MOST_LOST * len(worth)
