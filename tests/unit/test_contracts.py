"""Requests: what is refused, by which name, and without a word of what it held."""

from __future__ import annotations

import json
import math
import unicodedata
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from afterword.shared.contracts import (
    MAX_EXPIRES_IN_S,
    MAX_ID_CHARACTERS,
    MAX_METADATA_BYTES,
    MAX_METADATA_DEPTH,
    MAX_OUTPUT_TOKENS,
    RECORD_VERSION,
    ChatRequest,
)
from afterword.shared.errors import InvalidRequest

SECRET = "marmalade"
MAX_BYTES = 1000
MAX_TOKENS = 300

ID_FIELDS = ("user_id", "tenant", "conversation_id", "idempotency_key", "model")
BERLIN = "Europe/Berlin"


def parse(max_bytes: int = MAX_BYTES, max_tokens: int = MAX_TOKENS, **fields: Any) -> ChatRequest:
    asked = {"user_id": "ann", "message": "hello"} | fields
    return ChatRequest.parse(asked, max_bytes=max_bytes, max_tokens=max_tokens)


def refused(field: str, **fields: Any) -> str:
    with pytest.raises(InvalidRequest) as caught:
        parse(**fields)
    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field}: ")
    return str(caught.value)


#: What Python has and JSON has not, inside and outside of containers.
_ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.builds(object),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.dictionaries(st.sampled_from(list(ChatRequest.model_fields)), inner)
    ),
    max_leaves=12,
)


@pytest.mark.finding(12)
@given(_ANYTHING, st.sampled_from(["request", *ChatRequest.model_fields]))
def test_any_value_of_a_field_is_accepted_or_refused_as_invalid(value: object, field: str) -> None:
    given: object = value
    if field != "request":
        given = {"user_id": "ann", "message": "hello", field: value}
    try:
        request = ChatRequest.parse(given, max_bytes=MAX_BYTES, max_tokens=MAX_TOKENS)
    except InvalidRequest:
        return
    assert json.loads(request.body().encode())["message"] == request.message


def _only(field: str, value: object) -> dict[str, Any]:
    return {field: value}


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {"k": 1}
    for _ in range(depth - 1):
        value = {"k": value}
    return value


@pytest.mark.parametrize("missing", ["user_id", "message"])
def test_a_request_needs_a_user_and_a_message(missing: str) -> None:
    asked = {"user_id": "ann", "message": "hello"}
    del asked[missing]

    with pytest.raises(InvalidRequest) as caught:
        ChatRequest.parse(asked, max_bytes=99, max_tokens=99)

    assert caught.value.field == missing


@pytest.mark.parametrize("field", ["message", "system"])
@pytest.mark.parametrize("text", ["", " ", "\n\t\u2003", "a\x00b", "lone \ud800 surrogate"])
def test_texts_must_say_something_that_can_be_stored(field: str, text: str) -> None:
    refused(field, **_only(field, text))


@pytest.mark.parametrize("field", ["message", "system"])
@pytest.mark.parametrize("wrong", [1, b"bytes", ["list"], {"k": "v"}, 1.5, True])
def test_texts_must_be_text(field: str, wrong: object) -> None:
    refused(field, **_only(field, wrong))


