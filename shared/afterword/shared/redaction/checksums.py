"""The checksums of card numbers (ISO/IEC 7812) and bank accounts (ISO 13616)."""

from __future__ import annotations

#: Lengths of the card numbers that begin with these digits. A number of 13 digits is more often an
#: article's than an old card's, and one of 19 is more often an id: of those, only UnionPay's count.
_BRANDS: tuple[tuple[int, int, tuple[int, ...]], ...] = (
    (4, 4, (16,)),  # Visa
    (51, 55, (16,)),  # Mastercard
    (2221, 2720, (16,)),  # Mastercard
    (2200, 2204, (16,)),  # Mir
    (34, 34, (15,)),  # American Express
    (37, 37, (15,)),
    (300, 305, (14,)),  # Diners Club
    (36, 36, (14,)),
    (38, 39, (14,)),
    (6011, 6011, (16,)),  # Discover
    (644, 659, (16,)),
    (3528, 3589, (16,)),  # JCB
    (62, 62, (16, 19)),  # UnionPay
    (60, 60, (16,)),  # RuPay
    (81, 82, (16,)),
    (9792, 9792, (16,)),  # Troy
)

#: The sum of the digits of twice a digit.
_DOUBLED = str.maketrans("0123456789", "0246813579")

#: The countries with IBANs, by their length, as SWIFT's registry has them.
_IBAN_COUNTRIES = {
    15: "NO",
    16: "BE",
    18: "DK FK FI FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VA",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
_IBAN_LENGTHS = {
    country: length
    for length, countries in _IBAN_COUNTRIES.items()
    for country in countries.split()
}


def is_card_number(digits: str) -> bool:
    """Return whether ASCII digits are a card number: a brand's, of its length, with its sum."""
    return _luhn(digits) == 0 and any(
        first <= int(digits[: len(str(first))]) <= last and len(digits) in lengths
        for first, last, lengths in _BRANDS
    )


def is_iban(text: str) -> bool:
    """Return whether a text without blanks, in upper case, is an IBAN."""
    if _IBAN_LENGTHS.get(text[:2]) != len(text):
        return False
    turned = text[4:] + text[:4]
    return int("".join(str(int(character, 36)) for character in turned)) % 97 == 1


def _luhn(digits: str) -> int:
    return sum(map(int, digits[-1::-2] + digits[-2::-2].translate(_DOUBLED))) % 10
