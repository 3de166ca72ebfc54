"""A stack with stand-ins for its workers: `python -m tests.kit.workers.stub_stack --client FD`.

A stand-in says that it is ready, waits for its end, and then writes `<queue>.end`: whether
Valkey was still there. A file `<queue>.broken` in the data folder makes it end at once, with
code 3.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from afterword.workers.sd_notify import notify_ready

SUPERVISOR = (sys.executable, "-P", "-m", "tests.kit.workers.stub_stack")


def standin(queue: str) -> tuple[str, ...]:
    """Return the command line of the stand-in for one worker."""
    return (sys.executable, "-P", "-m", "tests.kit.workers.stub_stack", "--queue", queue)


def _work(queue: str) -> None:
    folder = Path(os.environ["AFTERWORD_DATA_DIR"])
    if (folder / f"{queue}.broken").exists():
        sys.exit(3)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    notify_ready()
    signal.sigwait({signal.SIGTERM})
    (folder / f"{queue}.end").write_text(_ping())


def _ping() -> str:
    url = os.environ.get("AFTERWORD_REDIS_URL")
    if url is None:
        return "no Valkey"
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(unquote(urlsplit(url).path))
        client.sendall(b"PING\r\n")
        return "Valkey answers" if client.recv(100) == b"+PONG\r\n" else "Valkey is gone"


if __name__ == "__main__":
    if "--queue" in sys.argv:
        _work(sys.argv[-1])
    else:
        # Not imported by the stand-ins, of which the tests start dozens.
        from afterword.workers.local_stack.supervisor import main

        main(standin)
