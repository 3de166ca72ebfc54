"""A stand-in for mem0's platform: its paths and answers, extraction that ends when told to.

For real workers there is `tests.kit.mem0_api.process`.
In the test's own loop: `async with Mem0StandIn() as mem0: mem0.will_answer(...)`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.kit.mem0_api import filters as mem0_filters
from tests.kit.mem0_api.filters import Json, Refused
from tests.kit.mem0_api.scripted_answers import Mem0Answer, steps
from tests.kit.servers.scripted_http_server import Request, ScriptedHttpServer, Step

KEY = "m0-standin-key"


@dataclass(frozen=True, slots=True)
class Mem0Request:
    """One request that came in; `verb` is what it was taken for."""

    verb: str
    path: str
    headers: Mapping[str, str]
    body: Json


@dataclass(slots=True)
class Event:
    """Work that is done later: after it was asked for `polls` times."""

    id: str
    polls: int
    work: Callable[[], list[Json]]
    status: str = "PENDING"
    results: list[Json] = field(default_factory=list)


def said(messages: list[Json]) -> list[str]:
    """Keep what the user says, if it is not a question."""
    texts = [message["content"] for message in messages if message["role"] == "user"]
    return [text for text in texts if not text.endswith("?")]


class Mem0StandIn(ScriptedHttpServer):
    """Plays mem0's platform; an event ends once it was asked after `polls` times.

    With `works_s` it ends by itself so many seconds after its request. `extract` makes memories
    of the messages of an add; a search orders them by `likeness`. `row_fields` are what every row
    says instead of what it holds.
    `failing` adds end as `FAILED`, `half` of them after they stored.
    """

    def __init__(
        self,
        *,
        polls: int = 1,
        extract: Callable[[list[Json]], list[str]] = said,
        likeness: Callable[[str, str], float] = mem0_filters.words_in_common,
    ) -> None:
        super().__init__(self._respond)
        self.polls = polls
        self.extract = extract
        self.likeness = likeness
        self.failing = 0
        self.half = False
        self.works_s: float | None = None
        self.row_fields: Json = {}
        self.rows: list[Json] = []
        self.events: dict[str, Event] = {}
        self.requests: deque[Mem0Request] = deque(maxlen=20_000)
        self._strays: list[tuple[str, Json]] = []
        self._script: list[tuple[Mem0Answer, int | None]] = []
        self._numbers = itertools.count(1)

    def will_answer(self, *answers: Mem0Answer) -> None:
        """Add to the script; each request takes the first play that is for it."""
        self._script += [(play, play.times) for play in answers]

    def withdraw(self, answer: Mem0Answer) -> None:
        """Take an answer out of the script."""
        self._script = [(play, left) for play, left in self._script if play is not answer]

    @property
    def left(self) -> list[Mem0Answer]:
        """Return what is still to be played."""
        return [play for play, _ in self._script]

    def calm(self) -> None:
        """Drop the rest of the script."""
        self._script.clear()

    def plant(self, asked: str, row: Json) -> None:
        """Let every search for one owner give this row as well, whoever owns it."""
        self._strays.append((asked, row))

    def seen(self, verb: str) -> list[Mem0Request]:
        """Return the requests of one kind."""
        return [request for request in self.requests if request.verb == verb]

    def _respond(self, request: Request) -> Iterator[Step]:
        verb, act = self._route(request)
        self.requests.append(
            Mem0Request(verb, request.path, request.headers, _parsed(request.body))
        )
        play = self._next_play(verb)
        if play.broken and not play.done:
            return steps(play, {})
        try:
            self._check_key(request)
            answer = act()
            if play.doubled:
                answer["results"] = answer["results"] * 2
        except Refused as refused:
            play, answer = Mem0Answer(status=refused.status), {"detail": str(refused)}
        return steps(play, answer)

    def _route(self, request: Request) -> tuple[str, Callable[[], Json]]:  # noqa: PLR0911, C901
        url = urlsplit(request.path)
        body = _parsed(request.body)
        match request.method, url.path.strip("/").split("/"):
            case "GET", ["v1", "ping"]:
                return "ping", _ping
            case "POST", ["v3", "memories", "add"]:
                return "add", lambda: self._add(body)
            case "POST", ["v3", "memories", "search"]:
                return "search", lambda: self._search(body)
            case "POST", ["v3", "memories"]:
                return "get_all", lambda: self._get_all(body, parse_qs(url.query))
            case "GET", ["v1", "event", event_id]:
                return "event", lambda: self._poll(unquote(event_id))
            case "GET" | "PUT", ["v1", "memories", row_id]:
                verb = "get" if request.method == "GET" else "update"
                return verb, lambda: self._one(unquote(row_id), body)
            case "DELETE", ["v1", "memories", *row_id]:
                return self._route_delete(row_id, url.query)
            case "GET", ["v1", "entities"]:
                return "entities", lambda: self._entities(parse_qs(url.query))
        return "unknown", _no_such_path

    def _route_delete(self, row_id: list[str], query: str) -> tuple[str, Callable[[], Json]]:
        if row_id:
            return "delete", lambda: self._delete(unquote(row_id[0]))
        return "delete_all", lambda: self._delete_all(parse_qs(query))

    def _next_play(self, verb: str) -> Mem0Answer:
        for at, (play, left) in enumerate(self._script):
            if play.verb in (None, verb):
                self._script[at : at + 1] = [] if left == 1 else [(play, left and left - 1)]
                return play
        return Mem0Answer()

    def _check_key(self, request: Request) -> None:
        if request.headers.get("authorization") != f"Token {KEY}":
            raise Refused(401, "Invalid API key")

    def _add(self, body: Json) -> Json:
        if not body.get("user_id"):
            raise Refused(400, "one of user_id, agent_id, app_id or run_id is required")
        if not all(message["content"].strip() for message in body["messages"]):
            raise Refused(400, "a message without content")
        if body.get("infer") is False:
            return self._added_verbatim(body)
        # Its fate is sealed now: an order is for the adds that follow it, not for events still due.
        fails = self.failing > 0
        self.failing -= fails
        stores = self.half or not fails
        return self._queued(lambda: self._extracted(body, fails=fails, stores=stores))

    def _added_verbatim(self, body: Json) -> Json:
        """Store messages as they are, each text of a user once, before the answer."""
        known = {row["memory"] for row in self._rows_of(body["user_id"])}
        texts = [one["content"] for one in body["messages"] if one["content"] not in known]
        rows = [self._row(text, body) for text in texts]
        self.rows += rows
        added = [{"id": row["id"], "data": {"memory": row["memory"]}} for row in rows]
        event_id = f"event-{next(self._numbers)}"
        return {"status": "SUCCEEDED", "event_id": event_id, "results": added}

    def _extracted(self, body: Json, *, fails: bool, stores: bool) -> list[Json]:
        rows = [self._row(text, body) for text in self.extract(body["messages"])]
        self.rows += rows if stores else []
        if fails:
            raise Refused(500, "the extraction failed")
        return [
            {"id": row["id"], "data": {"memory": row["memory"]}, "event": "ADD"} for row in rows
        ]

    def _row(self, text: str, body: Json) -> Json:
        return mem0_filters.row(f"memory-{next(self._numbers)}", text, body)

    def _queued(self, work: Callable[[], list[Json]]) -> Json:
        event = Event(f"event-{next(self._numbers)}", self.polls, work)
        self.events[event.id] = event
        if self.works_s is not None:
            asyncio.get_running_loop().call_later(self.works_s, finish, event)
        return {"event_id": event.id, "status": "PENDING", "message": "queued"}

    def _poll(self, event_id: str) -> Json:
        event = self.events.get(event_id)
        if event is None:
            raise Refused(404, "Event not found")
        event.polls -= 1
        if event.polls <= 0 and self.works_s is None and event.status in ("PENDING", "RUNNING"):
            finish(event)
        elif event.status == "PENDING":
            event.status = "RUNNING"
        return {"id": event.id, "status": event.status, "results": event.results}

    def _search(self, body: Json) -> Json:
        owner = mem0_filters.owner(body["filters"])
        found = mem0_filters.search(self._rows_of(owner), body, self.likeness)
        strays = [row for asked, row in self._strays if asked == owner]
        return {"results": strays + [row | self.row_fields for row in found]}

    def _get_all(self, body: Json, query: Mapping[str, list[str]]) -> Json:
        number, size = int(query["page"][0]), int(query["page_size"][0])
        mine = self._rows_of(mem0_filters.owner(body["filters"]))
        found = [row for row in mine if mem0_filters.matches(row, body["filters"])]
        rows = [row | self.row_fields for row in reversed(found)]  # mem0 gives the newest first
        page = rows[(number - 1) * size : number * size]
        following = "https://api.mem0.ai/next" if len(rows) > number * size else None
        return {"count": len(rows), "next": following, "previous": None, "results": page}

    def _one(self, row_id: str, changed: Json) -> Json:
        for row in self.rows:
            if row["id"] == row_id:
                row["memory"] = changed.get("text", row["memory"])
                return row | self.row_fields
        raise Refused(404, "Memory not found")

    def _rows_of(self, owner: str) -> list[Json]:
        return [row for row in self.rows if row["user_id"] == owner]

    def _delete_all(self, query: Mapping[str, list[str]]) -> Json:
        if set(query) != {"user_id"}:
            raise Refused(400, "exactly one entity id is required")
        return self._queued(lambda: self._deleted(query["user_id"][0]))

    def _delete(self, row_id: str) -> Json:
        left = [row for row in self.rows if row["id"] != row_id]
        if len(left) == len(self.rows):
            raise Refused(404, "Memory not found")
        self.rows = left
        return {"message": "Memory deleted successfully!"}

    def _deleted(self, owner: str) -> list[Json]:
        self.rows = [row for row in self.rows if row["user_id"] != owner]
        return []

    def _entities(self, query: Mapping[str, list[str]]) -> Json:
        number, size = (
            int(query.get(name, [one])[0]) for name, one in (("page", "1"), ("page_size", "100"))
        )
        names = sorted({row["user_id"] for row in self.rows})
        results = [{"id": name, "name": name, "type": "user"} for name in names]
        page = results[(number - 1) * size : number * size]
        following = "https://api.mem0.ai/next" if len(results) > number * size else None
        return {"count": len(results), "next": following, "previous": None, "results": page}


def finish(event: Event) -> None:
    """Do the work of an event now."""
    try:
        event.results = event.work()
        event.status = "SUCCEEDED"
    except Refused:
        event.status = "FAILED"


def _ping() -> Json:
    return {"status": "ok", "org_id": "org", "project_id": "project", "user_email": "e@example.org"}


def _no_such_path() -> Json:
    raise Refused(404, "Not Found")


def _parsed(raw: bytes) -> Json:
    body: Any = json.loads(raw) if raw else {}
    assert isinstance(body, dict)
    return body
