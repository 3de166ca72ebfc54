"""Plays the Message Batches API: batches are kept until the test lets them end."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from afterword.shared.clock import utc_now
from tests.kit.claude_api import wire_format as wire

PATH = "/v1/messages/batches"

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_MOST = 100_000
_KINDS = ("processing", "succeeded", "errored", "canceled", "expired")

#: An answer of the API: status and JSON, or the lines of a file of results.
Reply = tuple[int, Any]


@dataclass
class Batch:
    """One batch: its requests by name, and their results once it has ended."""

    id: str
    requests: dict[str, wire.Json]
    created: datetime
    canceling: bool = False
    results: list[wire.Json] | None = None
    ended: datetime | None = None

    def shown(self, url: str) -> wire.Json:
        """Return it as the API shows it."""
        kinds = Counter(row["result"]["type"] for row in self.results or ())
        counts = {kind: kinds[kind] for kind in _KINDS}
        if self.results is None:
            counts["processing"] = len(self.requests)
        status = "ended" if self.ended else "canceling" if self.canceling else "in_progress"
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": counts,
            "created_at": self.created.isoformat(),
            "expires_at": (self.created + timedelta(days=1)).isoformat(),
            "ended_at": self.ended.isoformat() if self.ended else None,
            "archived_at": None,
            "cancel_initiated_at": self.created.isoformat() if self.canceling else None,
            "results_url": f"{url}{PATH}/{self.id}/results" if self.ended else None,
        }


@dataclass
class MessageBatches:
    """The batches of one account; `answer` makes the text of an answer from its request."""

    answer: Callable[[wire.Json], str]
    url: str = ""
    batches: dict[str, Batch] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    now: Callable[[], datetime] = utc_now

    def respond(self, method: str, path: str, body: wire.Json) -> Reply:
        """Answer a request below `PATH`."""
        _, _, rest = path.partition("?")[0].partition(PATH)
        name, _, verb = rest.strip("/").partition("/")
        if not name:
            return self._create(body) if method == "POST" else self._list()
        batch = self.batches.get(name)
        return _refused(404, "no such batch") if batch is None else self._about(batch, method, verb)

    def _about(self, batch: Batch, method: str, verb: str) -> Reply:
        match method, verb:
            case "GET", "results" if batch.results is not None:
                return 200, batch.results[::-1]  # in any order
            case "GET", "results":
                return _refused(400, "the batch has not ended")
            case "POST", "cancel":
                batch.canceling = not batch.ended
            case "DELETE", "":
                return self._delete(batch)
            case "GET", "":
                pass
            case _:
                return _refused(404, "no such path")
        return 200, batch.shown(self.url)

    def end(self, results: Mapping[str, str | wire.Json] | None = None) -> None:
        """Let all batches end: with an answer to each request, unless `results` says otherwise.

        `results` gives, for a part of a request's name, a kind of result or a whole message.
        """
        for batch in self.batches.values():
            if batch.results is None:
                batch.results = [
                    {"custom_id": name, "result": self._result(batch, name, results or {})}
                    for name in batch.requests
                ]
                batch.ended = self.now()

    def _result(self, batch: Batch, name: str, results: Mapping[str, str | wire.Json]) -> wire.Json:
        said = next((result for part, result in results.items() if part in name), "succeeded")
        if batch.canceling:
            said = "canceled"
        if isinstance(said, dict):
            return {"type": "succeeded", "message": said}
        if said == "errored":
            return {"type": said, "error": wire.error_body("api_error", "it failed")}
        if said != "succeeded":
            return {"type": said}
        params = batch.requests[name]
        if "max_tokens" not in params or params.get("stream"):
            return {"type": "errored", "error": wire.error_body("invalid_request_error", "params")}
        return {"type": said, "message": self.message(params)}

    def message(self, params: wire.Json, **fields: object) -> wire.Json:
        """Return the answer to a request, whole."""
        text = self.answer(params)
        counted = {"input_tokens": wire.tokens(*wire.told(params)), "output_tokens": 20}
        said: dict[str, Any] = {"content": [{"type": "text", "text": text}]}
        said |= {"stop_reason": "end_turn", **fields}
        return wire.message("msg_batched", params["model"], counted, **said)

    def _create(self, body: wire.Json) -> Reply:
        asked = body.get("requests")
        if not isinstance(asked, list) or not 0 < len(asked) <= _MOST:
            return _refused(400, "requests: between 1 and 100,000")
        names = [str(one.get("custom_id")) for one in asked]
        if len({*names}) < len(names) or not all(map(_NAME.fullmatch, names)):
            return _refused(400, "requests: custom_id")
        requests = {name: one["params"] for name, one in zip(names, asked, strict=True)}
        number = len(self.batches) + len(self.deleted)  # no id is given twice
        batch = Batch(f"msgbatch_{number:06}", requests, self.now())
        self.batches[batch.id] = batch
        return 200, batch.shown(self.url)

    def _list(self) -> Reply:
        newest = [one.shown(self.url) for one in reversed(self.batches.values())]
        return 200, {"data": newest, "has_more": False, "first_id": None, "last_id": None}

    def _delete(self, batch: Batch) -> Reply:
        if batch.results is None:
            return _refused(400, "cancel it first")
        del self.batches[batch.id]
        self.deleted.append(batch.id)
        return 200, {"id": batch.id, "type": "message_batch_deleted"}


def _refused(status: int, message: str) -> Reply:
    return status, wire.error_body(wire.ERROR_TYPES[status], message)
