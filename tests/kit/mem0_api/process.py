"""The stand-in of mem0's platform in a process of its own, for tests with real workers.

`python -m tests.kit.mem0_api.process --port-file F` serves; `Mem0Process` starts and steers it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from tests.kit.mem0_api.filters import Json
from tests.kit.mem0_api.scripted_answers import Mem0Answer
from tests.kit.mem0_api.server import Mem0StandIn, said
from tests.kit.servers.scripted_http_server import Cue, Request, Step, whole
from tests.kit.servers.stand_in_process import StandInProcess, serve

#: What an order may set.
_KNOBS = ("polls", "failing", "half", "works_s")


class SteeredMem0(Mem0StandIn):
    """Takes orders under `/_control`, and answers each with all that it knows."""

    def _respond(self, request: Request) -> Iterator[Step]:
        if request.path != "/_control":
            return super()._respond(request)
        self._obey(json.loads(request.body))
        return iter([whole(200, {"content-type": "application/json"}, self._told())])

    def _obey(self, order: Json) -> None:
        if order.get("calm"):
            self.calm()
        if order.get("forget_events"):
            self.events.clear()
        for knob in _KNOBS:
            setattr(self, knob, order.get(knob, getattr(self, knob)))
        self.will_answer(*(_decoded(play) for play in order.get("answers", ())))
        if "sentences" in order:
            self.extract = _sentences_said if order["sentences"] else said
        for asked, row in order.get("plant", ()):
            self.plant(asked, row)
        if "release" in order:
            self.release(order["release"])

    def _told(self) -> bytes:
        events = [{"id": event.id, "status": event.status} for event in self.events.values()]
        seen = [asdict(request) for request in self.requests]
        told = {"rows": self.rows, "events": events, "seen": seen, "held": self.held}
        return json.dumps(told).encode()


class Mem0Process(StandInProcess):
    """Starts the stand-in, tells it what to do and reads what it was asked and what it keeps.

    An order may set `polls`, `failing`, `half` or `works_s`. With `sentences`, each sentence that
    is said becomes a memory of its own.
    """

    module = "tests.kit.mem0_api.process"

    def will_answer(self, *answers: Mem0Answer) -> None:
        """Add to the script; each request takes the first play that is for it."""
        self.order(answers=[_encoded(play) for play in answers])

    def calm(self) -> None:
        """Drop the rest of the script."""
        self.order(calm=True)

    def plant(self, asked: str, row: Json) -> None:
        """Let every search for one owner give this row as well, whoever owns it."""
        self.order(plant=[(asked, row)])

    def release(self, count: int | None = None) -> None:
        """Let held answers go on."""
        self.order(release=count)

    @property
    def held(self) -> int:
        """How many answers wait for a release."""
        return int(self.order()["held"])

    def rows(self, turn_id: str) -> list[Json]:
        """Return the memories that came from a turn."""
        found: list[Json] = self.order()["rows"]
        return [row for row in found if (row["metadata"] or {}).get("turn_id") == turn_id]

    def seen(self, verb: str) -> list[Json]:
        """Return the requests of one kind: `verb`, `path`, `headers`, `body`."""
        return [request for request in self.order()["seen"] if request["verb"] == verb]

    def adds(self, turn_id: str) -> list[Json]:
        """Return the adds of one turn."""
        return [one for one in self.seen("add") if one["body"]["metadata"]["turn_id"] == turn_id]


def _sentences_said(messages: list[Json]) -> list[str]:
    return [f"{one.strip()}." for text in said(messages) for one in text.split(".") if one.strip()]


def _encoded(play: Mem0Answer) -> Json:
    return asdict(play) | {"cue": play.cue.name if play.cue else None}


def _decoded(play: Json) -> Mem0Answer:
    return Mem0Answer(**play | {"cue": Cue[play["cue"]] if play["cue"] else None})


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port-file", type=Path, required=True, help="where to write the port")
    mem0 = SteeredMem0()
    mem0.works_s = 0.05
    asyncio.run(serve(mem0, parser.parse_args().port_file))


if __name__ == "__main__":
    main()
