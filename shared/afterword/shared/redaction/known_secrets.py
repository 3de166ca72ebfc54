"""The default redactor: secrets that can be told by their shape, their checksum or their label.

Whatever looks like an ordinary number or word is left alone, so that facts are not lost: a card
number needs its brand's beginning, length and checksum, a password its label or its place in a URL.
The time that it takes grows with the length of the text, whatever that holds.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence

from afterword.shared.redaction.checksums import is_card_number, is_iban
from afterword.shared.redaction.labels import labelled_secrets
from afterword.shared.redaction.port import Finding
from afterword.shared.redaction.token_shapes import SHAPES, Shape

#: Found only if asked for: a bank account is told to whoever is to pay, and is no secret.
IBAN = "iban"

#: What may stand between two groups of digits: `.`, hyphens and blanks of every width.
_SEPARATORS = " \u00a0\u2007\u2009\u202f.-\u2010\u2011\u2012\u2013\u2014\u2015"
_BETWEEN = f"[{re.escape(_SEPARATORS)}]"
_NOTHING_BETWEEN = str.maketrans("", "", _SEPARATORS)

#: Where a card number may begin: not within a word or the decimals of a number.
_OF_A_WORD = r"[A-Za-z_\d]"
_CARD_BEGINS = re.compile(
    rf"(?<!{_OF_A_WORD})(?<!\d[.,])"
    rf"(?=\d{{14}}|\d{{4}}{_BETWEEN}(?:\d{{4}}|\d{{6}}){_BETWEEN})"
)

_FOUR_DIGITS = re.compile(r"\d{4}")

#: How the digits of a card are grouped. In other groups they are a phone number, or a list.
_CARDS = tuple(
    re.compile(_BETWEEN.join(rf"\d{{{size}}}" for size in sizes) + f"(?!{_OF_A_WORD})")
    for sizes in ((14,), (15,), (16,), (19,), (4, 6, 4), (4, 6, 5), (4, 4, 4, 4, 3), (4, 4, 4, 4))
)

_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?+[A-Z0-9]){11,30}+(?![A-Za-z0-9])")

_AUTHORITY = re.compile(r"://([^\s/?#\"'<>`]{3,1024}+)")
_PLACEHOLDER = re.compile(r"[*x\u2022.\u2026]++|[\[<{$%(].*+|(?:your|my|the)?[_-]?pass(?:word|wd)?")


class KnownSecrets:
    """Finds the secrets of some kinds, by default of all but bank accounts."""

    def __init__(self, kinds: Sequence[str] | None = None) -> None:
        self._wanted = frozenset(DEFAULT_KINDS if kinds is None else kinds)
        shapes = (shape for shape in SHAPES if shape.kind in self._wanted)
        self._shapes = [(text, shape) for shape in shapes for text in shape.beginnings]
        finders = (find for kind, find in _OTHERS.items() if kind in self._wanted)
        self._finders = tuple(dict.fromkeys(finders))

    def find(self, text: str) -> list[Finding]:
        """Return the secrets of a text."""
        found: list[Finding] = []
        for beginning, shape in [one for one in self._shapes if one[0] in text]:
            found += _shaped(text, beginning, shape)
        for finder in self._finders:
            found += [one for one in finder(text) if one.kind in self._wanted]
        return found


def _shaped(text: str, beginning: str, shape: Shape) -> Iterator[Finding]:
    at = text.find(beginning)
    while at >= 0:
        match = shape.pattern.match(text, at)
        if match:
            yield Finding(shape.kind, *match.span())
        at = text.find(beginning, match.end() if match else at + len(beginning))


def _card_numbers(text: str) -> Iterator[Finding]:
    if not _FOUR_DIGITS.search(text):
        return
    end = 0
    for place in _CARD_BEGINS.finditer(text):
        if place.start() < end:
            continue
        likely = (card.match(text, place.start()) for card in _CARDS)
        found = next((match for match in likely if match and _is_card(match[0])), None)
        if found:
            end = found.end()
            yield Finding("card_number", *found.span())


def _is_card(text: str) -> bool:
    digits = text.translate(_NOTHING_BETWEEN)
    if not digits.isascii():
        digits = "".join(str(unicodedata.decimal(digit)) for digit in digits)
    return is_card_number(digits)


def _ibans(text: str) -> Iterator[Finding]:
    for match in _IBAN.finditer(text):
        found = match[0]
        # The blank groups of a sentence may follow in capitals: the checksum says where it ends.
        ends = [len(found), *(at for at in range(len(found) - 1, 14, -1) if found[at] == " ")]
        end = next((end for end in ends if is_iban(found[:end].replace(" ", ""))), 0)
        if end:
            yield Finding(IBAN, match.start(), match.start() + end)


def _url_passwords(text: str) -> Iterator[Finding]:
    if "://" not in text or "@" not in text:
        return
    for match in _AUTHORITY.finditer(text):
        user, _, host = match[1].rpartition("@")
        name, colon, password = user.partition(":")
        if colon and host and password and not _PLACEHOLDER.fullmatch(password.lower()):
            start = match.start(1) + len(name) + 1
            yield Finding("url_password", start, start + len(password))


_OTHERS: dict[str, Callable[[str], Iterator[Finding]]] = {
    "card_number": _card_numbers,
    IBAN: _ibans,
    "url_password": _url_passwords,
    "password": labelled_secrets,
    "secret_key": labelled_secrets,
}

#: Every kind that can be asked for, in the order of the documents.
KINDS = (*dict.fromkeys(shape.kind for shape in SHAPES), *_OTHERS)

#: The kinds that are found unless others are asked for.
DEFAULT_KINDS = tuple(kind for kind in KINDS if kind != IBAN)
