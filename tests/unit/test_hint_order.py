"""Which hints a worker takes next."""

from __future__ import annotations

from afterword.workers.celery_runtime.hint_order import HintOrder


def test_the_newest_are_taken_by_turns_while_a_backlog_is_held_back_and_never_else() -> None:
    order, backlog = HintOrder(), [True]
    assert [order.takes_newest() for _ in range(3)] == [False, False, False]

    order.watch(lambda: bool(backlog))
    assert [order.takes_newest() for _ in range(5)] == [True, False, True, False, True]

    backlog.clear()
    assert [order.takes_newest() for _ in range(3)] == [False, False, False]
