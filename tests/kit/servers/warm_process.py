"""Imports what programs need, and forks them for all the processes of a test run.

`python -m tests.kit.servers.warm_process FOLDER` listens at `FOLDER/socket`. Every test process
that connects there gets a server of its own, which is forked and ends with the connection; the
whole ends, and removes the folder, when no test process is connected any more.
"""

from __future__ import annotations

import functools
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from afterword.workers.adapters.mem0.import_guard import make_mem0_import_lazy

#: Larger than the arguments and the environment of any program that a test starts.
ORDER_BYTES = 1 << 17

#: What workers, commands and stand-ins import, also those parts that they import late.
_IMPORTED_BY_MOST = (
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.worker.autoscale",
    "celery.worker.components",
    "celery.worker.strategy",
    "celery.app.control",
    "celery.backends.base",
    "afterword.producer.cli.main",
    "afterword.workers.adapters.claude.client",
    "afterword.workers.adapters.mem0.hosted",
    "afterword.workers.adapters.mem0.platform_client",
    "afterword.workers.adapters.mem0.sqlite.recipe",
    "afterword.workers.adapters.mem0.sqlite.embedder",
    "afterword.workers.adapters.mem0.sqlite.store",
    "afterword.workers.celery_runtime.host",
    "afterword.workers.wiring",
    "httpcore2",
    "mem0.memory.main",
    "tests.kit.claude_api.scripted_answers",
    "tests.kit.mem0_api.server",
    "tests.kit.servers.stand_in_process",
)


def _serve_all(folder: Path) -> None:
    """Import what programs need, and fork a server for every test process until all have ended."""
    gc.disable()
    make_mem0_import_lazy()
    for module in _IMPORTED_BY_MOST:
        importlib.import_module(module)
    assert threading.active_count() == 1, "a fork would leave threads behind"
    # Garbage collection in a fork, and its end, would otherwise go through all of that.
    gc.freeze()
    gc.enable()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(folder / "new"))
        listener.listen()
        (folder / "new").rename(folder / "socket")
        servers = [_serve_next(listener)]
        while servers:
            ready, _, _ = select.select([listener.fileno(), *servers], [], [])
            if listener.fileno() in ready:
                servers.append(_serve_next(listener))
            for server in {*servers} & {*ready}:
                os.waitid(os.P_PIDFD, server, os.WEXITED)
                os.close(server)
                servers.remove(server)
    shutil.rmtree(folder)


def _serve_next(listener: socket.socket) -> int:
    """Fork a server for the next test process; return a descriptor that is ready at its end."""
    orders, _ = listener.accept()
    pid = os.fork()
    if pid == 0:
        listener.close()
        _serve(orders, Path(orders.recv(ORDER_BYTES).decode()))
        sys.exit()
    orders.close()
    return os.pidfd_open(pid)


def _serve(orders: socket.socket, folder: Path) -> None:
    """Fork a program for every order, until there are no more."""
    numbers: dict[int, int] = {}
    signal.signal(signal.SIGCHLD, functools.partial(_note_exits, folder, numbers))
    for number in range(sys.maxsize):
        order, streams, _, _ = socket.recv_fds(orders, ORDER_BYTES, 3)
        if not order:
            return
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        pid = os.fork()
        if pid == 0:
            orders.close()
            _become(json.loads(order), streams)
        numbers[pid] = number
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        for stream in streams:
            os.close(stream)
        orders.send(f"{pid} {number}".encode())


def _become(order: dict[str, Any], streams: Sequence[int]) -> None:
    """Become the program: have its streams and its environment, run it and end."""
    for ours, stream in enumerate(streams):
        os.dup2(stream, ours)
        os.close(stream)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    os.execve = _go_on_as  # type: ignore[assignment]
    _go_on_as(sys.executable, [sys.executable, *order["arguments"]], order["env"])


def _go_on_as(path: str, argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Do as `os.execve` does, without importing everything anew."""
    assert path == argv[0] == sys.executable, "only Python can be forked"
    whole = dict(env)  # which may be what is cleared
    os.environ.clear()
    os.environ.update(whole)
    arguments = argv[2:] if argv[1] == "-P" else argv[1:]
    _run(arguments)
    sys.exit()


def _run(arguments: Sequence[str]) -> None:
    """Run a program as the interpreter would that was started with these arguments."""
    match arguments:
        case ["-m", module, *rest]:
            sys.argv = [module, *rest]
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        case ["-c", script, *rest]:
            sys.argv = ["-c", *rest]
            program = sys.modules["__main__"] = ModuleType("__main__")
            exec(script, vars(program))
        case [path, *_]:
            sys.argv = list(arguments)
            sys.path.insert(0, str(Path(path).parent))
            runpy.run_path(path, run_name="__main__")


def _note_exits(folder: Path, numbers: dict[int, int], *_: object) -> None:
    """Write down the exit code of every child that has ended, in a file named by its number."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        number = numbers.pop(pid)
        noted = folder / f"{number}.new"
        noted.write_text(str(os.waitstatus_to_exitcode(status)))
        noted.rename(folder / str(number))


if __name__ == "__main__":
    _serve_all(Path(sys.argv[1]))
