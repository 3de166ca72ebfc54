"""What the stand-in of mem0's platform can play: one record per answer, faults included."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.kit.servers.scripted_http_server import Cue, Step, head, whole

HTML = "<html><body>Sign in to continue</body></html>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mem0Answer:
    """One answer to one request of a kind (`verb`, `None`: of any).

    It is for `times` requests (`None`: for ever). What is broken is not done, unless `done` says
    so: then it is done and not said. `doubled` says every row twice.
    """

    verb: str | None = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    cue: Cue | None = None
    half: bool = False
    silent: bool = False
    delay_s: float = 0.0
    done: bool = False
    doubled: bool = False
    times: int | None = 1

    @property
    def broken(self) -> bool:
        """True unless the true answer comes, if late."""
        return self.status != 200 or self.body is not None or self.cue is not None or self.silent


def steps(play: Mem0Answer, answer: dict[str, Any]) -> Iterator[Step]:
    """Play one answer."""
    if play.delay_s:
        yield play.delay_s
    if play.silent:
        yield math.inf
    kind = "text/html" if play.body == HTML else "application/json"
    headers = {"content-type": kind, **play.headers}
    body = json.dumps(answer).encode() if play.body is None else play.body.encode()
    if play.half:
        yield head(play.status, headers) + b"ff\r\n" + body[:10]
    if play.cue is not None:
        yield play.cue
        if play.cue is not Cue.HOLD:
            return
    yield whole(play.status, headers, body)
