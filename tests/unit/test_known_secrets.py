"""Which secrets are found, and that ordinary text is left alone."""

from __future__ import annotations

import importlib
import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterword.shared.redaction import checksums, known_secrets, labels, token_shapes
from afterword.shared.redaction.known_secrets import DEFAULT_KINDS, IBAN, KINDS, KnownSecrets
from afterword.shared.redaction.policy import Redaction
from tests.kit.redaction.ordinary import ABOUT_SECRETS, SENTENCES, ordinary
from tests.kit.redaction.secrets import NEAR_A_LABEL, iban, planted, with_check_digit

FINDER = KnownSecrets()
REDACTION = Redaction(FINDER)
PLANTED = planted(3)

#: Of numbers with the length and the groups of a card's, so many have its beginning and checksum.
MOST_LIKE_CARDS = 0.05


def kinds(text: str) -> list[str]:
    return [one.kind for one in FINDER.find(text)]


@pytest.mark.parametrize("kind", DEFAULT_KINDS)
def test_a_secret_is_replaced_and_nothing_else_is(kind: str) -> None:
    ours = [one for one in PLANTED if one.kind == kind]
    assert ours
    for one in ours:
        kept = REDACTION.stored("t", one.text)
        marker = f"[{kind.replace('_', ' ')} removed]"
        assert kept.text == one.text.replace(one.secret, marker), one
        assert kept.found == {kind: 1}


@pytest.mark.parametrize("place", NEAR_A_LABEL)
def test_a_password_that_stands_near_its_label_must_look_like_one(place: str) -> None:
    assert REDACTION.stored("t", place.format("geheim!123")).found == {"password": 1}
    for word in ("Wi-Fi", "Server01", "12.30", "longer!", "a@b.com"):
        assert kinds(place.format(word)) == []


def test_every_kind_is_looked_for_unless_some_are_named() -> None:
    assert set(DEFAULT_KINDS) == set(KINDS) - {IBAN}
    for one in planted(1):
        assert KnownSecrets([one.kind]).find(one.text), one
        assert not KnownSecrets([kind for kind in KINDS if kind != one.kind]).find(one.text), one


def test_a_bank_account_is_found_if_it_is_asked_for() -> None:
    account = iban(random.Random(1))
    for text in (account, account.replace(" ", ""), f"Pay {account} TO ME, please"):
        assert kinds(text) == []
        (found,) = KnownSecrets([IBAN]).find(text)
        assert text[found.start : found.end].replace(" ", "") == account.replace(" ", "")
    wrong = account[:-1] + str((int(account[-1]) + 1) % 10)
    assert KnownSecrets([IBAN]).find(wrong) == []


@pytest.mark.parametrize(
    "number",
    [
        "4242 4242 4242 4242",
        "4242.4242.4242.4242",
        "4242\u20114242\u20114242\u20114242",
        "3782 822463 10005",
        "6200 0000 0000 0005",
        (
            "\u0664\u0662\u0664\u0662 \u0664\u0662\u0664\u0662 \u0664\u0662\u0664\u0662 "
            "\u0664\u0662\u0664\u0662"
        ),
    ],
)
def test_card_numbers_are_known_in_the_ways_that_people_write_them(number: str) -> None:
    for text in (number, f"5 5 {number} 12/29 123", f"Name,{number},Ann"):
        (found,) = FINDER.find(text)
        assert (found.kind, text[found.start : found.end]) == ("card_number", number)


@pytest.mark.parametrize(
    "text",
    [
        "4242 4242 4242 4243",  # the sum is wrong
        "42 4242 4242 4242 42",  # other groups
        "0.4242424242424242",
        "x4242424242424242",
        "4242424242424242x",
        "42424242424242424242",  # too long
        with_check_digit("401234567890"),  # an article of 13 digits
        with_check_digit("35" + "1234567890123"[:12]),  # a device
        with_check_digit("123456789012345"),  # no brand
    ],
)
def test_other_numbers_are_no_card(text: str) -> None:
    assert kinds(text) == []


def test_a_private_key_without_its_end_is_removed_as_far_as_it_goes() -> None:
    key = next(one.secret for one in PLANTED if one.kind == "private_key")
    cut = key[: key.index("-----END")].rstrip()
    assert REDACTION.stored("t", f"{cut}\nThat is it").text == "[private key removed]\nThat is it"
    (inside,) = FINDER.find(json.dumps({"key": key}))
    assert inside.end - inside.start > len(cut)


