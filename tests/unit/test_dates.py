"""What "tomorrow" and "last week" mean on the day on which they are said, in twelve languages."""

# ruff: noqa: RUF001 - letters of other scripts, and the dash of a span of days

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterword.workers.rules.asked_days import date_phrases
from afterword.workers.rules.date_patterns import (
    languages_found,
    languages_with_dates,
    lexicon_of,
    pattern_of,
)
from afterword.workers.rules.dates import LONGEST_TYPED, with_dates, without_dates
from afterword.workers.rules.relative_dates import relative_phrases

#: A Tuesday.
TODAY = date(2026, 12, 1)

DATED = [
    "I have an exam tomorrow [2 December 2026].",
    "Yesterday [30 November 2026] I ran ten kilometres.",
    "The day after tomorrow [3 December 2026] we fly, and next Friday [4 December 2026] back.",
    "Last week [23 November 2026 – 29 November 2026] I broke my toe.",
    "My sister visits in two weeks [15 December 2026].",
    "I quit 3 months ago [September 2026] and marry next year [2027].",
    "Last Tuesday [24 November 2026] I met Ana; next Tuesday [8 December 2026] we go out.",
    "Mum had tomorrow's [2 December 2026] party moved.",
    "Ich habe übermorgen [3. Dezember 2026] eine Prüfung.",
    "Morgen [2. Dezember 2026] fahre ich nach Köln, am Morgen noch zum Arzt.",
    "Nächsten Freitag [4. Dezember 2026] kommt meine Mutter.",
    "Vor drei Tagen [28. November 2026] war ich beim Arzt, in zwei Wochen wieder.",
    "In zwei Wochen [15. Dezember 2026] fliege ich nach Rom.",
    "J'ai un examen demain [2 décembre 2026] et hier [30 novembre 2026] j'étais malade.",
    "La semaine prochaine [7 décembre 2026 – 13 décembre 2026] je pars à Rome.",
    "Il y a deux ans [2024] j'ai divorcé, je me marie vendredi prochain [4 décembre 2026].",
    "Mañana [2 de diciembre de 2026] tengo un examen. Por la mañana tomo café.",
    "La semana pasada [23 de noviembre de 2026 – 29 de noviembre de 2026] me mudé a Bilbao.",
    "Dentro de dos semanas [15 de diciembre de 2026] viajo a Perú.",
    "Domani [2 dicembre 2026] ho un esame e l'altro ieri [29 novembre 2026] ero a Roma.",
    "Fra due settimane [15 dicembre 2026] parto, sabato prossimo [5 dicembre 2026] no.",
    "La settimana scorsa [23 novembre 2026 – 29 novembre 2026] ho cambiato lavoro.",
    "Amanhã [2 de dezembro de 2026] tenho um exame de manhã.",
    "Na próxima sexta-feira [4 de dezembro de 2026] vou ao médico.",
    "Viajo daqui a duas semanas [15 de dezembro de 2026].",
    "Yarın [2 Aralık 2026] sınavım var.",
    "Geçen hafta [23 Kasım 2026 – 29 Kasım 2026] Bursa'ya taşındım.",
    "İki hafta sonra [15 Aralık 2026] tatile çıkıyoruz, önümüzdeki cuma [4 Aralık 2026] değil.",
    "Завтра [2 декабря 2026] экзамен.",
    "На прошлой неделе [23 ноября 2026 – 29 ноября 2026] я болел.",
    "Через две недели [15 декабря 2026] лечу в Рим. В следующую пятницу [4 декабря 2026] врач.",
    "غدًا [2 ديسمبر 2026] عندي امتحان.",
    "انتقلت الأسبوع الماضي [23 نوفمبر 2026 – 29 نوفمبر 2026] إلى أسوان.",
    "سأسافر بعد أسبوعين [15 ديسمبر 2026] ويوم الجمعة القادم [4 ديسمبر 2026] إلى الطبيب.",
    "कल [2 दिसंबर 2026] मेरी परीक्षा होगी।",
    "कल [30 नवंबर 2026] मैं बीमार था।",
    "मैं पिछले हफ्ते [23 नवंबर 2026 – 29 नवंबर 2026] भोपाल आया।",
    "दो हफ्ते बाद [15 दिसंबर 2026] मैं रोम जाऊँगा।",
    "明天[2026年12月2日]我有考试。",
    "下周五[2026年12月11日]去看医生，上周[2026年11月23日 – 2026年11月29日]搬家了。",
    "两周后[2026年12月15日]我去罗马。",
    "明日[2026年12月2日]試験があります。",
    "来週の金曜日[2026年12月11日]に病院へ行きます。",
    "先月[2026年11月]引っ越しました。二週間後[2026年12月15日]にローマへ行きます。",
]