@pytest.mark.parametrize("field", ["message", "system"])
def test_texts_are_bounded_in_bytes_and_in_tokens(field: str) -> None:
    at_most = "é" * (MAX_BYTES // 2)
    assert getattr(parse(**_only(field, at_most), max_tokens=10**6), field) == at_most
    assert "bytes" in refused(field, **_only(field, at_most + "a"), max_tokens=10**6)
    assert "tokens" in refused(field, **_only(field, "a" * (3 * MAX_TOKENS + 1)))


@pytest.mark.parametrize("field", ID_FIELDS)
@pytest.mark.parametrize(
    "bad",
    [
        "", " ", " ann", "ann ", "\u00a0ann", "an\nn", "an\x00n", "\u202eann", "an\u200bn",
        "\ud800",
        "a" * (MAX_ID_CHARACTERS + 1), 7, b"ann", ["ann"], True,
    ],
)  # fmt: skip
def test_ids_are_short_plain_and_visible(field: str, bad: object) -> None:
    refused(field, **_only(field, bad))


@pytest.mark.parametrize("field", ID_FIELDS)
def test_ids_may_be_anything_that_can_be_seen(field: str) -> None:
    for good in ("a", "a" * MAX_ID_CHARACTERS, "jürgen@例え.jp", "a b/c:{d}%"):
        assert getattr(parse(**_only(field, good)), field) == good


@given(st.text(st.characters(categories=["L", "M", "N"]), min_size=1, max_size=40))
def test_every_unicode_form_of_an_id_is_the_same_user(name: str) -> None:
    forms = {
        parse(user_id=unicodedata.normalize(form, name), message="m").user_id
        for form in ("NFC", "NFD")
    }
    assert len(forms) == 1
    assert unicodedata.is_normalized("NFC", forms.pop())


def test_letters_that_only_look_alike_are_different_users() -> None:
    names = ("ann", "Ann", "аnn", "\ufb01n", "fin")  # noqa: RUF001 the third begins in Cyrillic
    assert len({parse(user_id=name, message="m").user_id for name in names}) == len(names)


def test_an_id_that_grows_in_its_unicode_form_is_still_bounded() -> None:
    grows = "\ufb2c"  # one character, three in NFC
    assert "128 characters" in refused("user_id", user_id=grows * 43)


@pytest.mark.parametrize("wrong", [0, -1, MAX_OUTPUT_TOKENS + 1, 1.0, "7", True, math.inf])
def test_max_tokens_is_a_count(wrong: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ChatRequest.parse(
            {"user_id": "ann", "message": "hi", "max_tokens": wrong}, max_bytes=99, max_tokens=99
        )
    assert caught.value.field == "max_tokens"


@pytest.mark.parametrize("wrong", [0, -1, MAX_EXPIRES_IN_S + 1, math.nan, math.inf, -math.inf, "x"])
def test_expires_in_is_a_time_that_comes(wrong: object) -> None:
    refused("expires_in", expires_in=wrong)


@pytest.mark.parametrize("wrong", ["urgent", "", 0, None, ["high"]])
def test_priority_is_one_of_three(wrong: object) -> None:
    refused("priority", priority=wrong)


@pytest.mark.parametrize(
    "bad",
    [
        [], "text", 7, object(), {1: "number as name"}, {"k": object()}, {"k": b"bytes"},
        {"k": {1, 2}}, {"k": math.nan}, {"k": [math.inf]}, {"k": "\ud800"}, {"\ud800": 1},
        {"k": "\x00"}, nested(MAX_METADATA_DEPTH), nested(1000),
        {"k": "a" * MAX_METADATA_BYTES}, {"k": 10**5000},
    ],
    ids=lambda bad: type(bad).__name__,
)  # fmt: skip
def test_metadata_is_a_small_plain_json_object(bad: object) -> None:
    refused("metadata", metadata=bad)


def test_metadata_up_to_its_bounds_is_taken() -> None:
    plain: dict[str, Any] = {"k": [None, True, 1, 0.5, "é", {"x": []}]}
    for good in (dict[str, Any](), nested(MAX_METADATA_DEPTH - 1), plain):
        assert parse(metadata=good).metadata == good


def test_metadata_that_holds_itself_many_times_over_is_refused_at_once() -> None:
    """Lists of ten times the same list, level by level: 10**13 items if anybody walked them."""
    many: list[Any] = ["x"]
    for _ in range(MAX_METADATA_DEPTH - 3):
        many = [many] * 10

    refused("metadata", metadata={"k": many})


@pytest.mark.parametrize("name", ["user", "prompt", "stream", "_v"])
def test_unknown_fields_are_named(name: str) -> None:
    assert "unknown" in refused(name, **{name: SECRET})


def test_a_request_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        parse().message = "other"  # type: ignore[misc]


@given(
    field=st.sampled_from(
        [*ID_FIELDS, "message", "system", "metadata", "priority", "expires_in", "max_tokens"]
    ),
    value=st.one_of(
        st.just(f"{SECRET}\x00"),
        st.just(SECRET * 500),
        st.just([SECRET]),
        st.just({SECRET: SECRET + "\ud800"}),
        st.just({SECRET: {SECRET: math.nan}}),
        st.dictionaries(st.just(SECRET), st.sampled_from([b"", math.inf, "\x00"]), min_size=1),
        st.text(max_size=3).map(lambda rest: f"{SECRET}\ud800{rest}"),
    ),
)
def test_no_error_repeats_what_it_was_given(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ChatRequest.parse(
            {"user_id": "ann", "message": "hi"} | {field: value}, max_bytes=99, max_tokens=99
        )

    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@given(first=st.text(min_size=1), second=st.text(min_size=1))
def test_two_requests_are_the_same_only_if_their_messages_are(first: str, second: str) -> None:
    try:
        one, two = parse(message=first), parse(message=second)
    except InvalidRequest:
        return
    assert (one.fingerprint() == two.fingerprint()) == (first == second)


def test_the_fingerprint_covers_all_but_the_key() -> None:
    plain = parse()
    assert parse(idempotency_key="k").fingerprint() == plain.fingerprint()
    for other in (
        {"user_id": "bob"}, {"tenant": "b"}, {"conversation_id": "c"}, {"system": "s"},
        {"model": "m"}, {"max_tokens": 3}, {"metadata": {"k": 1}}, {"priority": "low"},
        {"expires_in": 5}, {"conversation_id": "c", "when_busy": "interrupt"},
        {"remember": False}, {"at": "2026-05-08T08:00:00Z"}, {"timezone": "UTC"},
    ):  # fmt: skip
        asked: dict[str, Any] = {"user_id": "ann", "message": "hello"} | other
        request = ChatRequest.parse(asked, max_bytes=99, max_tokens=99)
        assert request.fingerprint() != plain.fingerprint(), other


def test_each_way_of_a_busy_conversation_is_another_request() -> None:
    ways = ("enqueue", "reject", "interrupt", "merge")
    asked = [parse(conversation_id="c", when_busy=way) for way in ways]
    assert [one.when_busy for one in asked] == list(ways)
    assert len({one.fingerprint() for one in asked}) == 4
    assert parse(conversation_id="c").fingerprint() == asked[0].fingerprint()


@pytest.mark.parametrize("when_busy", ["reject", "interrupt", "merge"])
def test_only_a_conversation_can_be_busy(when_busy: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(when_busy=when_busy)
    assert (refused.value.field, refused.value.reason) == ("when_busy", "needs a conversation_id")
    assert parse(when_busy="enqueue").conversation_id is None


def test_there_are_four_ways_and_no_other() -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(conversation_id="c", when_busy="shout")
    assert refused.value.field == "when_busy"


@pytest.mark.parametrize(
    "wrong",
    [
        7, True, 1.5e9, "", "yesterday", "2026-13-01T10:00:00Z", "2026-05-08",
        "2026-05-08T10:00:00",
        datetime(2026, 5, 8),  # noqa: DTZ001 without a time zone, as it is refused
        datetime(1969, 12, 31, 23, 59, tzinfo=UTC), "1969-12-31T23:59:59Z",
        datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), ["2026-05-08T10:00:00Z"],
    ],
    ids=repr,
)  # fmt: skip
def test_at_is_a_moment_since_1970(wrong: object) -> None:
    refused("at", at=wrong)


def test_at_is_the_same_moment_however_it_is_written() -> None:
    berlin = datetime(2026, 5, 8, 10, tzinfo=ZoneInfo(BERLIN))
    forms: tuple[object, ...] = (
        "2026-05-08T08:00:00Z", "2026-05-08T10:00:00+02:00", berlin, berlin.astimezone(UTC),
    )  # fmt: skip
    asked = [parse(at=form) for form in forms]
    assert {one.at for one in asked} == {berlin}
    assert len({one.fingerprint() for one in asked}) == 1
    assert ChatRequest.model_validate_json(asked[0].body()).at == berlin


@pytest.mark.parametrize("wrong", [0, 1, "false", "", None])
def test_remember_is_yes_or_no(wrong: object) -> None:
    refused("remember", remember=wrong)


@pytest.mark.parametrize(
    "wrong",
    ["", "Berlin", "Europe", "+02:00", "../UTC", "/etc/passwd", "Europe/Berlin\x00", 2, b"UTC"],
)
def test_a_time_zone_is_one_that_iana_lists(wrong: object) -> None:
    refused("timezone", timezone=wrong)


def test_a_worker_reads_a_time_zone_that_its_machine_does_not_know() -> None:
    body = parse(timezone=BERLIN).body().replace(BERLIN, "Moon/Tranquility")
    assert ChatRequest.model_validate_json(body).timezone == "Moon/Tranquility"


def test_only_what_is_newer_than_version_1_makes_a_newer_record() -> None:
    plain = parse(conversation_id="c", when_busy="interrupt", system="s", metadata={"k": 1})
    assert plain.record_version == 1
    newer: list[dict[str, Any]] = [
        {"remember": False}, {"at": "2026-05-08T08:00:00Z"}, {"timezone": "UTC"},
        {"conversation_id": "c", "when_busy": "merge"},
    ]  # fmt: skip
    for fields in newer:
        assert parse(**fields).record_version == RECORD_VERSION == 2, fields


def test_the_order_of_fields_does_not_matter() -> None:
    one = parse(metadata={"a": 1, "b": 2})
    two = parse(metadata={"b": 2, "a": 1})

    assert one.fingerprint() == two.fingerprint()


def test_a_body_that_says_nothing_new_is_that_of_version_1() -> None:
    asked = ChatRequest(user_id="ann", message="hi", conversation_id="c", remember=True)
    assert json.loads(asked.body()) == {
        "user_id": "ann",
        "message": "hi",
        "conversation_id": "c",
        "tenant": "default",
        "priority": "normal",
    }
    assert "when_busy" in asked.model_copy(update={"when_busy": "reject"}).body()