def test_a_password_of_a_url_may_hold_an_at_sign() -> None:
    kept = REDACTION.stored("t", "redis://:hunter@2@h:6379 and http://u:***@h").text
    assert kept == "redis://:[url password removed]@h:6379 and http://u:***@h"


@pytest.mark.parametrize("text", ABOUT_SECRETS)
def test_who_only_speaks_of_secrets_is_left_alone(text: str) -> None:
    assert KnownSecrets(KINDS).find(text) == []


def test_ordinary_numbers_and_codes_are_left_alone() -> None:
    """In 12 languages; but a random number in the form of a card's may be one."""
    finder, wrong, seen = KnownSecrets(KINDS), Counter[str](), Counter[str]()
    for _, kind, text in ordinary(20):
        seen[kind] += 1
        wrong[kind] += bool(finder.find(text))
    assert len(SENTENCES) == 12
    like_cards = {kind for kind in seen if kind.startswith("number of 16 digits")}
    assert [kind for kind in seen if wrong[kind] and kind not in like_cards] == []
    assert sum(wrong.values()) <= MOST_LIKE_CARDS * sum(seen[kind] for kind in like_cards)


# --- the cost: no input makes it grow faster than its length


def expressions(module: ModuleType) -> Iterator[re.Pattern[str]]:
    for value in vars(module).values():
        for one in value if isinstance(value, tuple) else (value,):
            found = getattr(one, "pattern", None) if isinstance(one, token_shapes.Shape) else one
            if isinstance(found, re.Pattern):
                yield found


def repetitions(parsed: Any) -> Iterator[tuple[str, int, Any]]:
    """Yield (operation, fewest, most) of every repetition in a parsed expression."""
    for operation, argument in parsed:
        if str(operation).endswith("REPEAT"):
            yield str(operation), *argument[:2]
        for inner in _nested(argument):
            yield from repetitions(inner)


def _nested(argument: Any) -> Iterator[Any]:
    if type(argument).__name__ == "SubPattern":
        yield argument
    elif isinstance(argument, (tuple, list)):
        for one in argument:
            yield from _nested(one)


@pytest.mark.parametrize("module", [known_secrets, labels, token_shapes, checksums])
def test_no_expression_can_backtrack(module: ModuleType) -> None:
    """Every repetition takes all that it can and gives nothing back, or has one length.

    So a match that fails at a place has looked at each character there a fixed number of times.
    """
    parse = importlib.import_module("re._parser").parse
    for expression in expressions(module):
        for operation, fewest, most in repetitions(parse(expression.pattern, expression.flags)):
            tame = operation == "POSSESSIVE_REPEAT" or fewest == most or int(most) == 1
            assert tame, (expression.pattern, operation, fewest, most)


def test_the_expressions_are_all_looked_at() -> None:
    assert len(list(expressions(token_shapes))) == len(token_shapes.SHAPES)
    assert len(list(expressions(known_secrets))) > len(known_secrets._CARDS)
    assert list(expressions(labels))
    parse = importlib.import_module("re._parser").parse
    assert list(repetitions(parse(r"(?:a|(?=b{2,3}))(c+)"))) == [
        ("MAX_REPEAT", 2, 3),
        ("MAX_REPEAT", 1, parse("c+")[0][1][1]),
    ]


class _Counted:
    """An expression that counts how often it is tried."""

    def __init__(self, pattern: re.Pattern[str]) -> None:
        self.pattern, self.tries = pattern, 0

    def match(self, text: str, at: int) -> re.Match[str] | None:
        self.tries += 1
        return self.pattern.match(text, at)


@pytest.mark.parametrize("shape", token_shapes.SHAPES, ids=lambda shape: shape.kind)
def test_a_shape_is_tried_once_for_each_beginning(shape: token_shapes.Shape) -> None:
    for beginning in shape.beginnings:
        text = beginning * 1000
        counted = _Counted(shape.pattern)
        found = known_secrets._shaped(text, beginning, shape._replace(pattern=counted))  # type: ignore[arg-type]
        assert len(list(found)) <= counted.tries <= 1000


# --- the policy on top of it


@given(st.text(max_size=60), st.sampled_from(PLANTED), st.text(max_size=60))
def test_what_was_redacted_holds_no_secret(before: str, one: Any, after: str) -> None:
    kept = REDACTION.stored("t", f"{before}\n{one.text}\n{after}").text
    assert one.secret not in kept
    assert REDACTION.stored("t", kept).text == kept
