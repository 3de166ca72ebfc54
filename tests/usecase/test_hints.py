"""Hints are the messages that Celery and the Lua scripts agree on."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterword.shared.hints import TASK_OF, split_agenda
from afterword.shared.names import (
    MEMORIES,
    PRIORITY_STEPS,
    REPLIES,
    RUN_TASK,
    WRITE_TASK,
    lane_id,
    memory_key,
)
from afterword.shared.transport.scripts import _definitions, _used
from tests.kit.ledger.hint_messages import hint_message
from tests.kit.servers.valkey import Valkey


def test_a_hint_says_what_to_run_with_nothing_but_an_id() -> None:
    hint = json.loads(hint_message(RUN_TASK, "j00_1", "j00_1.7", step=3))
    assert json.loads(hint["body"]) == [["j00_1"], {}, {}]
    assert (hint["headers"]["task"], hint["headers"]["id"]) == (RUN_TASK, "j00_1.7")
    properties = hint["properties"]
    assert (properties["delivery_tag"], properties["priority"]) == ("j00_1.7", 3)
    assert properties["delivery_info"] == {"exchange": "", "routing_key": REPLIES}


def test_a_hint_goes_back_to_the_queue_of_its_task() -> None:
    hint = json.loads(hint_message(WRITE_TASK, "l00_x/y", "1"))
    assert hint["properties"]["delivery_info"]["routing_key"] == MEMORIES


@given(st.text(max_size=20))
def test_any_id_survives(name: str) -> None:
    hint = json.loads(hint_message(RUN_TASK, name, name))
    assert json.loads(hint["body"])[0] == [name]


@pytest.mark.redis
@pytest.mark.parametrize("agenda", ["replies.0", "replies.3", "replies.6", "memories.0"])
def test_the_scripts_build_the_same_text(valkey: Valkey, namespace: str, agenda: str) -> None:
    queue, step = split_agenda(agenda)
    name = lane_id(memory_key("a/b", 'ü "quoted" \\'), 0)
    body = "return hint_message(ARGV[2], ARGV[3], ARGV[4], 1)"
    script = "".join(_used(_definitions("_lib"), body)) + body  # Lua takes no more than 200 locals
    with valkey.client() as client:
        theirs = client.eval(script, 1, f"{namespace}:{{00}}", "", queue, str(step), name)
    assert theirs == hint_message(TASK_OF[queue], name, f"{name}.1", step=step)


def test_a_hint_place_names_its_queue_and_step() -> None:
    for step in PRIORITY_STEPS.values():
        assert split_agenda(f"{REPLIES}.{step}") == (REPLIES, step)
