"""What an attempt counts: what was told, and of calls that were cut off what had come."""

from __future__ import annotations

from afterword.shared.contracts import Usage
from afterword.workers.rules.token_meter import TokenMeter


def cut_off(*pieces: str, told: int) -> TokenMeter:
    """Return the meter of a call that brought some text, of which so much output was told."""
    meter = TokenMeter()
    meter.begin("m")
    meter.tell(Usage(input=10, output=told))
    for piece in pieces:
        meter.hear(piece)
    return meter


def test_the_output_of_a_call_that_is_cut_off_is_that_of_its_text() -> None:
    assert cut_off("half ", "ä", told=1).unanswered == Usage(input=10, output=3)


def test_what_was_told_counts_if_it_is_more() -> None:
    """A model may have thought before it wrote."""
    assert cut_off("half a", told=50).unanswered == Usage(input=10, output=50)


def test_of_a_provider_that_tells_no_tokens_none_are_counted() -> None:
    meter = TokenMeter()
    meter.begin("m")
    meter.tell(Usage())
    meter.hear("half a")

    assert meter.unanswered == Usage()


def test_of_a_whole_call_only_what_was_told_counts() -> None:
    meter = cut_off("x" * 300, told=1)
    meter.tell(Usage(input=10, output=70))
    meter.end()

    assert meter.unanswered == Usage(input=10, output=70)


def test_each_call_has_its_own_text() -> None:
    meter = cut_off("x" * 30, told=1)
    meter.begin("n")
    meter.tell(Usage(input=5, output=1))

    assert meter.earlier == Usage(input=10, output=10)
    assert meter.calls == [
        ("m", Usage(input=10, output=10)),
        ("n", Usage(input=5, output=1)),
    ]
    meter.hear("y" * 6)
    meter.settle()
    assert meter.unanswered == Usage()
