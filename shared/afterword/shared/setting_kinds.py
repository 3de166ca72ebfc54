"""The kinds of values that settings take, each refused with a reason that repeats no secret."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, TypeAdapter, ValidationError

Backend = Literal["auto", "hosted", "selfhosted", "embedded", "off"]
Durability = Literal["none", "d1", "d2", "d3"]


def _address(value: str, *schemes: str) -> SplitResult:
    """Split an address of one of these schemes; no error repeats it, it may hold a password."""
    try:
        parts = urlsplit(value)
    except ValueError:
        raise ValueError("must be an address") from None
    if parts.scheme not in schemes:
        named = [f"{scheme}://" for scheme in schemes]
        raise ValueError(f"must begin with {', '.join(named[:-1])} or {named[-1]}")
    return parts


def _http_url(value: str) -> str:
    if not _address(value, "http", "https").hostname:
        raise ValueError("must name a host")
    return value.rstrip("/")


def _redis_url(value: str) -> str:
    _address(value, "redis", "rediss", "unix")
    return value


def _listed(value: object) -> object:
    """Split what is separated by commas."""
    if not isinstance(value, str):
        return value
    return tuple(part.strip() for part in value.split(",")) if value.strip() else ()


def _no_doubles(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names) or "" in names:
        raise ValueError("must be names separated by commas, each of them once")
    return names


def _json_object(value: SecretStr) -> SecretStr:
    """Refuse what is no JSON object; no error repeats it, it may hold a key."""
    try:
        TypeAdapter(dict[str, Any]).validate_json(value.get_secret_value())
    except ValidationError:
        raise ValueError("must be a JSON object") from None
    return value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed), AfterValidator(_no_doubles)]
JsonObject = Annotated[SecretStr, AfterValidator(_json_object)]
RedisUrl = Annotated[str, AfterValidator(_redis_url)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
