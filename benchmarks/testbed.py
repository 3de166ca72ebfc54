"""What every design runs on: one Redis, one stand-in of the providers, and a core for each side."""

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

from benchmarks.provider import AnswerTiming
from benchmarks.rate_limit import RateLimit
from tests.kit.servers.valkey import Valkey
from tests.kit.waiting import wait_until

_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE_S = 60.0
_MIB = 1024
_AT_ONCE = AnswerTiming()


@cache  # a stage keeps this process to one of them: asked after that, they would be one
def cores() -> tuple[int, int]:
    """Return the core of Redis, providers and submitter, and the core of the measured process."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[-1]


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat, from the state on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU seconds of processes, and of their children that have ended."""
    return sum(sum(map(int, _stat(pid)[11:15])) for pid in pids) / _TICKS


def run_json(module: str, *arguments: str, environ: Mapping[str, str] | None = None) -> Any:
    """Run a module on the measured core and return the JSON that it prints."""
    argv = ["taskset", "-c", str(cores()[1]), sys.executable, "-m", module, *arguments]
    done = subprocess.run(  # noqa: S603 our own program
        argv, env=os.environ | (environ or {}), check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def start_provider(
    folder: Path, timing: AnswerTiming, limit: RateLimit | None = None
) -> tuple[subprocess.Popen[bytes], str]:
    """Start the stand-in of the providers; return its process, and its port once it listens."""
    port = folder / "port"
    argv = [sys.executable, "-m", "benchmarks.provider", str(port), timing.as_json()]
    server = subprocess.Popen(argv + ([limit.as_json()] if limit else []))  # noqa: S603 our own
    wait_until(port.exists, "the stand-in of the providers listens", _PATIENCE_S)
    return server, port.read_text()


class MeasuredProcess:
    """The process of a design and its children: on one core, paused while others are measured."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        self._notify_socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify = Path(tempfile.mkdtemp(dir=folder), "notify")
        self._notify_socket.bind(str(notify))
        self._notify_socket.settimeout(0)
        self._log = notify.with_name("log")
        self._started = time.perf_counter()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 our own programs
                argv, env=os.environ | environ | {"NOTIFY_SOCKET": str(notify)},
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        os.sched_setaffinity(self._process.pid, {cores()[1]})

    def wait_until_ready(self) -> float:
        """Wait until it reports that it is ready, as to systemd; return the seconds that took."""
        wait_until(self._reported_ready, "a worker is ready", _PATIENCE_S)
        return time.perf_counter() - self._started

    def assert_running(self) -> None:
        """Fail with the end of its log if it has ended."""
        assert self._process.poll() is None, self._log.read_text()[-4000:]

    def pause(self) -> None:
        """Stop it with SIGSTOP: it takes no CPU while another design is measured."""
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it continue."""
        os.killpg(self._process.pid, signal.SIGCONT)

    def kill(self) -> None:
        """Kill it and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_PATIENCE_S)
        self._notify_socket.close()

    @property
    def cpu_s(self) -> float:
        """Return the CPU seconds of its processes, ended children included."""
        return cpu_s(self._members())

    @property
    def memory_mib(self) -> float:
        """Return the memory of all its processes; shared pages count once."""
        rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self._members()]
        lines = [line for text in rollups for line in text.splitlines() if line.startswith("Pss:")]
        return sum(int(line.split()[1]) for line in lines) / _MIB

    @property
    def peak_mib(self) -> float:
        """Return the peak resident memory of its processes, shared pages included."""
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

    def _reported_ready(self) -> bool:
        self.assert_running()
        with suppress(BlockingIOError):
            return b"READY=1" in self._notify_socket.recv(4096)
        return False


class Testbed:
    """Redis and the providers' stand-in on the first core, and the processes that are measured."""

    def __init__(self, timing: AnswerTiming = _AT_ONCE, limit: RateLimit | None = None) -> None:
        self.valkey = Valkey("--appendonly", "yes", "--databases", "32")
        self._timing = timing
        self._limit = limit
        self._folder = tempfile.TemporaryDirectory(prefix="afterword-bench-")
        self._processes: list[MeasuredProcess] = []

    @property
    def folder(self) -> Path:
        """Return the folder that a run writes to."""
        return Path(self._folder.name)

    @property
    def provider(self) -> str:
        """Return the base URL of Claude and mem0."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def cpu_s(self) -> float:
        """Return the CPU seconds of Redis and the stand-in, which share one core."""
        return cpu_s([self.valkey.pid, self._server.pid])

    def ask_provider(self, what: str) -> float:
        """Return a figure of the stand-in: `late` or `adds`."""
        with urllib.request.urlopen(f"{self.provider}/_{what}", timeout=10) as answer:  # noqa: S310 ours
            return float(answer.read())

    def redis(self, database: int) -> str:
        """Return the URL of one database."""
        return f"redis://127.0.0.1:{self.valkey.port}/{database}"

    def start(self, argv: Sequence[str], environ: Mapping[str, str]) -> MeasuredProcess:
        """Start the process of a design."""
        process = MeasuredProcess(argv, environ, self.folder)
        self._processes.append(process)
        return process

    def __enter__(self) -> Self:
        """Start Redis and the stand-in."""
        os.sched_setaffinity(0, {cores()[0]})  # children inherit it
        self.valkey.start()
        self._server, self._port = start_provider(self.folder, self._timing, self._limit)
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything."""
        for process in self._processes:
            process.kill()
        self._server.kill()
        self._server.wait()
        self.valkey.stop()
        self._folder.cleanup()
        os.sched_setaffinity(0, set(cores()))
