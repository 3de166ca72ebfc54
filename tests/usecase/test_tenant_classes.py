"""The class of a tenant, which tells apart what replies and memories cost."""

from __future__ import annotations

import pytest

from afterword.shared.contracts import Usage
from afterword.shared.errors import Misconfigured
from afterword.shared.events import ExtractionPaid, ModelAnswered
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from afterword.shared.tenant_classes import MOST_CLASSES, class_of
from tests.kit.fakes.model import FakeModel
from tests.kit.ledger.builder import lane_of, submit_and_answer, submit_job
from tests.kit.ledger.lane_writer import LaneWriter
from tests.kit.workers.observed import observed
from tests.usecase.test_extraction_cost import FACTS, ExtractingMemories
from tests.usecase.test_respond import Desk

CLASSES = {"acme": "enterprise", "*": "free"}


def test_a_tenant_has_its_own_class_or_that_of_all_others_or_the_default() -> None:
    assert class_of("acme", CLASSES) == "enterprise"
    assert class_of("globex", CLASSES) == "free"
    assert class_of("globex", {"acme": "enterprise"}) == "default"


@pytest.mark.redis
async def test_replies_and_memories_are_paid_for_under_the_class_of_their_tenant(
    settings: Settings, ledger: Ledger
) -> None:
    classed = settings.model_copy(update={"tenant_classes": CLASSES})
    memories = ExtractingMemories(FakeModel())
    with observed(ModelAnswered, ExtractionPaid) as seen:
        for tenant in ("acme", "globex"):
            desk = Desk(classed, ledger, None)
            await desk.respond(await submit_job(ledger, user_id="ann", tenant=tenant))
            memories.model.answers(FACTS, usage=Usage(input=100))
            await submit_and_answer(ledger, "I like tea.", user_id="bob", tenant=tenant)
            await LaneWriter(classed, ledger, memories).write(lane_of("bob", tenant))

    for kind in (ModelAnswered, ExtractionPaid):
        assert [one.tenant_class for one in seen.contexts(kind)] == ["enterprise", "free"]


@pytest.mark.parametrize(
    "value",
    [
        "[]",
        "enterprise",
        '{"acme": ""}',
        '{"acme": "Enterprise"}',
        '{"acme": "a b"}',
        '{"acme": 5}',
        "{{{}}}".format(",".join(f'"acme{n}": "c{n}"' for n in range(MOST_CLASSES + 1))),
    ],
)
def test_classes_that_cannot_be_used_are_refused_by_the_name_of_the_setting(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AFTERWORD_TENANT_CLASSES", value)
    with pytest.raises(Misconfigured) as refused:
        Settings.load()
    assert refused.value.setting == "AFTERWORD_TENANT_CLASSES"
    assert "acme" not in str(refused.value)
