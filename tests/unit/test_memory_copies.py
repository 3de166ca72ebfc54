"""What differs between the memories of a user in two backends."""

from __future__ import annotations

from dataclasses import replace

from afterword.workers.ports import RecalledMemory
from afterword.workers.rules.memory_copies import Difference, compare

BLANK = RecalledMemory("", "default/ann", "", None, None)


def memory(memory_id: str, text: str = "tea", copied_from: str | None = None) -> RecalledMemory:
    return replace(BLANK, id=memory_id, text=text, copied_from=copied_from)


def test_what_the_target_lacks_is_missing_oldest_first() -> None:
    newer, older = memory("2", "tea"), memory("1", "milk")
    assert compare([newer, older], []) == Difference(missing=[older, newer], edited=[], surplus=[])


def test_a_copy_is_known_by_its_origin_in_either_direction() -> None:
    there = [memory("t1", copied_from="s1"), memory("t2", "milk")]
    here = [memory("s1"), memory("s2", "milk", copied_from="t2")]
    assert compare(here, there) == Difference([], [], [], present=2)


def test_what_was_copied_here_and_there_is_known_by_its_origin() -> None:
    there = [memory("t1", copied_from="file")]
    assert compare([memory("s1", copied_from="t1")], there) == Difference([], [], [], present=1)


def test_a_text_that_was_edited_since_is_edited_in_the_copy() -> None:
    copy = memory("t1", "tea", "s1")
    assert compare([memory("s1", "green tea")], [copy]).edited == [("t1", "green tea")]
    assert compare([memory("s1", " tea\n")], [copy]).edited == [], "spacing is the backend's"


def test_copies_of_what_is_gone_and_second_copies_are_surplus() -> None:
    there = [
        memory("t1", copied_from="s1"),
        memory("t2", copied_from="s1"),
        memory("t3", "x", "s0"),
    ]
    assert compare([memory("s1")], there) == Difference([], [], ["t2", "t3"], present=1)


def test_the_same_text_counts_once_and_the_rest_is_the_targets_own() -> None:
    found = compare([memory("s1"), memory("s2")], [memory("t1"), memory("t2", "milk")])
    assert [one.id for one in found.missing] == ["s2"]
    assert (found.present, found.own, found.surplus) == (1, 1, [])
