"""The Celery app finds its broker and is not led astray."""

from __future__ import annotations

import pytest
from celery import current_app
from kombu import Connection

from afterword.shared.broker import broker_address, make_app
from afterword.shared.errors import Misconfigured
from afterword.shared.names import MEMORIES, REPLIES
from afterword.shared.settings import Settings

ADDRESSES = {
    "redis://localhost": "redis://localhost/0",
    "redis://:p%40w@host:6380/3": "redis://:p%40w@host:6380/3",
    "redis://host/1?db=4": "redis://host/4",
    "redis://[::1]:6380/2": "redis://[::1]:6380/2",
    "rediss://host/2": "rediss://host/2?ssl_cert_reqs=required",
    "rediss://host?ssl_cert_reqs=none": "rediss://host/0?ssl_cert_reqs=none",
    "rediss://host?ssl_ca_certs=%2Fca.pem": (
        "rediss://host/0?ssl_ca_certs=%2Fca.pem&ssl_cert_reqs=required"
    ),
    "unix:///run/valkey.sock": "redis+socket:///run/valkey.sock?virtual_host=0",
    "unix:///run/v.sock?db=2": "redis+socket:///run/v.sock?virtual_host=2",
    "unix://:p%2Fw@/run/v.sock": "redis+socket://:p%2Fw@/run/v.sock?virtual_host=0",
    "unix:///run/v.sock?username=u&password=p%2Fw": (
        "redis+socket://u:p%2Fw@/run/v.sock?virtual_host=0"
    ),
}


@pytest.mark.parametrize(("ours", "theirs"), ADDRESSES.items())
def test_redis_py_s_addresses_become_kombu_s(ours: str, theirs: str) -> None:
    assert broker_address(Settings(redis_url=ours)) == theirs
    Connection(theirs)


def test_a_broker_of_its_own_wins() -> None:
    settings = Settings(redis_url="redis://ledger", broker_url="redis://hints/1")
    assert broker_address(settings) == "redis://hints/1"


def test_no_broker_is_a_misconfiguration() -> None:
    with pytest.raises(Misconfigured, match="AFTERWORD_REDIS_URL"):
        make_app(Settings())


def test_celery_variables_of_another_app_are_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CELERY_BROKER_URL", "redis://theirs/9")
    monkeypatch.setenv("CELERY_RESULT_BACKEND", "redis://theirs/9")
    app = make_app(Settings(redis_url="redis://ours/1"))
    assert app.connection_for_read().hostname == "ours"
    assert app.connection_for_write().hostname == "ours"
    assert app.backend.as_uri() == "disabled://"


def test_a_second_app_does_not_become_the_default() -> None:
    app = make_app(Settings(redis_url="redis://ours"))
    assert current_app.main != app.main


def test_both_queues_need_no_bindings() -> None:
    queues = make_app(Settings(redis_url="redis://ours")).amqp.queues
    assert {name: queue.exchange.name for name, queue in queues.items()} == {
        REPLIES: "", MEMORIES: ""
    }  # fmt: skip


def test_another_namespace_has_queues_of_its_own() -> None:
    app = make_app(Settings(redis_url="redis://ours", namespace="blue"))
    assert app.conf.broker_transport_options["global_keyprefix"] == "blue:"
