"""A stand-in for Anthropic's API: the real wire format, scripted answers, every request kept.

In the test's own loop: `async with ClaudeStandIn() as claude: claude.will_answer(...)`.
For real workers: `python -m tests.kit.claude_api.server --port-file F`, steered through
`tests.kit.claude_api.process`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.kit.claude_api import message_batches
from tests.kit.claude_api import wire_format as wire
from tests.kit.claude_api.extraction import asks_to_extract, extracted
from tests.kit.claude_api.prompt_cache import MOST_MARKERS, PromptCache, markers
from tests.kit.claude_api.scripted_answers import Call, ClaudeAnswer, steps
from tests.kit.servers.scripted_http_server import Request, ScriptedHttpServer, Step, whole
from tests.kit.servers.stand_in_process import serve

#: Requests that are kept, the oldest give way.
KEPT_REQUESTS = 20_000


@dataclass(frozen=True, slots=True)
class ClaudeRequest:
    """One request that came in."""

    path: str
    headers: Mapping[str, str]
    body: wire.Json


def echo(body: wire.Json) -> str:
    """Answer so that a test can tell what the model was told."""
    if asks_to_extract(body):
        return extracted(body)
    said = wire.told(body)[-1].strip().splitlines()[-1]
    knows_celsius = any("celsius" in text.lower() for text in wire.told(body))
    degrees = "21 °C" if knows_celsius else "70 °F"
    return f"You said: {said} A comfortable room has {degrees}."


class ClaudeStandIn(ScriptedHttpServer):
    """Plays Anthropic's API; without a script every answer is `reply` of the request's body."""

    def __init__(self, reply: Callable[[wire.Json], str] = echo) -> None:
        super().__init__(self._respond)
        self.reply = reply
        self.cache = PromptCache()
        self.batches = message_batches.MessageBatches(self._reply_to)
        self.lifecycles = {"claude-sonnet-4-5": "deprecated"}
        self.requests: deque[ClaudeRequest] = deque(maxlen=KEPT_REQUESTS)
        #: What is answered to a request to count tokens, if not their number.
        self.token_count: bytes | None = None
        #: Asked at each request; what it returns goes before the script.
        self.whim: Callable[[], ClaudeAnswer | None] = lambda: None
        #: What a token count is answered with, if not the truth.
        self.count_answer: ClaudeAnswer | None = None
        #: What the next request about message batches is answered with, if not the truth.
        self.batch_answer: ClaudeAnswer | None = None
        self._script: list[tuple[ClaudeAnswer, int | None]] = []
        self._count = 0

    def _reply_to(self, body: wire.Json) -> str:
        return self.reply(body)  # which a test may replace

    def will_answer(self, *answers: ClaudeAnswer) -> None:
        """Add to the script; each request takes the first play that matches it."""
        self._script += [(play, play.times) for play in answers]

    def interject(self, play: ClaudeAnswer) -> None:
        """Put a play in front of the script."""
        self._script.insert(0, (play, play.times))

    @property
    def left(self) -> list[ClaudeAnswer]:
        """Return what is still to be played."""
        return [play for play, _ in self._script]

    def forget(self) -> None:
        """Drop the script and the requests so far."""
        self._script.clear()
        self.requests.clear()

    def _respond(self, request: Request) -> Iterable[Step]:
        if request.path.startswith("/_"):
            return self._control(request)
        if request.path.startswith("/v1/models/"):
            return [self._listing(request.path.removeprefix("/v1/models/").partition("?")[0])]
        body = _parsed(request.body)
        self._count += 1
        self.requests.append(ClaudeRequest(request.path, request.headers, body))
        if request.path.startswith(message_batches.PATH):
            return self._batch(request, body)
        if objection := wire.objection(request.headers, body):
            return [_refusal(*objection, self._request_id)]
        return self._route(request, body)

    def _route(self, request: Request, body: wire.Json) -> Iterable[Step]:
        match request.path.partition("?")[0]:
            case "/v1/messages":
                return self._message(request, body)
            case "/v1/messages/count_tokens" if self.token_count is not None:
                return [self.token_count]
            case "/v1/messages/count_tokens":
                play = self.count_answer
                if play and (play.match is None or play.match.encode() in request.body):
                    return steps(play, Call(body, "", self._request_id, {}))
                return [_json({"input_tokens": wire.tokens(*wire.told(body))})]
            case _:
                return [_refusal(404, "no such path", self._request_id)]

    def _batch(self, request: Request, body: wire.Json) -> Iterable[Step]:
        if not {"authorization", "x-api-key"} & request.headers.keys():
            return [_refusal(401, "no credential", self._request_id)]
        if refusal := self.batch_answer:
            self.batch_answer = None
            return steps(refusal, Call(body, "", self._request_id, {}))
        status, found = self.batches.respond(request.method, request.path, body)
        if status == 200 and request.path.endswith("/results"):
            lines = b"".join(wire.encoded(row) + b"\n" for row in found)
            return [whole(status, {"content-type": "application/x-jsonl"}, lines)]
        return [whole(status, wire.JSON_HEADERS, wire.encoded(found))]

    def _listing(self, model: str) -> bytes:
        return _json(wire.model_listing(model, self.lifecycles.get(model, "active")))

    def _message(self, request: Request, body: wire.Json) -> Iterable[Step]:
        if "max_tokens" not in body:
            return [_refusal(400, "max_tokens: field required", self._request_id)]
        if markers(body) > MOST_MARKERS:
            return [_refusal(400, f"at most {MOST_MARKERS} cache_control", self._request_id)]
        play = self.whim() or self._next_play(request.body)
        text = self.reply(body) if play.text is None else play.text
        counted = self.cache.usage(body) if play.status == 200 else {}
        return steps(play, Call(body, text, self._request_id, counted))

    def _next_play(self, raw: bytes) -> ClaudeAnswer:
        for at, (play, left) in enumerate(self._script):
            if play.match is None or play.match.encode() in raw:
                self._spend(at, play, left)
                return play
        return ClaudeAnswer()

    def _spend(self, at: int, play: ClaudeAnswer, left: int | None) -> None:
        if left == 1:
            del self._script[at]
        elif left is not None:
            self._script[at] = (play, left - 1)

    @property
    def _request_id(self) -> str:
        return f"req_standin_{self._count}"

    def _control(self, request: Request) -> Iterable[Step]:
        if request.path == "/_requests":
            return [_json([asdict(seen) for seen in self.requests])]
        order = json.loads(request.body)
        if order.get("forget"):
            self.forget()
        self.will_answer(*(ClaudeAnswer(**play) for play in order.get("answers", ())))
        if order.get("end_batches"):
            self.batches.end()
        if "release" in order:
            self.release(order["release"])
        state = {"held": self.held, "in_flight": self.in_flight - 1, "abandoned": self.abandoned}
        return [_json(state)]


def _parsed(raw: bytes) -> wire.Json:
    """Return the body as JSON; empty if it is none, which the API refuses then."""
    try:
        body = json.loads(raw)
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _json(value: object) -> bytes:
    return whole(200, wire.JSON_HEADERS, wire.encoded(value))


def _refusal(status: int, message: str, request_id: str) -> bytes:
    body = wire.error_body(wire.ERROR_TYPES[status], message)
    return whole(status, wire.JSON_HEADERS | {"request-id": request_id}, wire.encoded(body))


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port-file", type=Path, required=True, help="where to write the port")
    parser.add_argument("--port", type=int, default=0, help="port; 0 takes a free one")
    options = parser.parse_args()
    asyncio.run(serve(ClaudeStandIn(), options.port_file, options.port))


if __name__ == "__main__":
    main()
