"""The stand-in of mem0's platform in a process of its own, for tests with real workers.

`python -m tests.standins.mem0_remote --port-file F` serves; `RemoteMem0` starts and steers it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from tests.standins.mem0_filters import Json
from tests.standins.mem0_platform import Mem0StandIn
from tests.standins.mem0_plays import Play
from tests.standins.stepserver import Cue, Request, Step, whole
from tests.standins.waiting import wait_until

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
        self.plays(*(_decoded(play) for play in order.get("plays", ())))
        for asked, row in order.get("plant", ()):
            self.plant(asked, row)
        if "release" in order:
            self.release(order["release"])

    def _told(self) -> bytes:
        events = [{"id": event.id, "status": event.status} for event in self.events.values()]
        seen = [asdict(request) for request in self.requests]
        told = {"rows": self.rows, "events": events, "seen": seen, "held": self.held}
        return json.dumps(told).encode()


class RemoteMem0:
    """Starts the stand-in, tells it what to do and reads what it was asked and what it keeps."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="afterword-mem0-")
        self._server: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        port_file = Path(self._folder.name, "port")
        command = [sys.executable, "-m", "tests.standins.mem0_remote"]
        self._server = subprocess.Popen([*command, "--port-file", str(port_file)])
        wait_until(port_file.exists, "the mem0 stand-in listens")
        self.url = f"http://127.0.0.1:{port_file.read_text()}"
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait(timeout=10)
        self._folder.cleanup()

    def plays(self, *plays: Play) -> None:
        """Add to the script; each request takes the first play that is for it."""
        self.order(plays=[_encoded(play) for play in plays])

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

    def order(self, **order: object) -> dict[str, Any]:
        """Set `polls`, `failing`, `half` or `works_s`, or just ask; return all that it knows."""
        request = urllib.request.Request(f"{self.url}/_control", json.dumps(order).encode())
        with urllib.request.urlopen(request, timeout=10) as answer:
            told: dict[str, Any] = json.load(answer)
        return told


def _encoded(play: Play) -> Json:
    return asdict(play) | {"cue": play.cue.name if play.cue else None}


def _decoded(play: Json) -> Play:
    return Play(**play | {"cue": Cue[play["cue"]] if play["cue"] else None})


async def _serve(port_file: Path) -> None:
    mem0 = SteeredMem0()
    mem0.works_s = 0.05
    await mem0.start()
    draft = port_file.with_suffix(".draft")
    draft.write_text(str(mem0.port))
    draft.replace(port_file)  # so that nobody reads half a number
    await asyncio.Event().wait()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--port-file", type=Path, required=True, help="where to write the port")
    asyncio.run(_serve(parser.parse_args().port_file))


if __name__ == "__main__":
    main()
