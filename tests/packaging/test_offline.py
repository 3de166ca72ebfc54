"""Nothing that the tests do, or start, leaves the machine."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

import pytest

from tests.kit.network_guard import sitecustomize as offline

#: An address that is set aside for documentation: nobody has it.
ELSEWHERE = "192.0.2.1"


@pytest.fixture(autouse=True)
def _forgiven(_stays_on_this_machine: None) -> object:
    """Try to leave on purpose, without failing for it."""
    yield
    offline.refused.clear()


def test_a_socket_to_elsewhere_is_refused_and_noted() -> None:
    with socket.socket() as outward, pytest.raises(offline.LeftTheMachineError):
        outward.connect((ELSEWHERE, 80))
    assert offline.refused == [f"socket.connect: '{ELSEWHERE}'"]


def test_a_name_is_not_even_looked_up() -> None:
    with pytest.raises(offline.LeftTheMachineError):
        socket.getaddrinfo("example.invalid", 443)


async def test_the_event_loop_cannot_leave_either() -> None:
    with pytest.raises(offline.LeftTheMachineError):
        await asyncio.open_connection(ELSEWHERE, 80)


async def test_loopback_and_unix_sockets_are_open(tmp_path: object) -> None:
    for server in (
        await asyncio.start_server(lambda *_: None, "127.0.0.1", 0),
        await asyncio.start_unix_server(lambda *_: None, f"{tmp_path}/s"),
    ):
        async with server:
            with socket.socket(server.sockets[0].family) as inward:
                inward.connect(server.sockets[0].getsockname())


def test_a_python_process_of_ours_cannot_leave() -> None:
    leave = f"import socket; socket.create_connection(('{ELSEWHERE}', 80), 1)"
    ended = subprocess.run(
        [sys.executable, "-c", leave], capture_output=True, text=True, check=False
    )
    assert "LeftTheMachineError" in ended.stderr


@pytest.mark.parametrize("prefix", ["AFTERWORD_", "ANTHROPIC_", "OPENAI_"])
def test_no_setting_and_no_key_of_this_machine_is_seen(prefix: str) -> None:
    assert [name for name in os.environ if name.startswith(prefix)] == []
