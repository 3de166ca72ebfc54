"""The settings, read once from the environment, checked, frozen.

Names of ours begin with `AFTERWORD_`; an unknown one is refused, since a setting that is
misspelt is a setting that is missing.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
)

from shared.errors import Misconfigured

PREFIX = "AFTERWORD_"

#: Read under their providers' own names, as their SDKs do.
FOREIGN = ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "MEM0_API_KEY", "MEM0_HOST")

Backend = Literal["auto", "hosted", "selfhosted", "embedded", "off"]
Durability = Literal["none", "d1", "d2"]


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


RedisUrl = Annotated[str, AfterValidator(_redis_url)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
PositiveInt = Annotated[int, Field(gt=0)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _default_folder() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "afterword"


class Settings(BaseModel):
    """All settings; each description ends up in the generated table of the README."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    redis_url: RedisUrl | None = Field(
        None, repr=False, description="the ledger; unset: the embedded Valkey of this machine"
    )
    broker_url: str | None = Field(
        None, repr=False, description="Celery's broker; unset: the ledger's Redis"
    )
    namespace: str = Field(
        "afterword", pattern=r"^[a-z0-9-]{1,32}$", description="what all our Redis keys begin with"
    )
    shards: int = Field(
        1, ge=1, le=256, description="hash slots the ledger is spread over; fixed once in use"
    )
    durability: Durability = Field(
        "d1",
        description="what Redis must keep: `d1` AOF, `d2` AOF with fsync always, "
        "`none` nothing (your consent to lose jobs)",
    )
    data_dir: Path = Field(
        default_factory=_default_folder,
        description="folder of everything embedded; unset: `afterword` in the user's data folder",
    )

    memory: Backend = Field(
        "auto",
        description="memory backend; `auto`: `hosted` if MEM0_API_KEY is set, else `embedded`",
    )
    recall_budget_ms: PositiveInt = Field(
        400, description="the longest that recall may hold up a reply, in milliseconds"
    )
    recall_top_k: int = Field(5, ge=1, le=100, description="memories given to the model at most")
    recall_min_score: float = Field(
        0.0, ge=0, le=1, description="memories scored below this are left out"
    )

    model: str = Field("claude-sonnet-5-5", min_length=1, description="the model that replies")
    memory_model: str = Field(
        "claude-haiku-5-5", min_length=1, description="the model that extracts memories"
    )
    max_tokens: int = Field(
        4096, ge=1, le=128_000, description="longest reply, in tokens, unless a job says otherwise"
    )
    system_prompt: str | None = Field(
        None, description="the operator's own text, first thing in every prompt"
    )
    prompt_tokens: PositiveInt = Field(
        32_000, description="longest prompt, in estimated tokens; history gives way first"
    )
    history_turns: int = Field(
        20, ge=0, le=200, description="turns of the conversation that a prompt holds at most"
    )
    overlay_turns: int = Field(
        20, ge=0, le=200, description="turns not yet in memory that a prompt holds at most"
    )
    delta_ms: PositiveInt = Field(
        40, description="how long text is gathered before it goes into the reply stream, in ms"
    )
    reply_timeout_s: PositiveSeconds = Field(
        120.0, description="longest time for one answer of the model, in seconds"
    )
    first_token_timeout_s: PositiveSeconds = Field(
        60.0, description="longest silence before the first event of an answer, in seconds"
    )
    idle_timeout_s: PositiveSeconds = Field(
        30.0, description="longest silence inside an answer, in seconds"
    )
    write_timeout_s: PositiveSeconds = Field(
        60.0, description="longest time to store one turn, in seconds"
    )

    max_queued: PositiveInt = Field(
        100_000, description="open jobs a shard holds before it refuses new ones"
    )
    max_message_bytes: PositiveInt = Field(65_536, description="longest message, in bytes")
    max_message_tokens: PositiveInt = Field(
        16_000, description="longest message, in estimated tokens"
    )
    job_ttl_s: PositiveSeconds = Field(
        3600.0, description="a job without a reply after this many seconds expires"
    )
    retention_s: PositiveSeconds = Field(
        86_400.0, description="how long an ended job can be looked up, in seconds"
    )
    stream_retention_s: PositiveSeconds = Field(
        900.0, description="how long deltas can be read again after the end, in seconds"
    )
    idempotency_s: PositiveSeconds = Field(
        86_400.0, description="how long an idempotency key is remembered, in seconds"
    )
    submit_timeout_s: PositiveSeconds = Field(
        2.0, description="submit answers within this many seconds, whatever Redis does"
    )

    lease_s: PositiveSeconds = Field(
        30.0, description="a worker silent for this many seconds loses its job or lane"
    )
    max_attempts: PositiveInt = Field(
        3, description="starts of a job before it fails as `crashed_too_often`"
    )
    max_write_attempts: PositiveInt = Field(
        8, description="attempts to store a turn before it becomes a dead letter"
    )
    drain_s: PositiveSeconds = Field(
        20.0,
        description="a worker told to stop lets its jobs run for so long, then gives them back; "
        "keep it below what your supervisor allows, commonly 30 seconds",
    )
    concurrency: PositiveInt = Field(200, description="jobs in flight in one worker process")
    memory_threads: PositiveInt = Field(
        4, description="threads for the open-source mem0, which is synchronous"
    )
    sweep_s: PositiveSeconds = Field(
        1.0, description="how often each worker looks for lost hints and leases, in seconds"
    )
    hint_grace_s: PositiveSeconds = Field(
        5.0, description="a hint not taken up after this many seconds may be sent again"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="how much workers log; never content"
    )

    anthropic_api_key: SecretStr | None = Field(None, description="key of Claude's API")
    anthropic_base_url: HttpUrl = Field(
        "https://api.anthropic.com", description="where Claude's Messages API is"
    )
    mem0_api_key: SecretStr | None = Field(None, description="key of mem0's platform")
    mem0_host: HttpUrl = Field("https://api.mem0.ai", description="where mem0's platform is")

    @field_validator("system_prompt")
    @classmethod
    def _some_text(cls, value: str | None) -> str | None:
        return value.strip() or None if value is not None else None

    @property
    def backend(self) -> Literal["hosted", "selfhosted", "embedded", "off"]:
        """Return the memory backend, with `auto` resolved."""
        if self.memory != "auto":
            return self.memory
        return "hosted" if self.mem0_api_key else "embedded"

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from the environment; raise `Misconfigured` naming the variable."""
        env = os.environ if environ is None else environ
        values = {name.lower(): env[name] for name in FOREIGN if env.get(name)}
        for name in filter(_is_ours, env):
            values[_field(name)] = env[name]
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise _misconfigured(error) from None


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return field.upper() if field.upper() in FOREIGN else PREFIX + field.upper()


def table() -> str:
    """Return all settings as a Markdown table: variable, default, meaning."""
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = "" if field.default_factory or field.default is None else f"`{field.default}`"
        rows.append(f"| `{variable(name)}` | {default} | {field.description} |")
    return "\n".join(rows)


def _is_ours(name: str) -> bool:
    return name.startswith(PREFIX)


def _field(name: str) -> str:
    field = name.removeprefix(PREFIX).lower()
    if variable(field) != name or field not in Settings.model_fields:
        known = [variable(known) for known in Settings.model_fields]
        near = difflib.get_close_matches(name.upper(), known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise Misconfigured(name, f"there is no such setting{hint}")
    return field


def _misconfigured(error: ValidationError) -> Misconfigured:
    first = error.errors(include_input=False, include_url=False)[0]
    reason = first["msg"].removeprefix("Value error, ")
    return Misconfigured(variable(str(first["loc"][0])), reason[:1].lower() + reason[1:])
