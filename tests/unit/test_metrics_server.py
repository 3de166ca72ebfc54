"""The endpoint that Prometheus scrapes."""

from __future__ import annotations

import socket
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from pydantic import SecretStr

from afterword.shared.errors import Misconfigured
from afterword.shared.listen_address import ListenAddress
from afterword.shared.metrics_server import new_registry, serving

ANY_PORT = ListenAddress("127.0.0.1", 0)
TOKEN = SecretStr("a-token-of-the-test")


def scrape(
    address: ListenAddress, path: str = "/metrics", method: str = "GET", **headers: str
) -> tuple[int, str, dict[str, str]]:
    """Return the status, the text and the headers of an answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urlopen(Request(f"http://{address}{path}", headers=named, method=method)) as answer:
            return answer.status, answer.read().decode(), dict(answer.headers)
    except HTTPError as error:
        with error:
            return error.code, error.read().decode(), dict(error.headers)


def test_metrics_of_the_process_are_served() -> None:
    with serving(new_registry("TEST"), ANY_PORT, None, "TEST") as address:
        status, text, headers = scrape(address)

    assert (status, headers["Content-Type"].partition(";")[0]) == (200, "text/plain")
    assert "process_cpu_seconds_total" in text


def test_nothing_else_is_served() -> None:
    with serving(new_registry("TEST"), ANY_PORT, None, "TEST") as address:
        assert scrape(address, "/")[0] == 404
        assert scrape(address, "/metrics/x")[0] == 404
        assert scrape(address, method="POST")[0] == 405


@pytest.mark.parametrize(
    "header",
    [
        None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN.get_secret_value()}",
        f"{TOKEN.get_secret_value()}", f"Bearer {TOKEN.get_secret_value()}x", "Bearer \xe9",
    ],
)  # fmt: skip
def test_a_scrape_without_the_token_is_refused(header: str | None) -> None:
    headers = {} if header is None else {"Authorization": header}
    with serving(new_registry("TEST"), ANY_PORT, TOKEN, "TEST") as address:
        status, text, answered = scrape(address, **headers)
        elsewhere, _, _ = scrape(address, "/", **headers)

    assert (status, elsewhere) == (401, 401)
    assert answered["WWW-Authenticate"] == "Bearer"
    assert "process" not in text


def test_a_scrape_with_the_token_is_answered() -> None:
    with serving(new_registry("TEST"), ANY_PORT, TOKEN, "TEST") as address:
        header = f"bearer {TOKEN.get_secret_value()}"
        assert scrape(address, Authorization=header)[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "metrics.example"])
def test_an_address_that_others_can_reach_needs_a_token(host: str) -> None:
    with (
        pytest.raises(Misconfigured, match="AFTERWORD_METRICS_TOKEN"),
        serving(new_registry("TEST"), ListenAddress(host, 0), None, "TEST"),
    ):
        pytest.fail("it is served")


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = ListenAddress("127.0.0.1", taken.getsockname()[1])
        with (
            pytest.raises(Misconfigured, match=f"TEST.*cannot listen on {address}"),
            serving(new_registry("TEST"), address, None, "TEST"),
        ):
            pytest.fail("it is served")


def test_nothing_is_served_after_the_end() -> None:
    with serving(new_registry("TEST"), ANY_PORT, None, "TEST") as address:
        pass

    with socket.socket() as again:
        assert again.connect_ex((address.host, address.port)) != 0
