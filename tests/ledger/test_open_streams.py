"""Streams that are still open when their producer closes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from afterword.producer import Producer
from afterword.shared.settings import Settings

if TYPE_CHECKING:
    from tests.kit.servers.valkey import Valkey


def test_a_stream_that_was_left_open_ends_quietly_after_its_producer(
    valkey: Valkey, namespace: str
) -> None:
    settings = Settings.load(
        {
            "AFTERWORD_REDIS_URL": valkey.url,
            "AFTERWORD_NAMESPACE": namespace,
            "AFTERWORD_DURABILITY": "none",
        }
    )
    with Producer(settings) as producer:
        job = producer.submit(user_id="ann", message="Hello!")
        job.cancel()
        events = job.stream()
        assert next(events).type == "failed"
    events.close()
    assert list(events) == []
