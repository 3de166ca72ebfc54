"""Which days a question is about, in twelve languages."""

# ruff: noqa: RUF001 - letters of other scripts

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterword.workers.rules.asked_days import asked_days
from afterword.workers.rules.dates import LONGEST_TYPED

#: A Tuesday.
TODAY = date(2026, 12, 1)

DAYS = {
    "2026-05-03": """
        What did I say on 3 May?
        what was I told on May 3rd
        What did we plan on the 3rd of May, 2026?
        What happened on 2026-05-03?
        Was habe ich am 3. Mai gesagt?
        Was war am 3.5.2026 los?
        Qu'est-ce que j'ai dit le 3 mai ?
        ¿Qué dije el 3 de mayo?
        Che cosa ho detto il 3 maggio?
        O que disse em 3 de maio de 2026?
        3 Mayıs'ta ne dedim?
        Что я говорил 3 мая 2026 года?
        ماذا قلت في 3 مايو؟
        ماذا قلت في ٣ أيار؟
        मैंने 3 मई को क्या कहा था?
        我5月3号说了什么？
        2026年5月3日に何と言いましたか。
    """,
    "2026-11-24": """
        What did I tell you last Tuesday?
        Was habe ich letzten Dienstag erzählt?
        Qu'ai-je dit mardi dernier ?
        ¿Qué dije el martes pasado?
        Che cosa ho detto martedì scorso?
        O que disse na terça-feira passada?
        Geçen salı ne dedim?
        Что я говорил в прошлый вторник?
        ماذا قلت يوم الثلاثاء الماضي؟
        पिछले मंगलवार को मैंने क्या कहा?
        我上周二说了什么？
        先週の火曜日に何と言いましたか。
    """,
}
MONTHS = """
    What did we do in September?
    what did we do in september 2026
    Was haben wir im September gemacht?
    Qu'avons-nous fait en septembre ?
    ¿Qué hicimos en septiembre?
    Che cosa abbiamo fatto a settembre?
    O que fizemos em setembro?
    Eylül'de ne yaptık?
    Eylül ayında ne yaptık?
    Что мы делали в сентябре?
    ماذا فعلنا في سبتمبر؟
    हमने सितंबर में क्या किया?
    我们9月做了什么？
    我们九月做了什么？
    9月に何をしましたか。
"""


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


@pytest.mark.parametrize(
    ("question", "day"), [(line, day) for day, text in DAYS.items() for line in lines(text)]
)
def test_a_day_is_asked_for_by_its_date_or_from_today(question: str, day: str) -> None:
    (alternatives,) = asked_days(question, TODAY)
    assert alternatives[0] == (date.fromisoformat(day),) * 2


@pytest.mark.parametrize("question", lines(MONTHS))
def test_a_month_is_all_of_its_days(question: str) -> None:
    (alternatives,) = asked_days(question, TODAY)
    assert alternatives[0] == (date(2026, 9, 1), date(2026, 9, 30))


def test_a_date_without_a_year_is_the_last_one_or_one_before() -> None:
    (alternatives,) = asked_days("What did I say on 24 December?", TODAY)
    assert [first.year for first, _ in alternatives[:2]] == [2025, 2024]
    (alternatives,) = asked_days("What did I say on 29 February?", TODAY)
    assert [first.year for first, _ in alternatives] == [2024, 2020]
    (alternatives,) = asked_days("What did I say on 24 December 2023?", TODAY)
    assert alternatives == [(date(2023, 12, 24), date(2023, 12, 24))]


def test_several_times_may_be_asked_for_and_what_is_longer_counts() -> None:
    found = asked_days("What changed between 3 May 2026 and last week?", TODAY)
    assert [times[0] for times in found] == [
        (date(2026, 5, 3), date(2026, 5, 3)),
        (date(2026, 11, 23), date(2026, 11, 29)),
    ]


@pytest.mark.parametrize(
    "question",
    [
        "May I go home?",
        "may 3 people come?",
        "Where is the march of 2,000 people?",
        "What happens on 2 December 2026?",
        "What do I do tomorrow?",
        "Bu ocakta ne pişiyor?",
        "What is on 31 February?",
        "Who are the 12 may-bugs?",
        "Is 10.5.1 the newest version?",
        "x" * LONGEST_TYPED + " on 3 May",
    ],
)
def test_what_is_no_day_until_today_is_not_asked_for(question: str) -> None:
    assert asked_days(question, TODAY) == []


@given(st.text(max_size=80), st.dates(date(1000, 1, 1)))
def test_whatever_is_asked_times_are_in_order_and_until_today(text: str, today: date) -> None:
    for alternatives in asked_days(f"{text} 3 May {text} 2月30日 last year", today):
        assert list(alternatives) == sorted(alternatives, reverse=True)
        assert all(first <= last and first <= today for first, last in alternatives)
