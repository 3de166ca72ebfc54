"""Words that say nothing about a text's subject, in twelve languages; left out of a query.

A question is full of words such as "which" and "my". In a memory they are as rare as names, so
their own statistics do not show how little they say.
"""

# ruff: noqa: RUF001 - letters of other scripts that look like Latin ones

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from afterword.workers.adapters.mem0.sqlite.folding import fold

#: Not `may` in English, which is also a month.
_WORDS = {
    "en": """
        a about again also am an and any are as at be been being but by can could d did do does
        doing don else ever for from get got had has have having he her here hers him his how i if
        in into is it its just ll m many me much my no not of often on or our ours out please re s
        she should so some such t than that the their them then there these they this those to too
        up us usually ve very was we were what when where which who whom whose why will with would
        you your yours""",
    "de": """
        als also am an auch auf aus bei bin bis bist bitte da damit dann das dass dein deine dem den
        der des dich die dir doch du ein eine einem einen einer eines er es euch euer für gibt habe
        haben hat hatte hast ich ihm ihn ihnen ihr ihre im in ist ja jetzt kann kannst können mal
        man mein meine meinem meinen meiner mich mir mit nach nicht noch nun ob oder schon sehr sein
        seine sich sie sind so soll um und uns unser unsere unserem unseren viel vom von vor wann
        war waren warum was welche welchem welchen welcher welches wem wen wenn wer werden wie
        wieder wieso wir wird wo woher wohin worauf zu zum zur""",
    "fr": """
        ai as au aux avec avoir c ce ces cet cette chez combien comme comment d dans de des dois du
        elle elles en es est et être fait il ils j je l la le les leur lui m ma mais me mes moi mon
        n ne nos notre nous on ont ou où par pas peux plus pour pourquoi puis qu quand que quel
        quelle quelles quels qui quoi s sa se ses si son sont suis sur t ta te tes toi ton tu un une
        vos votre vous y à ça""",
    "es": """
        a al algo como con cual cuales cuando cuanta cuantas cuanto cuantos de del donde el ella
        ellos en era es esa ese eso esta este esto estoy fue ha han hay he la las le les lo los me
        mi mis mucho muy más ni no nos nuestra nuestro o os para pero por porque puedo que quien se
        ser si sin sobre son soy su sus también te tengo ti tiene tu tus un una uno y ya yo""",
    "it": """
        a ad ai al alla alle anche che chi ci come con cosa cui da dal dalla dei del della delle di
        dove e era ero fa fra gli ha hai hanno ho i il in io l la le lei lo loro lui ma me mi mia
        mie miei mio ne nei nel nella noi non nostra nostro o per perché più posso qual quale quali
        quando quanta quante quanti quanto quella quello questa questo se sei si sia sono su sua sue
        sul suo ti tra tu tua tuo un una uno vi voi è""",
    "pt": """
        a ao aos as até com como da das de dela dele do dos e ela ele em era essa esse esta este
        estou está eu foi há isso já lhe mais mas me meu meus mim minha minhas muito na nas no nos
        nossa nosso num numa não nós o onde os ou para pela pelo por porque posso quais qual quando
        quanta quantas quanto quantos que quem se sem ser seu seus sou sua suas só também te tem
        tenho teu tu tua um uma você à às é""",
    "tr": """
        acaba ama ben bana bende beni benim bir biz bize bizim bu bunu da daha de değil diye en gibi
        hangi hangisi için ile ise kaç ki kim kime kimin mi misin mu musun mı mısın nasıl ne neden
        nerede nereden nereye neyi o olan olarak on onu onun sana sen seni senin siz var ve veya ya
        yok çok şu""",
    "ru": """
        а без был была были было быть в вам вас ваш во вот все где да для до его если есть еще ее же
        за здесь и из или им их к как какая какие каким какое какой каком какую когда которая
        которые который кто кого кому куда ли меня мне мое моего моей моем мои мой моя мы на над нам
        нас наш наша наше наши не него нет но ну о об он она они оно от откуда по под почему при с
        сам свой себя сколько со так также там то тоже ты тебе тебя у уже чего чей чем что чтобы эта
        эти это этот я""",
    "ar": """
        ما ماذا من متى أين كيف كم لماذا هل أي أية في على إلى عن مع هو هي هم هذا هذه ذلك تلك التي
        الذي أنا أنت نحن كان كانت يكون لي لك له لها لنا و أو ثم لا لم لن ليس ليست قد أن إن كل بعد
        قبل عند عندي بين حتى إذا لأن منذ يجب""",
    "hi": """
        का की के को में से पर ने है हैं था थी थे हो हूँ और या भी ही तो कि यह वह ये वे इस उस इन उन
        मैं मैंने मुझे मेरा मेरी मेरे हम हमने हमें हमारा हमारी हमारे तुम तुम्हारा आप आपका क्या कौन
        कब कहाँ कैसे कितना कितनी कितने क्यों किस किसे किससे किसका सा सी नहीं न एक कर करता करती करते
        करना रहा रही रहे जो जब अब लिए साथ तक चाहिए""",
    "zh": """
        什么 怎么 哪里 哪个 哪些 哪种 多少 我的 你的 他的 她的 我们 你们 他们 我有 是我 我是 我在
        这个 那个 一个 是什 么时 时候 为什 的是 是谁 有没 没有""",
    "ja": """
        です ます まし した して てい いま すか ため 何で どこ いつ 誰で 私の 私は のは
        はな なに のか いる いて るの はど たの こと もの ので から まで より でし たい なぜ どの
        どん んな""",
}
_OF = {language: frozenset(fold(words).split()) for language, words in _WORDS.items()}
_LANGUAGES_OF = {
    word: tuple(language for language, listed in _OF.items() if word in listed)
    for word in frozenset.union(*_OF.values())
}


def without_function_words(words: Sequence[str]) -> Sequence[str]:
    """Return the folded words of a text without the function words of its language.

    Its language is the one that most of its words are function words of. If several tie, only what
    is a function word in all of them is left out. A text of function words only stays as it is.
    """
    counts = Counter(name for word in words for name in _LANGUAGES_OF.get(word, ()))
    if not counts:
        return words
    most = max(counts.values())
    listed = frozenset.intersection(*(_OF[name] for name in counts if counts[name] == most))
    return [word for word in words if word not in listed] or words
