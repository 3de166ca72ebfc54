"""What is said of settings that are not those of the running stack: names, never values."""

from __future__ import annotations

import json

import pytest

from afterword.shared.environment import variable
from afterword.shared.settings import Settings
from afterword.workers.local_stack import fingerprints
from afterword.workers.local_stack.model_server import DEFAULTS
from tests.unit.test_stack_environment import EVERY_KIND


def differing(running: dict[str, str], here: dict[str, str]) -> list[str]:
    told = json.loads(json.dumps(fingerprints.of_settings(Settings.load(running))))
    return fingerprints.differing(told, Settings.load(here))


def test_the_same_settings_do_not_differ() -> None:
    assert differing(EVERY_KIND, EVERY_KIND) == []


@pytest.mark.parametrize("name", sorted(EVERY_KIND.keys() - {"AFTERWORD_DATA_DIR"}))
def test_one_that_only_one_of_them_sets_is_named(name: str) -> None:
    without = {other: value for other, value in EVERY_KIND.items() if other != name}
    assert differing(EVERY_KIND, without) == [name]
    assert differing(without, EVERY_KIND) == [name]


def test_all_that_are_set_otherwise_are_named() -> None:
    other = {"ANTHROPIC_API_KEY": "k-2", "AFTERWORD_RECALL_TOP_K": "8"}
    assert differing(EVERY_KIND, EVERY_KIND | other) == sorted(other)


def test_saying_a_default_makes_no_difference_unless_the_stack_has_one_of_its_own() -> None:
    default = {name: str(Settings.model_fields[name].default) for name in ("effort", *DEFAULTS)}
    said = {variable(name): value for name, value in default.items()}
    assert differing({}, said) == sorted(variable(name) for name in DEFAULTS)


def test_another_way_to_the_same_folder_makes_no_difference() -> None:
    assert differing({"AFTERWORD_DATA_DIR": "/a/b"}, {"AFTERWORD_DATA_DIR": "/a/./b"}) == []


def test_no_value_can_be_read_or_recognised_in_a_fingerprint() -> None:
    settings = Settings.load(EVERY_KIND)
    once, again = (fingerprints.of_settings(settings) for _ in range(2))
    assert not {*EVERY_KIND.values()} & {*once.values()}
    assert not {*once.values()} & {*again.values()}, "the same key has another one in each stack"
