"""The kinds of values that settings have, each with what it refuses.

No refusal repeats a value: it may hold a password or a key.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from afterword.shared import urls
from afterword.shared.listen_address import ListenAddress
from afterword.shared.tenant_classes import MOST_CLASSES


def _url_of(forms: urls.Forms) -> AfterValidator:
    """Refuse what is not a URL of these forms; no error repeats it, it may hold a password."""

    def check(value: Any) -> Any:
        urls.parse_url(value.get_secret_value() if isinstance(value, SecretStr) else value, forms)
        return value

    return AfterValidator(check)


def _ledger_urls(value: str) -> str:
    """Refuse what is not a list of the ledger's servers; separate them by one space each."""
    urls.parse_ledger(value)
    return " ".join(urls.split_urls(value))


def _without_slash(value: str) -> str:
    return value.rstrip("/")


def _header_safe(value: SecretStr) -> SecretStr:
    """Refuse what an HTTP header cannot carry: whoever sends it would repeat it in the error."""
    if not re.fullmatch("[!-~]+", value.get_secret_value()):
        raise ValueError("must hold printable ASCII characters only: no space, no line end")
    return value


def _listen_address(value: str) -> str:
    ListenAddress.parse(value)
    return value


def _named_path(value: Path) -> Path:
    if not value.name or not str(value).isprintable():
        raise ValueError("must be the path of a folder")
    return value


def _split(value: object) -> object:
    """Split a comma-separated text."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",")) if value.strip() else ()


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names) or "" in names:
        raise ValueError("must be names separated by commas, each of them once")
    return names


def _json_object(value: SecretStr) -> SecretStr:
    """Refuse what is not a JSON object; no error repeats it, it may hold a key."""
    try:
        TypeAdapter(dict[str, Any]).validate_json(value.get_secret_value())
    except ValidationError:
        raise ValueError("must be a JSON object") from None
    return value


def _read(value: object, validate: ValidatorFunctionWrapHandler, reason: str) -> Any:
    """Validate what a JSON text says; one reason covers whatever is wrong with it."""
    try:
        return validate(json.loads(value or "{}") if isinstance(value, str) else value)
    except (ValueError, RecursionError):
        raise ValueError(reason) from None


def _prices(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    return _read(
        value,
        validate,
        "must be a JSON object of models and their [input, output] prices, each up to "
        f"{MOST_PRICE:,} US dollars",
    )


def _redaction_modes(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    return _read(
        value,
        validate,
        "must be a JSON object of tenants and their modes: off, report, redact or refuse",
    )


def _budgets(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    """Parse a JSON text of budgets; a message names the budget that is wrong, and no tenant."""
    found = _read(
        value,
        validate,
        "must be a JSON object of tenants, each with some of `tenant_usd`, `user_usd`, "
        "`tenant_tokens` and `user_tokens`, which are numbers",
    )
    for name, amount in (each for budget in found.values() for each in budget.items()):
        most = MOST_USD if name.endswith("_usd") else MOST_TOKENS
        if not 0 <= amount <= most:
            raise ValueError(f"`{name}` must be from 0 to {most}")
        if name.endswith("_tokens") and not isinstance(amount, int):
            raise ValueError(f"`{name}` must be a whole number")
    return found


def _tenant_classes(value: object, validate: ValidatorFunctionWrapHandler) -> object:
    found = _read(
        value,
        validate,
        "must be a JSON object of tenants and their classes, each up to 32 of a-z, 0-9, _ and -",
    )
    if len(set(found.values())) > MOST_CLASSES:
        raise ValueError(f"must have at most {MOST_CLASSES} different classes")
    return found


#: Most that can be spent: so much that it can be counted, money in millionths.
MOST_USD, MOST_TOKENS = 1_000_000_000, 1_000_000_000_000_000

#: Most that a million tokens can cost: with more, one answer might cost what cannot be counted.
MOST_PRICE = 1_000_000

Names = Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_unique)]
JsonObject = Annotated[SecretStr, AfterValidator(_json_object)]
RedisUrl = Annotated[str, _url_of(urls.REDIS)]
LedgerUrls = Annotated[str, AfterValidator(_ledger_urls)]
PostgresUrl = Annotated[SecretStr, _url_of(urls.POSTGRES)]
Listen = Annotated[str, AfterValidator(_listen_address)]
HttpUrl = Annotated[str, _url_of(urls.HTTP), AfterValidator(_without_slash)]
ApiKey = Annotated[SecretStr, AfterValidator(_header_safe)]
Folder = Annotated[Path, AfterValidator(_named_path)]
#: The bounds keep sums of them in what Redis, Lua and `datetime` can count.
PositiveInt = Annotated[int, Field(gt=0, le=1_000_000_000)]

#: How many memories a prompt has at most.
TopK = Annotated[
    int,
    Field(
        ge=1,
        le=100,
        description="memories in a prompt, at most; measured, 10 in place of 5 find 98 % of short "
        "facts, not 96, and on long dialogues 69 % of what was said, not 56, for 340 tokens more",
    ),
]

#: A number of jobs or bytes; 0 for no cap.
Cap = Annotated[int, Field(ge=0, le=10**12)]
PositiveSeconds = Annotated[float, Field(gt=0, le=100 * 365 * 86_400, allow_inf_nan=False)]
Price = Annotated[float, Field(ge=0, le=MOST_PRICE, allow_inf_nan=False)]
#: By a prefix of a model's name: US dollars for a million input tokens, and for a million output.
Prices = Annotated[dict[str, tuple[Price, Price]], WrapValidator(_prices)]
#: What is done about secrets.
RedactionMode = Literal["off", "report", "redact", "refuse"]
#: By the name of a tenant.
RedactionModes = Annotated[dict[str, RedactionMode], WrapValidator(_redaction_modes)]
#: How many US dollars, or tokens, a tenant and each of its users may spend.
Budget = dict[
    Literal["tenant_usd", "user_usd", "tenant_tokens", "user_tokens"],
    Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True, allow_inf_nan=False)],
]
#: By the name of a tenant; `*` for all that are not named.
Budgets = Annotated[dict[str, Budget], WrapValidator(_budgets)]
#: By the name of a tenant; `*` for all that are not named.
TenantClasses = Annotated[
    dict[str, Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,32}$")]], WrapValidator(_tenant_classes)
]
#: A class and the module that it is imported from.
ClassPath = Annotated[
    str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$", max_length=200)
]
