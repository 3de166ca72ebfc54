"""Fake producers for tests of code that uses Afterword: no Redis, no network, no waiting.

`FakeProducer` and `FakeAsyncProducer` are a `Producer` and an `AsyncProducer` that keep their jobs
in memory and answer them by a script, on a clock that the test controls.
"""

from __future__ import annotations

from afterword.producer.testing.clock import FakeClock
from afterword.producer.testing.fake_producer import FakeAsyncProducer, FakeProducer
from afterword.producer.testing.script import Answer, Answers, FakeFailure, FakeReply

__all__ = [
    "Answer",
    "Answers",
    "FakeAsyncProducer",
    "FakeClock",
    "FakeFailure",
    "FakeProducer",
    "FakeReply",
]
