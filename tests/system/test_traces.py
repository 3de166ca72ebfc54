"""Real workers send the spans of a job's whole way to a real receiver, and no content."""

from __future__ import annotations

import pytest

from afterword.producer import Producer
from afterword.shared.spans import PROCESS, PUBLISH, RECALL, STORE, WAIT
from afterword.shared.trace_context import context_of
from tests.kit.servers.otlp_receiver import otlp_receiver
from tests.kit.waiting import wait_until
from tests.kit.workers.fleet import CANARY, Fleet

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]

PARENT = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}


def test_a_fleet_sends_the_trace_of_a_job_and_of_its_memory_write() -> None:
    with (
        otlp_receiver() as receiver,
        Fleet(
            AFTERWORD_TRACES="true",
            OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url,
            OTEL_SERVICE_NAME="my-fleet",
            OTEL_BSP_SCHEDULE_DELAY="50",
        ) as fleet,
    ):
        fleet.start("responses", "memories")
        quiet = fleet.settings.model_copy(update={"traces": False})
        with Producer(quiet) as producer:
            producer.submit(
                user_id=f"{CANARY}-user", message=f"I like {CANARY} tea.", trace_context=PARENT
            ).wait(timeout=60)
        wait_until(lambda: receiver.named(STORE), "the write was sent", 60)
        wait_until(lambda: receiver.named(PROCESS), "the attempt was sent", 60)

        (process,), (publish,) = receiver.named(PROCESS), receiver.named(PUBLISH)
        (store,) = receiver.named(STORE)
        caller = context_of(PARENT)
        assert caller is not None
        assert process.trace_id.hex() == caller.trace_id
        assert process.parent_span_id.hex() == caller.span_id
        assert {link.span_id for link in store.links} == {publish.span_id}
        assert {link.trace_id for link in store.links} == {process.trace_id}
        assert receiver.named(WAIT)
        assert receiver.named(RECALL)
        assert [span for span in receiver.spans if span.name.startswith("chat ")]
        assert {one["service.name"] for one in receiver.resources} == {"my-fleet"}
        sent = b"".join(receiver.bodies)
        assert CANARY.encode() not in sent
