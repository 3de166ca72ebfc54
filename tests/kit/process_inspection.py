"""What the system says of a process: whether it lives, what it was told, where it listens."""

from __future__ import annotations

from pathlib import Path

_LISTENS = "0A"


def alive(pid: int) -> bool:
    """Return whether the process runs; one that only awaits its burial does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def environment_of(pid: int) -> dict[str, str]:
    """Return the environment that the process was started with."""
    pairs = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(pair.split("=", 1) for pair in pairs if pair)


def listening(pid: int) -> set[tuple[str, int]]:
    """Return the TCP addresses where the process takes connections, e.g. `("127.0.0.1", 80)`."""
    held = {_target(link) for link in Path(f"/proc/{pid}/fd").iterdir()}
    found = set()
    for table in ("tcp", "tcp6"):
        for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            _, address, _, state, *_, inode = row.split()[:10]
            if state == _LISTENS and f"socket:[{inode}]" in held:
                found.add(_address(address))
    return found


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""


def _address(written: str) -> tuple[str, int]:
    host, port = written.split(":")
    if len(host) > len("0100007F"):
        return host, int(port, 16)
    return ".".join(str(byte) for byte in reversed(bytes.fromhex(host))), int(port, 16)


def children(pid: int) -> set[int]:
    """Return the processes that this one has started and that still run."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {int(child) for child in listed if alive(int(child))}


def peak_mb(pid: int) -> float:
    """Return the most memory that a process ever held, in MB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024
