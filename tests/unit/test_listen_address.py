"""Addresses to listen on."""

from __future__ import annotations

import pytest

from afterword.shared.listen_address import ListenAddress


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:9464", "127.0.0.1", 9464, True),
        ("127.8.8.8:0", "127.8.8.8", 0, True),
        ("localhost:1", "localhost", 1, True),
        ("[::1]:9464", "::1", 9464, True),
        ("0.0.0.0:9464", "0.0.0.0", 9464, False),
        ("[::]:65535", "::", 65535, False),
        ("10.0.0.7:80", "10.0.0.7", 80, False),
        ("metrics.example:80", "metrics.example", 80, False),
        ("localhost.example:80", "localhost.example", 80, False),
    ],
)
def test_an_address_is_read(text: str, host: str, port: int, loopback: bool) -> None:
    address = ListenAddress.parse(text)

    assert (address.host, address.port) == (host, port)
    assert address.is_loopback is loopback
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "9464", ":9464", "localhost", "localhost:", "localhost:-1", "localhost:+1",
        "localhost:65536", "localhost:9e3", "localhost:٣", "::1:9464", "[]:1", "a b:1x",
    ],
)  # fmt: skip
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        ListenAddress.parse(text)


def test_the_next_port_is_of_the_same_host() -> None:
    assert str(ListenAddress.parse("[::1]:9464").shifted(1)) == "[::1]:9465"
    assert ListenAddress.parse("127.0.0.1:0").shifted(1).port == 0
    with pytest.raises(ValueError, match="must leave room"):
        ListenAddress.parse("127.0.0.1:65535").shifted(1)
