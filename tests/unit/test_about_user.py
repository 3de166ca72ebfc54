"""Which messages ask for all that is known of the user, in twelve languages."""

# ruff: noqa: RUF001 - letters of other scripts

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterword.workers.rules.about_user import asks_about_user

ASKS = """
    What do you know about me?
    what do you know about me
    So, what exactly do you know about me so far?
    Hey Claude, what do you know about me?
    Hi! What do you remember about me?
    Who am I?
    Do you know who I am?
    What have I told you so far?
    What have I already told you about myself?
    Do you remember me?
    Do you still remember me?
    Tell me about myself
    Can you tell me something about me, please?
    Tell me everything you know about me.
    What did I say last time?
    What did we talk about in our last conversation?
    Hello again! Do you remember me? What do you know about me?

    Was weißt du über mich?
    was weisst du schon alles über mich
    Wer bin ich?
    Was habe ich dir bisher erzählt?
    Erinnerst du dich an mich?
    Erinnerst du dich noch an mich?
    Kennst du mich noch?
    Erzähl mir etwas über mich!
    Was habe ich letztes Mal gesagt?
    Was wissen Sie über mich?

    Que sais-tu de moi ?
    Qu’est-ce que tu sais déjà sur moi ?
    Qui suis-je ?
    Est-ce que tu te souviens de moi ?
    Tu te souviens encore de moi ?
    Qu'est-ce que je t'ai dit jusqu'à présent ?
    Parle-moi de moi.
    Qu'est-ce que j'ai dit la dernière fois ?

    ¿Qué sabes de mí?
    que sabes sobre mi
    ¿Quién soy?
    ¿Te acuerdas de mí?
    Hola, ¿todavía te acuerdas de mí?
    ¿Qué te he contado hasta ahora?
    Háblame de mí.
    ¿Qué dije la última vez?

    Che cosa sai di me?
    Cosa ricordi di me?
    Chi sono io?
    Ti ricordi di me?
    Che cosa ti ho detto finora?
    Parlami di me.
    Cosa ho detto l'ultima volta?

    O que você sabe sobre mim?
    O que sabes de mim?
    Quem sou eu?
    Você se lembra de mim?
    Você ainda lembra de mim?
    O que eu já te contei?
    Fale sobre mim.
    O que eu disse da última vez?

    Hakkımda ne biliyorsun?
    Benim hakkımda neler biliyorsun?
    Ben kimim?
    Beni hatırlıyor musun?
    Sana şimdiye kadar ne anlattım?
    Bana kendimden bahset.
    Geçen sefer ne dedim?

    Что ты знаешь обо мне?
    Что ты уже обо мне знаешь?
    Кто я?
    Ты меня помнишь?
    Помнишь меня?
    Что я тебе рассказывал?
    Расскажи обо мне.
    Расскажи, что ты обо мне знаешь.
    Что я говорила в прошлый раз?

    ماذا تعرف عني؟
    من أنا؟
    هل تتذكرني؟
    ماذا قلت لك حتى الآن؟
    أخبرني عن نفسي.
    ماذا قلت في المرة الماضية؟

    तुम मेरे बारे में क्या जानते हो?
    आप मेरे बारे में क्या जानते हैं?
    मैं कौन हूँ?
    क्या तुम्हें मैं याद हूँ?
    मैंने तुम्हें अब तक क्या बताया है?
    मुझे मेरे बारे में बताओ।
    पिछली बार मैंने क्या कहा था?

    你知道我什么？
    关于我，你知道些什么？
    你对我了解多少？
    我是谁？
    你还记得我吗？
    我跟你说过什么？
    我上次说了什么？
    說說我自己吧

    私について何を知っていますか？
    私のことを覚えていますか？
    私のこと覚えてる？
    私は誰ですか。
    今まで何を話しましたか？
    私について教えてください。
    前回何と言いましたか？
"""
OTHERS = """
    What do you know about my dog?
    What do you know about me and my dog?
    What do you know about jazz?
    Who am I talking to?
    Who am I supposed to call about the bill?
    Do you remember me telling you about Rex?
    Do you remember my name?
    Tell me about yourself.
    Tell me about the moon.
    What did I say about the garden?
    What did I say last Tuesday?
    What have I told you about Anna?
    What did I tell you to buy?
    He asked who I am.
    I know what you remember about me, and I am vegan.
    What did we talk about in Berlin?

    Was weißt du über meinen Hund?
    Was weißt du über Jazz?
    Wer bin ich für dich, dein Sklave?
    Was habe ich dir über Anna erzählt?
    Erinnerst du dich an meinen Namen?
    Erzähl mir etwas über Rom.
    Was habe ich letzten Dienstag gesagt?

    Que sais-tu de mon chien ?
    Qui suis-je censé appeler ?
    Tu te souviens de mon nom ?
    Qu'est-ce que je t'ai dit sur Anna ?
    Parle-moi de toi.

    ¿Qué sabes de mi perro?
    ¿Qué sabes de mi vida en Lima?
    ¿Quién soy yo para decidir?
    ¿Te acuerdas de mi nombre?
    ¿Qué te he contado de Ana?
    Háblame de mi ciudad.

    Che cosa sai del mio cane?
    Chi sono i Beatles?
    Ti ricordi di mia sorella?
    Che cosa ti ho detto di Anna?
    Parlami di te.

    O que você sabe sobre o meu cachorro?
    Quem sou eu para julgar?
    Você se lembra do meu nome?
    O que eu já te contei sobre a Ana?
    Fale sobre você.

    Köpeğim hakkında ne biliyorsun?
    Ben kimim ki karar vereyim?
    Adımı hatırlıyor musun?
    Sana Ayşe hakkında ne anlattım?
    Bana kendinden bahset.

    Что ты знаешь о моей собаке?
    Кто я по гороскопу?
    Ты помнишь мою сестру?
    Что я тебе рассказывал про Анну?
    Расскажи о себе.

    ماذا تعرف عن كلبي؟
    من أنا بالنسبة لأمي؟
    هل تتذكر اسمي؟
    ماذا قلت لك عن سارة؟
    أخبرني عن نفسك.

    तुम मेरे कुत्ते के बारे में क्या जानते हो?
    मैं कौन सी किताब पढ़ूँ?
    क्या तुम्हें मेरा नाम याद है?
    मैंने तुम्हें सीता के बारे में क्या बताया?
    मुझे अपने बारे में बताओ।

    你知道我的狗叫什么吗？
    我是谁的老师？
    你还记得我妈妈吗？
    我跟你说过小王什么？
    你知道我什么时候过生日吗？
    介绍一下北京

    私の犬について何を知っていますか？
    私の名前を覚えていますか？
    私は誰に電話すればいいですか。
    今までアンナについて何を話しましたか？
    あなたについて教えてください。
"""


def lines(text: str) -> list[str]:
    return [line for each in text.splitlines() if (line := each.strip())]


@pytest.mark.parametrize("message", lines(ASKS))
def test_a_question_for_all_that_is_known_is_recognised(message: str) -> None:
    assert asks_about_user(message)


@pytest.mark.parametrize("message", lines(OTHERS))
def test_a_question_with_a_subject_is_not(message: str) -> None:
    assert not asks_about_user(message)


@pytest.mark.parametrize("message", ["", "?", "Thanks!", "so far", "Who am I? " * 20])
def test_what_asks_nothing_or_is_long_is_not(message: str) -> None:
    assert not asks_about_user(message)


@given(st.text())
def test_any_text_has_an_answer(text: str) -> None:
    assert not asks_about_user(f"{text} Rex 42")
