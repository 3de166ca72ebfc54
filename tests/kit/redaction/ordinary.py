"""Ordinary messages that hold numbers and codes, in twelve languages: none of them is a secret."""

from __future__ import annotations

import csv
import random
import string
from collections.abc import Callable, Iterator
from pathlib import Path

with Path(__file__).with_suffix(".tsv").open(encoding="utf-8", newline="") as _file:
    _ROWS = list(csv.DictReader(_file, delimiter="\t", quoting=csv.QUOTE_NONE))

#: Messages that speak of secrets and hold none.
ABOUT_SECRETS = [row["text"] for row in _ROWS if row["language"] == "about"]

#: What people say about a number or code, `{}`, by language.
SENTENCES: dict[str, list[str]] = {}
for _row in _ROWS:
    if _row["language"] != "about":
        SENTENCES.setdefault(_row["language"], []).append(_row["text"])


def _digits(chance: random.Random, length: int, first: str = string.digits) -> str:
    return chance.choice(first) + "".join(chance.choices(string.digits, k=length - 1))


def _hex(chance: random.Random, length: int) -> str:
    return "".join(chance.choices("0123456789abcdef", k=length))


def _phone(chance: random.Random) -> str:
    country = chance.choice(("1", "33", "34", "39", "44", "49", "55", "7", "81", "86", "90", "91"))
    rest = _digits(chance, 10, "23456789")
    form = chance.choice(("+{} {} {} {}", "00{} {} {} {}", "+{}-{}-{}-{}", "+{}{}{}{}"))
    return form.format(country, rest[:3], rest[3:6], rest[6:])


def _moment(chance: random.Random) -> str:
    day = f"{chance.randint(1990, 2030)}-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
    form = chance.choice(("{}", "{}T09:30:00Z", "{} 18:45", "{} 07:05:12.123456"))
    return form.format(day)


def _uuid(chance: random.Random) -> str:
    text = _hex(chance, 32)
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _with_luhn(digits: str) -> str:
    """Return digits with their check digit, as the numbers of devices have it."""
    doubled = sum(sum(divmod(int(digit) * 2, 10)) for digit in digits[::-2])
    return digits + str(-(doubled + sum(map(int, digits[-2::-2]))) % 10)


#: Kinds of ordinary values.
VALUES: dict[str, Callable[[random.Random], str]] = {
    "phone": _phone,
    "moment": _moment,
    "order of 10 digits": lambda chance: _digits(chance, 10, "123456789"),
    "order of 3-7-7 digits": lambda chance: (
        f"{_digits(chance, 3)}-{_digits(chance, 7)}-{_digits(chance, 7)}"
    ),
    "parcel of 12 digits": lambda chance: _digits(chance, 12),
    "parcel of 22 digits": lambda chance: "92" + _digits(chance, 20),
    "article of 13 digits": lambda chance: _digits(chance, 13),
    "milliseconds": lambda chance: f"17{_digits(chance, 11)}",
    "device of 15 digits": lambda chance: _with_luhn("35" + _digits(chance, 12)),
    "post of 19 digits": lambda chance: "1" + _digits(chance, 18),
    "channel of 18 digits": lambda chance: _digits(chance, 18, "123456789"),
    "decimals": lambda chance: f"{chance.random()!r}",
    "coordinates": lambda chance: f"{chance.uniform(-90, 90):.6f}, {chance.uniform(-180, 180):.6f}",
    "number of 16 digits": lambda chance: _digits(chance, 16),
    "number of 16 digits in fours": lambda chance: " ".join(_digits(chance, 4) for _ in range(4)),
    "uuid": _uuid,
    "md5": lambda chance: _hex(chance, 32),
    "commit": lambda chance: _hex(chance, 40),
    "sha256": lambda chance: f"sha256:{_hex(chance, 64)}",
    "link": lambda chance: (
        f"https://example.com/a/{_hex(chance, 12)}?id={_digits(chance, 9)}&ref=mail"
    ),
    "mail": lambda chance: f"ann.{_hex(chance, 6)}@example.com",
    "plate": lambda chance: (
        f"B-{''.join(chance.choices(string.ascii_uppercase, k=2))} {_digits(chance, 4)}"
    ),
    "passport": lambda chance: f"C{_digits(chance, 8)}",
    "price": lambda chance: f"{chance.randint(1, 9999)}.{chance.randint(0, 99):02} EUR",
    "list": lambda chance: ", ".join(str(chance.randint(1, 9999)) for _ in range(8)),
    "network": lambda chance: f"10.{chance.randint(0, 255)}.{chance.randint(0, 255)}.7:8080",
}


def ordinary(count: int, seed: int = 1) -> Iterator[tuple[str, str, str]]:
    """Yield (language, kind, message) of all kinds in all languages, `count` of each."""
    chance = random.Random(seed)
    for language, sentences in SENTENCES.items():
        for kind, value in VALUES.items():
            for _ in range(count):
                yield language, kind, chance.choice(sentences).format(value(chance))
