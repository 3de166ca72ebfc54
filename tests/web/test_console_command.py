"""What `afterword console` refuses before it listens, and with which exit code."""

from __future__ import annotations

import socket

import pytest

from afterword.shared.settings import Settings
from tests.kit.command_line import Printed, afterword

pytestmark = pytest.mark.redis


def console(settings: Settings, *options: str, **more: str) -> Printed:
    env = {
        "AFTERWORD_REDIS_URL": str(settings.redis_url),
        "AFTERWORD_NAMESPACE": settings.namespace,
        "AFTERWORD_DURABILITY": "none",
    }
    return afterword("console", *options, env=env | more)


def test_a_port_that_is_taken_is_named(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        printed = console(settings, "--listen", address)
    assert printed.code == 2
    assert f"--listen: cannot listen on {address}" in printed.stderr
    assert printed.stdout == ""


@pytest.mark.parametrize(
    "options",
    [
        ("--listen", "0.0.0.0:0"),
        ("--listen", "[::]:0"),
        ("--listen", "127.0.0.1:0", "--require-key"),
        ("--listen", "127.0.0.1:0", "--origin", "https://console.example"),
    ],
    ids=" ".join,
)
def test_where_a_key_is_needed_it_does_not_begin_without_one(
    settings: Settings, options: tuple[str, ...]
) -> None:
    printed = console(settings, *options)
    assert printed.code == 2
    assert "afterword keys create NAME --scope operate" in printed.stderr
    assert printed.stdout == "", "it never listened"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--listen", "9466"), "listen: "),
        (("--listen", "127.0.0.1:99999"), "listen: "),
        (("--origin", "console.example"), "origin: "),
        (("--origin", "https://console.example/pages"), "origin: "),
    ],
)
def test_a_wrong_option_is_named(settings: Settings, options: tuple[str, ...], named: str) -> None:
    printed = console(settings, *options)
    assert printed.code == 2
    assert named in printed.stderr


def test_without_redis_it_ends_with_1(settings: Settings) -> None:
    away = {"AFTERWORD_REDIS_URL": "redis://127.0.0.1:1/0", "AFTERWORD_SUBMIT_TIMEOUT_S": "0.5"}
    printed = console(settings, "--listen", "127.0.0.1:0", **away)
    assert printed.code == 1
    assert "AFTERWORD_REDIS_URL: nothing listens" in printed.stderr
    assert printed.stdout == ""
