"""Lines to Redis and to HTTP servers that count the steps passing over them, and trap one."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import hiredis

from afterword.shared.transport.scripts import script

Phase = Literal["before", "after"]

#: A hint counts when it has been popped, a script when it is sent; other commands do not count.
HINT = "hint"
END_OF_ANSWER = "claude:end"

_LUA = Path(__file__).parents[3] / "shared" / "afterword" / "shared" / "ledger" / "lua"
_STEPS = {str(file.relative_to(_LUA).with_suffix("")) for file in _LUA.glob("*/*.lua")}
_BY_SHA = {script(name).sha: name for name in _STEPS}

#: What a request is called, by the beginning of its head.
_REQUESTS = (
    (re.compile(rb"POST \S*/v1/messages[ ?]"), "claude"),
    (re.compile(rb"POST \S*/v3/memories/search/"), "search"),
    (re.compile(rb"POST \S*/v3/memories/add/"), "add"),
    (re.compile(rb"POST \S*/v3/memories/[ ?]"), "find"),
    (re.compile(rb"GET \S*/v1/event/"), "event"),
    (re.compile(rb"DELETE \S*/v1/memories/"), "remove"),
)
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class TrapPoint:
    """Where to trap: the nth step of that name, before it has its effect or after."""

    name: str
    nth: int
    phase: Phase

    def __str__(self) -> str:
        return f"{self.phase} {self.name} {self.nth}"


class StepProxy:
    """Counts steps over all its lines; at one point it springs the trap, once.

    The trap runs while the step is held. What it returns says whether the step then goes on;
    otherwise its line is cut.
    """

    def __init__(self) -> None:
        self.sprung = threading.Event()
        self._passed: Counter[str] = Counter()
        self._order: list[str] = []
        self._point: TrapPoint | None = None
        self._trap: Callable[[], bool] = lambda: True
        self._lock = threading.Lock()
        self._lines: list[_Connection] = []
        self._servers: list[socket.socket] = []

    def trap(self, point: TrapPoint, spring: Callable[[], bool]) -> None:
        """Set the trap."""
        self._point, self._trap = point, spring

    @property
    def passed(self) -> list[tuple[str, int]]:
        """Return the steps that passed, in order, each with its number among its like."""
        seen: Counter[str] = Counter()
        numbered = []
        for name in self._order:
            seen[name] += 1
            numbered.append((name, seen[name]))
        return numbered

    def seen(self, name: str) -> int:
        """Return how many steps of that name passed."""
        return self._passed[name]

    def redis(self, port: int) -> str:
        """Open a line to a Redis of this machine; return its address."""
        return f"redis://127.0.0.1:{self._serve(port, _RedisConnection)}/0"

    def http(self, url: str) -> str:
        """Open a line to an HTTP server of this machine; return its address."""
        return f"http://127.0.0.1:{self._serve(int(url.rpartition(':')[2]), _HttpConnection)}"

    def count(self, name: str) -> int:
        """Count a step and return its number."""
        with self._lock:
            self._passed[name] += 1
            self._order.append(name)
            return self._passed[name]

    def lets(self, name: str, nth: int, phase: Phase) -> bool:
        """Return whether the step goes on; spring the trap if it is the one."""
        if self._point != TrapPoint(name, nth, phase):
            return True
        self._point = None
        self.sprung.set()
        return self._trap()

    def close(self) -> None:
        """Cut everything."""
        for server in self._servers:
            server.close()
        for line in self._lines:
            line.cut()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _serve(self, port: int, kind: type[_Connection]) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        self._servers.append(server)
        threading.Thread(target=self._accept, args=(server, port, kind), daemon=True).start()
        own: int = server.getsockname()[1]
        return own

    def _accept(self, server: socket.socket, port: int, kind: type[_Connection]) -> None:
        with suppress(OSError):
            while True:
                near, _ = server.accept()
                line = kind(self, near, socket.create_connection(("127.0.0.1", port)))
                self._lines.append(line)
                line.open()


class _Connection:
    """One connection, a thread for each direction."""

    def __init__(self, step_proxy: StepProxy, near: socket.socket, far: socket.socket) -> None:
        self._step_proxy = step_proxy
        self._near = near
        self._far = far
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def open(self) -> None:
        """Begin to pass on."""
        for target in (
            lambda: self._pump(self._near, self._ask),
            lambda: self._pump(self._far, self._answer),
        ):
            threading.Thread(target=target, daemon=True).start()

    def cut(self) -> None:
        """Close both ends."""
        for end in (self._near, self._far):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _pump(self, source: socket.socket, on: Callable[[bytes], bool]) -> None:
        with suppress(OSError):
            while (piece := source.recv(_CHUNK)) and on(piece):
                pass
        self.cut()

    def _ask(self, piece: bytes) -> bool:
        raise NotImplementedError

    def _answer(self, piece: bytes) -> bool:
        raise NotImplementedError


class _RedisConnection(_Connection):
    """Takes requests apart, so that what stood before the trapped one in a pipeline goes on."""

    def __init__(self, step_proxy: StepProxy, near: socket.socket, far: socket.socket) -> None:
        super().__init__(step_proxy, near, far)
        self._requests = hiredis.Reader()
        self._replies = hiredis.Reader()
        self._awaited: deque[tuple[str, int]] = deque()

    def _ask(self, piece: bytes) -> bool:
        self._requests.feed(piece)
        while (command := self._requests.gets()) is not False:
            name = _step_of(command)
            nth = self._step_proxy.count(name) if name not in ("", HINT) else 0
            if not self._step_proxy.lets(name, nth, "before"):
                return False
            self._awaited.append((name, nth))
            self._far.sendall(hiredis.pack_command(tuple(command)))
        return True

    def _answer(self, piece: bytes) -> bool:
        self._replies.feed(piece)
        while (reply := self._replies.gets()) is not False:
            if self._awaited and not self._arrives(*self._awaited.popleft(), reply):
                return False
        self._near.sendall(piece)
        return True

    def _arrives(self, name: str, nth: int, reply: object) -> bool:
        if name == HINT:
            nth = self._step_proxy.count(HINT) if isinstance(reply, list) else 0
        return self._step_proxy.lets(name, nth, "after")


def _step_of(command: list[bytes]) -> str:
    """Return what a command counts as, '' for one that does not."""
    match command[0].upper():
        case b"EVALSHA":
            return _BY_SHA.get(command[1].decode(), "")
        case b"EVAL":
            sha = hashlib.sha1(command[1], usedforsecurity=False).hexdigest()
            return _BY_SHA.get(sha, "")
        case b"BLMPOP":
            return HINT
        case _:
            return ""


class _HttpConnection(_Connection):
    """Knows a request by its head, and that it was done by the first bytes of its answer."""

    def __init__(self, step_proxy: StepProxy, near: socket.socket, far: socket.socket) -> None:
        super().__init__(step_proxy, near, far)
        self._awaited: tuple[str, int] | None = None

    def _ask(self, piece: bytes) -> bool:
        name = next((name for head, name in _REQUESTS if head.match(piece)), None)
        if name is not None:
            nth = self._step_proxy.count(name)
            if not self._step_proxy.lets(name, nth, "before"):
                return False
            self._awaited = (name, nth)
        self._far.sendall(piece)
        return True

    def _answer(self, piece: bytes) -> bool:
        awaited, self._awaited = self._awaited, None
        if awaited is not None and not self._step_proxy.lets(*awaited, "after"):
            return False
        if b"message_stop" in piece and not self._step_proxy.lets(
            END_OF_ANSWER, self._step_proxy.count(END_OF_ANSWER), "before"
        ):
            return False
        self._near.sendall(piece)
        return True
