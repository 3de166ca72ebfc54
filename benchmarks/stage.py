"""What every design runs on: one Redis, one provider, and who gets which core."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Self

from benchmarks.provider import Pace
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until

_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE_S = 60.0
_MIB = 1024
_AT_ONCE = Pace()


@cache  # a stage keeps this process to one of them: asked after that, they would be one
def cores() -> tuple[int, int]:
    """Return the core of all that stands around, and the core of who is measured."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def _stat(pid: int) -> list[str]:
    """Return what the kernel counts of a process, from its state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU seconds of processes and of their children that have ended."""
    return sum(sum(map(int, _stat(pid)[11:15])) for pid in pids) / _TICKS


def told_by(module: str, *arguments: str, environ: Mapping[str, str] | None = None) -> Any:
    """Return what a program of ours prints, JSON; it has the core of who is measured."""
    argv = ["taskset", "-c", str(cores()[1]), sys.executable, "-m", module, *arguments]
    done = subprocess.run(  # noqa: S603 our own program
        argv, env=os.environ | (environ or {}), check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


class Crew:
    """The process of a design and all its children: on one core, and still unless let go."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        """Start it."""
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify = Path(tempfile.mkdtemp(dir=folder), "notify")
        self._ear.bind(str(notify))
        self._ear.settimeout(0)
        self._log = notify.with_name("log")
        self._started = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 our own programs
                argv, env=os.environ | environ | {"NOTIFY_SOCKET": str(notify)},
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        os.sched_setaffinity(self._process.pid, {cores()[1]})

    def ready_s(self) -> float:
        """Wait until it says that it is ready; return how long that took."""
        wait_until(self._said_ready, "a worker is ready", _PATIENCE_S)
        return time.perf_counter() - self._started

    def check(self) -> None:
        """Fail, with what it said last, if it has ended."""
        assert self._process.poll() is None, self._log.read_text()[-4000:]

    def halt(self) -> None:
        """Let it stand still, so that it costs nothing while it is not its turn."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def go(self) -> None:
        """Let it go on."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def end(self) -> None:
        """Kill it."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_PATIENCE_S)
        self._ear.close()

    @property
    def cpu_s(self) -> float:
        """Return the CPU seconds of its processes, ended ones too, by the kernel's accounting."""
        return cpu_s(self._members())

    @property
    def memory_mib(self) -> float:
        """Return the memory of all its processes, pages that they share counted once."""
        rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self._members()]
        lines = [line for text in rollups for line in text.splitlines() if line.startswith("Pss:")]
        return sum(int(line.split()[1]) for line in lines) / _MIB

    @property
    def peak_mib(self) -> float:
        """Return the most memory that its processes ever had resident, shared pages and all."""
        texts = [Path(f"/proc/{pid}/status").read_text() for pid in self._members()]
        lines = [line for text in texts for line in text.splitlines() if line.startswith("VmHWM:")]
        return sum(int(line.split()[1]) for line in lines) / _MIB

    def _members(self) -> list[int]:
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if self._session(pid) == self._process.pid]

    def _session(self, pid: int) -> int:
        with suppress(FileNotFoundError, ProcessLookupError):
            return int(_stat(pid)[3])
        return 0

    def _said_ready(self) -> bool:
        self.check()
        with suppress(BlockingIOError):
            return b"READY=1" in self._ear.recv(4096)
        return False


class Stage:
    """Starts Redis and the provider on the first core; ends them, and every crew, with itself."""

    def __init__(self, pace: Pace = _AT_ONCE) -> None:
        """Take how long the provider takes to answer."""
        self.valkey = Valkey("--appendonly", "yes", "--databases", "32")
        self._pace = pace
        self._folder = tempfile.TemporaryDirectory(prefix="afterword-bench-")
        self._crews: list[Crew] = []

    @property
    def folder(self) -> Path:
        """Return the folder of everything that a run writes."""
        return Path(self._folder.name)

    @property
    def provider(self) -> str:
        """Return where Claude and mem0 are."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def cpu_s(self) -> float:
        """Return the CPU seconds of Redis and the provider, of whom there is one core in all."""
        return cpu_s([self.valkey.pid, self._server.pid])

    def ask_provider(self, what: str) -> float:
        """Return a figure that the provider knows of itself."""
        with urllib.request.urlopen(f"{self.provider}/_{what}", timeout=10) as answer:  # noqa: S310 ours
            return float(answer.read())

    def redis(self, database: int) -> str:
        """Return the address of one database."""
        return f"redis://127.0.0.1:{self.valkey.port}/{database}"

    def crew(self, argv: Sequence[str], environ: Mapping[str, str]) -> Crew:
        """Start the process of a design."""
        crew = Crew(argv, environ, self.folder)
        self._crews.append(crew)
        return crew

    def __enter__(self) -> Self:
        """Start Redis and the provider."""
        os.sched_setaffinity(0, {cores()[0]})  # children inherit it
        self.valkey.start()
        port = self.folder / "port"
        argv = [sys.executable, "-m", "benchmarks.provider", str(port), self._pace.as_json()]
        self._server = subprocess.Popen(argv)  # noqa: S603 our own program
        wait_until(port.exists, "the provider listens", _PATIENCE_S)
        self._port = port.read_text()
        return self

    def __exit__(self, *_: object) -> None:
        """End everything."""
        for crew in self._crews:
            crew.end()
        self._server.kill()
        self._server.wait()
        self.valkey.stop()
        self._folder.cleanup()
        os.sched_setaffinity(0, set(cores()))