ALONE = {
    "a song": "My favourite song is Yesterday by the Beatles.",
    "a quotation": 'He said "I come tomorrow" and never came.',
    "a saying": "There is no tomorrow for him.",
    "a duration": "I lost five kilos in two weeks.",
    "a duration, German": "Ich habe in zwei Wochen fünf Kilo verloren.",
    "morning, German": "Guten Morgen! Am Morgen trinke ich Tee.",
    "morning, Spanish": "Por la mañana tomo café, y esta mañana también.",
    "here, German": "Ich bin hier.",
    "yesterday or tomorrow, Hindi": "कल डॉक्टर।",
    "after a year, Chinese": "2020年后我没有工作，二十年后也没有。",
    "a weekday that may be either": "On Friday I play chess.",
    "hours": "An hour ago I ate.",
    "beyond all dates": "In 999 years nobody will know.",
    "a date that is there": "I move tomorrow [2 December 2026].",
    "a long text": "I paste what they wrote: we meet tomorrow. " + "x" * LONGEST_TYPED,
}


@pytest.mark.parametrize("dated", DATED)
def test_a_phrase_is_followed_by_the_date_that_it_means(dated: str) -> None:
    said = without_dates(dated)
    assert "[" not in said
    assert with_dates(said, TODAY) == dated


@pytest.mark.parametrize("text", ALONE.values(), ids=ALONE)
def test_what_may_mean_something_else_stays_alone(text: str) -> None:
    assert with_dates(text, TODAY) == text


@pytest.mark.parametrize("phrases", [relative_phrases, date_phrases])
@pytest.mark.parametrize("spelled", [str, str.upper, str.lower, str.title])
def test_no_language_is_left_out_that_has_a_phrase_in_a_text(
    phrases: Callable[[str], Iterable[str]], spelled: Callable[[str], str]
) -> None:
    seen: set[str] = set()
    for text in map(spelled, [*DATED, *map(without_dates, DATED)]):
        named = {
            language
            for language in languages_with_dates()
            for phrase in phrases(language)
            if pattern_of(phrase, lexicon_of(language)).search(text)
        }
        assert named <= set(languages_found(text, phrases))
        seen |= named
    assert seen == set(languages_with_dates())


def test_months_and_years_turn() -> None:
    assert with_dates("last month", date(2027, 1, 31)).endswith("[December 2026]")
    assert with_dates("in one month", date(2027, 1, 31)).endswith("[February 2027]")
    assert with_dates("tomorrow", date(2028, 2, 28)).endswith("[29 February 2028]")
    assert with_dates("a year ago", date(2028, 2, 29)).endswith("[2027]")


WORDS = [
    "tomorrow",
    "morgen",
    "hier",
    "last week",
    "in 2 days",
    "明天",
    "कल",
    "[",
    "]",
    "2026",
    '"',
]


@given(st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=5))), st.dates(date(1, 1, 1)))
def test_every_text_keeps_its_words_and_is_dated_once(words: list[str], today: date) -> None:
    text = " ".join(words)
    dated = with_dates(text, today)
    assert without_dates(dated) == without_dates(text)
    assert with_dates(dated, today) == dated
