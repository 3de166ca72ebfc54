"""`afterword memories`: a user's memories on the command line, before a real memory worker."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from afterword.producer import Producer, TurnState, UserExport
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import CANARY, Fleet

pytestmark = [pytest.mark.system, pytest.mark.redis]

SAID = [f"I keep five birds, says the {CANARY}.", "My sister lives in Oslo."]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    with Fleet() as running:
        running.start("responses", "memories")
        with Producer(running.settings) as producer:
            for text in SAID:
                job = producer.submit(user_id="ann", tenant="t", message=text)
                wait_until(lambda job=job: job.status().turn is TurnState.STORED, "stored", 30)  # type: ignore[misc]
        yield running


def listed(fleet: Fleet, *options: str) -> list[dict[str, Any]]:
    shown = fleet.afterword("memories", "list", "ann", "--tenant", "t", "--json", *options)
    found: list[dict[str, Any]] = json.loads(shown.stdout)
    return found


def test_memories_are_listed_shown_edited_and_deleted(fleet: Fleet) -> None:
    whole = listed(fleet)
    assert [memory["text"] for memory in whole] == SAID[::-1]
    assert listed(fleet, "--limit", "1") == whole[:1]
    told = fleet.afterword("memories", "list", "ann", "--tenant", "t", "--limit", "1").stderr
    assert told.startswith("There are more: go on with --after ")
    assert listed(fleet, "--after", told.split()[-1]) == whole[1:]
    named = ("ann", whole[0]["id"], "--tenant", "t")

    edit = ("memories", "edit", *named[:2], "My sister lives in Rome.", *named[2:])
    dry = fleet.afterword(*edit)
    assert "Nothing was changed" in dry.stdout
    assert listed(fleet) == whole
    assert fleet.afterword(*edit, "--apply").stdout.endswith("Changed.\n")
    shown = fleet.afterword("memories", "show", *named).stdout
    assert "text: My sister lives in Rome." in shown
    assert f"job_id: {whole[0]['job_id']}" in shown

    assert "Nothing was changed" in fleet.afterword("memories", "delete", *named).stdout
    assert fleet.afterword("memories", "delete", *named, "--apply").stdout.endswith("Deleted.\n")
    assert listed(fleet) == whole[1:]
    nobody = fleet.afterword("memories", "list", "nobody").stdout
    assert nobody == "id  said  job  text\nnone\n"
    audit = json.loads(fleet.afterword("audit", "--json").stdout)
    assert [(one["action"], one["details"]["memory"]) for one in audit] == [
        ("memory_delete", whole[0]["id"]),
        ("memory_edit", whole[0]["id"]),
    ]
    assert audit[0]["details"].keys() == {"tenant", "user", "memory"}
    assert audit[0]["details"]["user"] != "ann", "the tag that logs show"
    of_other = ("ann", whole[1]["id"], " ", "--tenant", "t")
    assert "TEXT: " in fleet.afterword("memories", "edit", *of_other, "--apply", code=2).stderr
    newest = json.loads(fleet.afterword("audit", "--json").stdout)[0]
    assert newest["action"] == "memory_edit_refused"
    gone = fleet.afterword("memories", "show", *named, code=2)
    assert gone.stderr == "afterword: the user has no memory with this id\n"


def test_a_search_prints_a_table(fleet: Fleet) -> None:
    shown = fleet.afterword("memories", "search", "ann", "How many birds?", "--tenant", "t").stdout
    head, first, *_ = shown.splitlines()
    assert head.split() == ["id", "said", "job", "text"]
    assert "I keep five birds" in first


def test_what_is_wrong_is_named(fleet: Fleet) -> None:
    refused = fleet.afterword("memories", "list", " ann", code=2).stderr
    assert "USER_ID: " in refused
    too_long = fleet.afterword("memories", "list", "ann", "--timeout", "1h", code=2).stderr
    assert "--timeout: " in too_long


def test_all_that_is_known_of_a_user_is_exported(fleet: Fleet) -> None:
    shown = fleet.afterword("memories", "export", "ann", "--tenant", "t").stdout
    found = UserExport.model_validate_json(shown)
    assert (found.tenant, found.user_id, found.memory) == ("t", "ann", "on")
    assert SAID[0] in [memory.text for memory in found.memories]
    assert {job.record["body"]["message"] for job in found.jobs} == set(SAID)
    schema = json.loads(fleet.afterword("memories", "export", "--schema").stdout)
    assert schema["properties"].keys() == UserExport.model_fields.keys()
