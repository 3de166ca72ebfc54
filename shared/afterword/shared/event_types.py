"""What events are made of: their base, the kinds of text in them, and whom they are about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias


@dataclass(frozen=True, slots=True)
class Text:
    """Marks a text field and names what it holds; a test refuses text fields without it."""

    kind: Literal["id", "code", "name", "place", "message"]


#: An id that a machine made: a provider's request id, a digest, a Celery task id.
Id: TypeAlias = Annotated[str, Text("id")]

#: A fixed word of the code, or the class name of an error.
Code: TypeAlias = Annotated[str, Text("code")]

#: What the configuration calls something: a model, a gate, a queue, a setting.
Name: TypeAlias = Annotated[str, Text("name")]

#: A file of the code and a line in it, `afterword/workers/gate.py:42`.
Place: TypeAlias = Annotated[str, Text("place")]

#: A sentence that the code has written about the configuration; it quotes no secret.
Message: TypeAlias = Annotated[str, Text("message")]


@dataclass(frozen=True, slots=True)
class Context:
    """What the work at hand is called; empty where an event belongs to no job or lane.

    `lane` is `afterword.shared.names.lane_tag`, which names a user without their id. For a turn,
    `job_id` is the job that it came from. `worker` is `host:pid`. `trace` is the stored trace
    context of the job; logs show the id of the trace only. `tenant_class` is what
    `AFTERWORD_TENANT_CLASSES` calls the tenant's kind.
    """

    worker: Name = ""
    job_id: Id = ""
    lane: Id = ""
    attempt: int = 0
    trace: Id = ""
    tenant_class: Name = ""


@dataclass(frozen=True, slots=True)
class ObserverEvent:
    """Base of all events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokensTold(ObserverEvent):
    """An event that says how many tokens something used; those of the cache are no input tokens."""

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
