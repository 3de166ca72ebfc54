"""What becomes a memory and what a prompt shows of it, with real workers on every backend."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from afterword.producer import InvalidRequest, TurnState
from tests.kit.claude_api.extraction import memory_of
from tests.kit.claude_api.scripted_answers import ClaudeAnswer
from tests.kit.injection.corpus import DECIDED, ORDINARY
from tests.kit.mem0_api.scripted_answers import Mem0Answer
from tests.kit.servers.postgres import Postgres
from tests.kit.waiting import wait_until
from tests.kit.workers.memory_towns import BACKENDS, EXTRACTOR, HostedTown, MemoryTown, town_of

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

CARD = "4242 4242 4242 4242"
MARKER = "[card number removed]"
LATE = datetime(2026, 5, 8, 20, 30, tzinfo=UTC)
PASTE = "The committee met again and nothing was decided about the roof of the hall. " * 80


@pytest.fixture(scope="module", params=BACKENDS)
def town(request: pytest.FixtureRequest, postgres: Postgres) -> Iterator[MemoryTown]:
    modes = {mode: mode for mode in ("off", "report", "redact", "refuse")}
    with town_of(request.param, postgres, AFTERWORD_REDACTION_BY_TENANT=json.dumps(modes)) as town:
        yield town


def account_of(town: MemoryTown, tenant: str) -> dict[str, Any]:
    """Return what `afterword account` says of a tenant."""
    shown = town.fleet.afterword("account", "--tenant", tenant, "--json").stdout
    account: dict[str, Any] = json.loads(shown)["tenants"][0]
    return account


@pytest.mark.parametrize(
    ("mode", "kept", "count"), [("off", CARD, 0), ("report", CARD, 2), ("redact", MARKER, 2)]
)
def test_a_secret_is_treated_as_its_tenant_wants_before_anything_is_stored_or_sent(
    town: MemoryTown, mode: str, kept: str, count: int
) -> None:
    said = f"My card {mode} is {CARD}."
    town.told("ann", said, tenant=mode)
    _, reply = town.say("ann", f"What is the number of my card {mode}?", tenant=mode)
    stored = f"My card {mode} is {kept}."
    assert [memory.text for memory in reply.memories] == [stored]
    places = [town.kept(), *([town.sent()] if town.kind != "embedded" else [])]
    assert [(stored in place, said in place) for place in places] == [
        (True, said == stored) for _ in places
    ]
    assert account_of(town, mode)["secrets"].get("card_number", 0) == count, "the reply repeats it"


def test_a_refused_secret_is_nowhere(town: MemoryTown) -> None:
    said = "My card refuse is 5555 5555 5555 4444."
    with pytest.raises(InvalidRequest, match="holds a secret"):
        town.producer.submit(user_id="ann", message=said, tenant="refuse")
    job = town.told("ann", "I like my bank.", tenant="refuse")
    memories = town.producer.memories("ann", tenant="refuse")
    [bank] = memories.list().memories
    with pytest.raises(InvalidRequest, match="holds a secret"):
        memories.edit(bank.id, said)
    assert job.status().memory_ids == (bank.id,)
    records = [repr(town.inspector.redis.dump(key)) for key in town.inspector.redis.scan_iter()]
    assert not [place for place in (town.kept(), town.sent(), *records) if "5555 5555" in place]


def test_what_others_say_becomes_no_fact(town: MemoryTown) -> None:
    before = town.sent()
    texts = [one.message for one in (*DECIDED, *ORDINARY)]
    users = [{"user_id": f"in-{at}", "message": text} for at, text in enumerate(texts)]
    jobs = [job for job in town.producer.submit_many(users) if not isinstance(job, Exception)]
    assert len(jobs) == len(texts)
    wait_until(lambda: all(job.status().turn.settled for job in jobs), "all is stored", 120)
    sent, kept = town.sent()[len(before) :], town.kept()
    for one in DECIDED:
        memories = town.producer.memories(f"in-{texts.index(one.message)}").list().memories
        assert not [memory for memory in memories if one.claim in memory.text], one
    assert "You said:" not in sent + kept, "nothing that was replied"


def test_a_turn_without_a_fact_is_counted(town: MemoryTown) -> None:
    if town.kind == "embedded":
        pytest.skip("nothing is extracted")
    if isinstance(town, HostedTown):
        nothing = json.dumps({"id": "event", "status": "SUCCEEDED", "results": []})
        town.mem0.will_answer(Mem0Answer(verb="event", body=nothing))
    else:
        town.fleet.claude.will_answer(ClaudeAnswer(match=EXTRACTOR, text=memory_of()))
    job, _ = town.say("cy", "I keep five birds.", tenant="empty")
    town.ends(job, TurnState.NOTHING)
    assert job.status().turn_code == "no_fact"
    assert account_of(town, "empty")["turns_without_facts"] == 1


def test_of_a_long_message_both_ends_are_searched_for(town: MemoryTown) -> None:
    town.told("dan", "My daughter Mia is allergic to peanuts.")
    for number in range(12):
        town.told("dan", f"I painted fence number {number} green.")
    for message in (
        f"What is Mia allergic to?\n\n{PASTE}",
        f"{PASTE}\n\nWhat is Mia allergic to?",
    ):
        _, reply = town.say("dan", message)
        assert "My daughter Mia is allergic to peanuts." in [one.text for one in reply.memories]


@pytest.mark.parametrize("place", ["beginning", "middle", "end"])
def test_a_long_memory_shows_the_part_that_matters(town: MemoryTown, place: str) -> None:
    fact = "The spare key of Oma Trude lies under the third flowerpot."
    before, after = {"beginning": ("", PASTE), "middle": (PASTE, PASTE), "end": (PASTE, "")}[place]
    user = f"eve-{place}"
    town.told(user, f"{before}{fact} {after}".strip())
    _, reply = town.say(user, "Where is the spare key of Oma Trude?")
    [memory] = reply.memories
    assert fact in memory.text
    assert len(memory.text) <= 1000
    assert f"- {memory.text} <" in town.last_prompt(), "what is reported is what was sent"


def test_days_are_those_of_the_user(town: MemoryTown) -> None:
    zone = "Asia/Tokyo"  # where it is 9 May already
    town.told("fay", "I have an exam tomorrow.", at=LATE.isoformat(), timezone=zone)
    job, reply = town.say("fay", "When is my exam?", timezone=zone)
    asked_at = job.status().created_at.astimezone(ZoneInfo(zone))
    days = {asked_at, asked_at + timedelta(minutes=5)}
    [memory] = reply.memories
    assert memory.created_at == LATE
    prompt = town.last_prompt().splitlines()
    assert prompt[1] in [f"Today is {day:%A}, {day.day} {day:%B %Y}." for day in days]
    assert prompt[3].startswith(f"- {memory.text} <09 May 2026, turn ")
    if town.kind == "embedded":
        assert memory.text == "I have an exam tomorrow [10 May 2026]."
    elif town.kind == "selfhosted":
        assert "on 2026-05-09, a Saturday, at 05:30 where the user is" in town.sent()
    else:
        assert f'"timestamp": {int(LATE.timestamp())}' in town.sent()
