"""The benchmark of recall: its data sets, its probe, its figures, and a part of it as a test."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import SecretStr, ValidationError

from afterword.shared.settings import Settings
from afterword.workers.adapters.mem0.sqlite.embedder import DIMS
from benchmarks.recall import __main__ as command
from benchmarks.recall import dataset, extraction, questions, short_facts
from benchmarks.recall.dataset import Dataset, Question
from benchmarks.recall.measure import Asked, Measured, Share, measure
from tests.conftest import ROOT
from tests.kit.claude_api import wire_format
from tests.kit.claude_api.server import ClaudeStandIn

TWELVE = ["ar", "de", "en", "es", "fr", "hi", "it", "ja", "pt", "ru", "tr", "zh"]
PROBES = (short_facts.PROBE, short_facts.SECOND)
DIALOGUES = sorted((ROOT / "benchmarks/recall/dialogues").glob("*.json"))
KINDS = {
    *("people", "places", "food", "health", "units", "dates"),
    *("numbers", "names", "preferences", "negations"),
}


def example() -> dict[str, Any]:
    said = {"id": "1", "at": "2026-05-08T20:00:00Z", "speaker": "ann", "text": "I live in Ghent."}
    asked = {"text": "Where is my home?", "evidence": ["1"]}
    return {"users": [{"name": "ann", "turns": [said], "questions": [asked]}]}


def test_a_data_set_is_read_from_its_documented_form(tmp_path: Path) -> None:
    path = tmp_path / "set.json"
    path.write_text(json.dumps(example()))
    (user,) = dataset.read(path).users
    assert (user.turns[0].text, user.questions[0].group) == ("I live in Ghent.", "all")


@pytest.mark.parametrize(
    ("user", "named"),
    [
        ({"turns": [{"id": "1", "speaker": "ann", "text": "x"}]}, "at"),
        ({"turns": [{"id": "1", "at": "2026-05-08", "speaker": "a", "text": "x"}]}, "at"),
        ({"mood": "good"}, "mood"),
        ({"questions": [{"text": "?", "evidence": ["2"]}]}, "evidence '2'"),
        ({"questions": [{"text": "?", "evidence": []}]}, "evidence"),
        ({"turns": [*example()["users"][0]["turns"] * 2]}, "several turns with the id '1'"),
    ],
)
def test_what_is_wrong_in_a_data_set_is_named(user: dict[str, Any], named: str) -> None:
    broken = {"users": [example()["users"][0] | user]}
    with pytest.raises(ValidationError, match=named):
        Dataset.model_validate_json(json.dumps(broken))


def test_a_reply_is_no_evidence() -> None:
    broken = example()
    broken["users"][0]["turns"][0]["speaker"] = dataset.ASSISTANT
    with pytest.raises(ValidationError, match="no turn of a user"):
        Dataset.model_validate_json(json.dumps(broken))


def test_a_file_that_cannot_be_read_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([str(tmp_path / "missing.json")]) == 2
    assert "missing.json" in capsys.readouterr().err


def test_the_probe_has_enough_of_everything() -> None:
    assert short_facts.languages() == TWELVE
    texts = [short_facts.source(language) for language in TWELVE]
    assert all(len(one["facts"]) >= 25 and len(one["changed"]) >= 3 for one in texts)
    assert all({fact["kind"] for fact in one["facts"]} == KINDS for one in texts)
    assert sum(len(one["facts"]) for one in texts) >= 300
    assert sum(len(one["chatter"]) for one in texts) >= 1000
    for one in texts:
        said = [*one["chatter"], *(fact["said"] for fact in one["facts"])]
        assert not [text for text, count in Counter(said).items() if count > 1]


def test_the_second_probe_has_other_texts_and_more_changes() -> None:
    for language in TWELVE:
        first, second = (short_facts.source(language, folder) for folder in PROBES)
        assert {fact["kind"] for fact in second["facts"]} == KINDS
        assert len(second["facts"]) >= 26 and len(second["changed"]) >= 8  # noqa: PT018 both
        assert _said(first).isdisjoint(_said(second))


def _said(texts: Mapping[str, Any]) -> set[str]:
    changed = (one[key] for one in texts["changed"] for key in ("before", "after"))
    return {*texts["chatter"], *(fact["said"] for fact in texts["facts"]), *changed}


def test_the_dialogues_are_long_and_have_questions_of_every_group() -> None:
    groups = {"single", "temporal", "multi", "open"}
    for path in DIALOGUES:
        (user,) = dataset.read(path).users
        assert len(user.turns) > 300
        assert len({turn.conversation for turn in user.turns}) > 15
        assert len(user.questions) > 80
        assert {question.group for question in user.questions} == groups
    assert len(DIALOGUES) == 3


def test_no_text_that_is_learned_from_is_measured_on() -> None:
    files = [*(questions.TRAINING / "facts").glob("*.json")]
    assert sorted(path.stem for path in files) == TWELVE
    learned = [json.loads(path.read_text("utf-8")) for path in files]
    asked = {text for one in learned for fact in one["facts"] for text in fact["asked"]}
    for folder in PROBES:
        for measured in (short_facts.source(language, folder) for language in TWELVE):
            assert all(_said(one).isdisjoint(_said(measured)) for one in learned)
            assert asked.isdisjoint(fact["asked"] for fact in measured["facts"])
    messages = [*(questions.TRAINING / "messages").glob("*.json")]
    assert sorted(path.stem for path in messages) == TWELVE
    dialogues = (questions.TRAINING / "dialogues").glob("*.json")
    told = {text for path in (*dialogues, *messages) for text in _turns(path)}
    assert told.isdisjoint(text for path in DIALOGUES for text in _turns(path))
    for language, folder in product(TWELVE, PROBES):
        assert told.isdisjoint(_said(short_facts.source(language, folder)))


def _turns(path: Path) -> set[str]:
    turns = (turn.text for user in dataset.read(path).users for turn in user.turns)
    return {text for text in turns if len(text) > 30}  # anybody may say less


def test_what_is_learned_brings_questions_to_their_answers() -> None:
    chance = np.random.default_rng(13)
    statements: NDArray[Any] = chance.normal(size=(40, DIMS))
    turned = chance.normal(size=(DIMS, DIMS))
    seen, unseen = (_unit(texts @ turned) for texts in (statements, statements + 0.1))
    statements = _unit(statements)
    matrix = questions.learned([questions.Asked(statements, seen, np.eye(40, dtype=np.float32))])
    assert _first(seen, statements) < 5
    assert _first(seen + seen @ matrix.T, statements) == 40
    assert _first(unseen + unseen @ matrix.T, statements) > 35


def _unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def _first(asked: NDArray[Any], statements: NDArray[Any]) -> int:
    """Return how many questions are nearest to the statement in their row."""
    return int(np.sum(np.argmax(asked @ statements.T, axis=1) == np.arange(len(asked))))


def test_the_probe_is_always_the_same_and_tells_a_change_after_what_it_changes() -> None:
    built = short_facts.build()
    assert built == short_facts.build()
    for user in built.users:
        ids = [turn.id for turn in user.turns]
        assert all(ids.index(f"before-{n}") < ids.index(f"after-{n}") for n in range(3))
        assert [turn.at for turn in user.turns] == sorted(turn.at for turn in user.turns)


def asked(place: int | None, user: str = "ann") -> Asked:
    return Asked(user, Question(text="?", evidence=("1",), group="facts"), place)


def test_shares_count_what_was_found_within_a_depth() -> None:
    found = [asked(0), asked(4), asked(5), asked(None)]
    assert (Share.within(5, found).percent, Share.within(10, found).percent) == (50, 75)


def test_the_interval_is_wilsons() -> None:
    assert Share(50, 100).interval == pytest.approx((40.4, 59.6), abs=0.1)
    assert Share(10, 10).interval == pytest.approx((72.2, 100), abs=0.1)


def test_a_table_has_a_row_for_each_group_and_user() -> None:
    shown = command.table("x", Measured((asked(0), asked(7), asked(None, "ben")), skipped=2))
    assert "x: 2 turns" in shown
    assert "| **facts** | all | 3 | 33 | 6–79 | 67 |" in shown  # noqa: RUF001
    assert "| facts | ben | 1 | 0 |" in shown


def two_facts() -> Dataset:
    texts = ["I live in Ghent.", "I am allergic to nuts. How are you?", "Where do I live?", "Hi!"]
    turns = [
        {"id": str(at), "at": f"2026-05-0{at + 1}T20:00:00Z", "speaker": "ann", "text": text}
        for at, text in enumerate(texts)
    ]
    asked = [{"text": "Do I live in Ghent?", "evidence": ["0"]}]
    user = {"name": "ann", "turns": turns, "questions": asked}
    return Dataset.model_validate({"users": [user]})


def test_facts_are_made_of_what_was_said_by_a_rule() -> None:
    facts = extraction.by_rule(two_facts())
    assert facts == {
        "I live in Ghent.": ["User: I live in Ghent."],
        "I am allergic to nuts. How are you?": ["User: I am allergic to nuts."],
        "Where do I live?": [],
        "Hi!": [],
    }
    assert extraction.facts_of("Ich wohne in Gent. Ich mag es.") == [
        "Nutzer: Ich wohne in Gent.",
        "Nutzer: Ich mag es.",
    ]
    assert extraction.facts_of("私は卵が食べられません。") == ["ユーザー: 私は卵が食べられません。"]


def test_the_recorded_facts_are_those_of_the_rule_and_of_no_question() -> None:
    probe = short_facts.build()
    recorded = extraction.read(extraction.RECORD)
    assert recorded == extraction.by_rule(probe), "python -m benchmarks.recall.extraction"
    said = {turn.text for user in probe.users for turn in user.turns}
    assert recorded.keys() == said
    asked = {question.text for user in probe.users for question in user.questions}
    assert asked.isdisjoint(said)


def test_a_data_set_without_recorded_facts_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "set.json"
    path.write_text(two_facts().model_dump_json())
    assert command.main([str(path), "--backend", "hosted", "--facts", str(tmp_path / "no")]) == 2
    assert command.main([str(path), "--backend", "hosted"]) == 2
    assert "no facts of a message are recorded" in capsys.readouterr().err
    record = tmp_path / "facts.json"
    assert extraction.main([str(path), "--out", str(record)]) == 0
    assert command.main([str(path), "--backend", "hosted", "--facts", str(record)]) == 0
    assert "| **all** | all | 1 | 100 |" in capsys.readouterr().out


async def test_what_a_model_extracts_is_recorded_through_the_adapter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with ClaudeStandIn() as claude:
        key = SecretStr("test-key")
        settings = Settings(anthropic_api_key=key, anthropic_base_url=claude.url)
        facts = await extraction.by_model(two_facts(), settings)
        told = [wire_format.told(seen.body)[-1] for seen in claude.requests]
    assert list(facts.values()) == [
        ["I live in Ghent."], ["I am allergic to nuts. How are you?"], [], ["Hi!"]
    ]  # fmt: skip
    assert "written on 2026-05-02, a Saturday" in told[1]


async def test_the_product_leaves_the_order_of_mem0s_platform_no_worse() -> None:
    facts = extraction.read(extraction.RECORD)
    found = (await measure(short_facts.build("en"), "hosted", facts)).asked
    assert {(one.place, one.own_place) for one in found} > {(0, 0), (None, None)}
    assert [one for one in found if _worse(one.place, one.own_place)] == []


def _worse(place: int | None, own: int | None) -> bool:
    return own is not None and (place is None or place > own)


@pytest.mark.slow
async def test_short_facts_are_found_by_a_selfhosted_memory() -> None:
    facts = extraction.read(extraction.RECORD)
    found = (await measure(short_facts.build("tr"), "selfhosted", facts)).asked
    assert [one for one in found if _worse(one.place, one.own_place)] == []
    told = [one for one in found if one.question.group == "facts"]
    assert Share.within(5, told).percent >= 75, "the vectors alone: 58"


@pytest.mark.slow
async def test_short_facts_are_found_among_chatter() -> None:
    found = (await measure(short_facts.build("en", "ja"))).asked
    facts = [one for one in found if one.question.group.startswith("facts")]
    assert Share.within(5, facts).percent >= 85, [one for one in facts if one.place is None]


@pytest.mark.slow
async def test_what_was_said_in_a_long_dialogue_is_found() -> None:
    dialogue = next(path for path in DIALOGUES if "kezia" in path.name)
    found = (await measure(dataset.read(dialogue))).asked
    assert Share.within(10, found).percent >= 65, "if neighbours lent no meaning: 62"
    assert Share.within(5, found).percent >= 46, "if questions were not moved: 43"
