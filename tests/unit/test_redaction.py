"""What is done about secrets, per tenant: nothing, counted, replaced, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from afterword.producer.admin.history import check_history
from afterword.producer.testing import FakeProducer
from afterword.shared.errors import InvalidRequest, Misconfigured
from afterword.shared.events import InternalError
from afterword.shared.redaction.known_secrets import KINDS
from afterword.shared.redaction.policy import MOST_KINDS, Redaction
from afterword.shared.redaction.port import Finding
from afterword.shared.settings import Settings
from tests.kit.redaction import redactors
from tests.kit.redaction.redactors import WORD
from tests.kit.secrecy import assert_quotes_nothing
from tests.kit.workers.observed import observed

CARD = "4242 4242 4242 4242"
SAID = f"My card is {CARD}."
KEPT = "My card is [card number removed]."
TENANTS = {"a": "off", "b": "report", "c": "redact", "d": "refuse"}
SETTINGS = Settings(redaction="report", redaction_by_tenant=TENANTS)
REDACTORS = redactors.__name__


def own(name: str, **settings: str) -> Redaction:
    return Redaction.of(Settings.model_validate({"redactor": f"{REDACTORS}:{name}", **settings}))


@pytest.mark.parametrize(
    ("tenant", "kept", "found"),
    [
        ("a", SAID, {}),
        ("b", SAID, {"card_number": 1}),
        ("c", KEPT, {"card_number": 1}),
        ("d", KEPT, {"card_number": 1}),
        ("another", SAID, {"card_number": 1}),
    ],
)
def test_each_tenant_has_its_own_mode(tenant: str, kept: str, found: dict[str, int]) -> None:
    redaction = Redaction.of(SETTINGS)
    assert redaction.stored(tenant, SAID) == (kept, found)
    assert redaction.shown(tenant, SAID) == kept
    assert redaction.stored(tenant, "") == ("", {})


def test_secrets_are_replaced_unless_somebody_says_otherwise() -> None:
    assert Redaction.of(Settings()).stored("any", SAID).text == KEPT


def test_a_message_with_a_secret_is_refused_before_it_is_a_job() -> None:
    with FakeProducer(settings=SETTINGS) as producer:
        for message in (SAID, "x\npassword: hunter2"):
            with pytest.raises(InvalidRequest) as refused:
                producer.submit(user_id="ann", message=message, tenant="d")
            assert refused.value.field == "message"
            assert_quotes_nothing(refused.value, CARD, "hunter2")
        results = producer.submit_many(
            {"user_id": "ann", "message": SAID, "tenant": tenant} for tenant in "abcd"
        )
        assert [isinstance(one, InvalidRequest) for one in results] == [False] * 3 + [True]
        producer.submit(user_id="ann", message="I like tea.", tenant="d").wait(1)


def test_the_error_names_the_kinds() -> None:
    with pytest.raises(InvalidRequest, match=r"^message: .*\(card number, password\)"):
        Redaction.of(SETTINGS).check("d", message=f"{SAID} password: hunter2")


@pytest.mark.parametrize("field", ["message", "reply"])
def test_an_import_with_a_secret_is_refused_as_a_whole(tmp_path: Path, field: str) -> None:
    line = {"user_id": "ann", "message": "I like tea.", "at": "2026-01-01T00:00:00Z"}
    lines = [line, line | {field: SAID}, line | {field: SAID, "tenant": "d"}]
    file = tmp_path / "history.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(InvalidRequest) as refused:
        check_history(file, SETTINGS)
    assert refused.value.field == f"history.jsonl, line 3, {field}"
    assert CARD not in str(refused.value)


def test_a_redactor_of_the_users_own_is_used_and_not_trusted() -> None:
    redaction = own("Words")
    kept = redaction.stored("t", f"I like {WORD}, and tea")
    assert kept == ("I like [secret removed]", {"secret": 1})
    assert redaction.stored("t", SAID) == (SAID, {})


def test_no_redactor_can_make_more_kinds_than_can_be_counted() -> None:
    class Many:
        def find(self, text: str) -> list[Finding]:
            return [Finding(text, 0, 1)]

    redaction = Redaction(Many())
    found = {kind for n in range(3 * MOST_KINDS) for kind in redaction.stored("t", f"k{n}").found}
    assert len(found) == MOST_KINDS + 1
    assert "secret" in found


def test_what_a_redactor_fails_on_is_neither_stored_nor_shown_nor_accepted() -> None:
    redaction, said = own("Broken", redaction="refuse"), f"I like {WORD}"
    with observed(InternalError) as seen:
        with pytest.raises(ValueError, match=WORD):
            redaction.stored("t", said)
        assert redaction.shown("t", said) == "[unchecked text removed]"
        with pytest.raises(InvalidRequest) as refused:
            redaction.check("t", message=said)
    assert refused.value.field == "message"
    assert_quotes_nothing(refused.value, WORD)
    assert WORD not in str(seen.all)
    assert [event.error for event in seen.of(InternalError)] == ["ValueError"] * 2
    assert redaction.stored("t", "tea") == ("tea", {})


@pytest.mark.parametrize(
    ("settings", "setting"),
    [
        ({"redaction": "hide"}, "AFTERWORD_REDACTION"),
        ({"redaction_by_tenant": '{"a": "hide"}'}, "AFTERWORD_REDACTION_BY_TENANT"),
        ({"redaction_by_tenant": "[]"}, "AFTERWORD_REDACTION_BY_TENANT"),
        ({"redactor": "os.system"}, "AFTERWORD_REDACTOR"),
        ({"redactor": "no_such_module_here:Class"}, "AFTERWORD_REDACTOR"),
        ({"redactor": f"{REDACTORS}:Missing"}, "AFTERWORD_REDACTOR"),
        ({"redactor": f"{REDACTORS}:Empty"}, "AFTERWORD_REDACTOR"),
        ({"redactor": f"{REDACTORS}:{redactors.Failing.__name__}"}, "AFTERWORD_REDACTOR"),
        ({"redacted_kinds": "card_number,cats"}, "AFTERWORD_REDACTED_KINDS"),
    ],
)
def test_a_setting_that_cannot_work_is_named(settings: dict[str, str], setting: str) -> None:
    with pytest.raises(Misconfigured) as wrong:
        Redaction.of(Settings.model_validate(settings))
    assert wrong.value.setting == setting
    assert WORD not in str(wrong.value)


def test_only_the_kinds_that_are_asked_for_are_looked_for() -> None:
    redaction = Redaction.of(Settings.model_validate({"redacted_kinds": "password, jwt"}))
    assert redaction.stored("t", f"{SAID} password: hunter2").found == {"password": 1}
    assert all(kind.replace("_", "").isalnum() for kind in KINDS)
