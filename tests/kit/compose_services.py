"""The services of the compose file as processes of this machine, as the file says to run them.

What a container has and a process has not is put in its place: names of hosts become loopback,
absolute folders become temporary ones, and programs of images come from the test environment.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

from afterword.workers.local_stack.valkey import find_binary
from tests.kit.compose_file import document, environment, interpolated, seconds
from tests.kit.servers.fork_server import COMMAND, ForkedProcess, shared_fork_server
from tests.kit.servers.valkey import free_port, release_port
from tests.kit.waiting import wait_until

_PATIENCE_S = 60.0

#: The one command of `valkey-cli` that a health check uses.
_PROGRAMS = {
    "valkey-cli": (
        "import os, sys, redis; assert sys.argv[1:] == ['ping']; "
        "answer = redis.Redis(port=int(os.environ['TEST_PORT']), "
        "password=os.environ['REDISCLI_AUTH']).ping(); print('PONG' if answer else answer)"
    ),
}


Process = subprocess.Popen[bytes] | ForkedProcess


class ComposeServices:
    """Starts, checks and stops services; a context manager that leaves nothing behind."""

    def __init__(self, **given: str) -> None:
        """Take what an operator has in `.env`."""
        self._given = given
        self._folder = tempfile.TemporaryDirectory(prefix="afterword-composed-")
        self._port = free_port()
        self._file: dict[str, Any] = interpolated(document(), given)
        self._running: list[Process] = []
        self._equip()

    @property
    def port(self) -> int:
        """Return where Redis is on loopback."""
        return self._port

    def variables(self, name: str) -> dict[str, str]:
        """Return what a service is told, with hosts of this machine."""
        told = environment(self._file["services"][name], self._given)
        here = f"@127.0.0.1:{self._port}"
        found = {key: value.replace("@redis:6379", here) for key, value in told.items()}
        if "AFTERWORD_STATE_DIR" in found:
            found["AFTERWORD_STATE_DIR"] = f"{self._folder.name}/state"
        return found

    def up(self, name: str, *, scale: int = 1) -> list[Process]:
        """Start some more of a service, with the file's own command."""
        started = [self._start(name) for _ in range(scale)]
        self._running += started
        return started

    def healthy(self, name: str) -> bool:
        """Run a service's own health check once."""
        how, *test = self._file["services"][name]["healthcheck"]["test"]
        if test[0] == "afterword":
            return self._afterword(name, *test[1:]).returncode == 0
        argv = test if how == "CMD" else ["sh", "-c", *test]
        env = self._environment(name)
        return subprocess.run(argv, env=env, capture_output=True, check=False).returncode == 0

    def sweeping(self) -> list[str]:
        """Return the queues of the workers that sweep, one for each worker, sorted."""
        ended = self._afterword("responses", "status", "--json")
        ended.check_returncode()
        return sorted(worker["queue"] for worker in json.loads(ended.stdout)["workers"])

    def wait_healthy(self, name: str) -> None:
        """Wait until its health check succeeds; fail if one of the processes ends instead."""

        def check() -> bool:
            assert all(one.poll() is None for one in self._running), self.log
            return self.healthy(name)

        wait_until(check, f"{name} is healthy", _PATIENCE_S, every_s=0.2)

    def down(self, name: str, *processes: Process) -> list[int]:
        """Stop processes by the file's signal; fail if its grace period is not enough."""
        service = self._file["services"][name]
        for process in processes:
            process.send_signal(signal.Signals[service["stop_signal"]])
        self._running = [one for one in self._running if one not in processes]
        return [process.wait(seconds(service["stop_grace_period"])) for process in processes]

    @property
    def log(self) -> str:
        """Return what they all said until now."""
        return Path(self._folder.name, "log").read_text()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.kill()
            process.wait(_PATIENCE_S)
        release_port(self._port)
        self._folder.cleanup()

    def _equip(self) -> None:
        programs = Path(self._folder.name, "bin")
        programs.mkdir()
        for name, program in _PROGRAMS.items():
            (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}" "$@"\n')
            (programs / name).chmod(0o755)
        (programs / "valkey-server").symlink_to(find_binary())
        Path(self._folder.name, "data").mkdir()

    def _start(self, name: str) -> Process:
        command = list(self._file["services"][name]["command"])
        if name == "redis":
            command = [part.replace("/data", f"{self._folder.name}/data") for part in command]
            command += ["--port", str(self._port), "--bind", "127.0.0.1"]
        env = self._environment(name)
        with Path(self._folder.name, "log").open("ab") as log:
            if name == "redis":
                return subprocess.Popen(command, env=env, stdout=log, stderr=log)
            # The image's entry point is `afterword`.
            return shared_fork_server().fork([*COMMAND, *command], env, stdout=log, stderr=log)

    def _afterword(self, name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [*COMMAND, *arguments]
        return shared_fork_server().run(argv, self._environment(name), None, _PATIENCE_S)

    def _environment(self, name: str) -> dict[str, str]:
        path = f"{self._folder.name}/bin{os.pathsep}{os.environ['PATH']}"
        return os.environ | self.variables(name) | {"PATH": path, "TEST_PORT": str(self._port)}
