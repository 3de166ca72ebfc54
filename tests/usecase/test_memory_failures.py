"""What becomes of a turn and of its gate, for every error in the tables of when memory fails."""

from __future__ import annotations

import pytest

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import GateState
from afterword.shared.lifecycle import TurnState
from afterword.shared.names import REMEMBER_GATE
from afterword.shared.settings import Settings
from tests.kit.failures.row import FailureRow
from tests.kit.ledger.builder import LedgerInspector, lane_of, submit_and_answer
from tests.kit.ledger.lane_writer import FailingMemories, LaneWriter
from tests.kit.mem0_api.failure_cases import TURN_ERRORS

pytestmark = pytest.mark.redis

#: One row of each kind of error.
KINDS = list({(type(error), error.code): row for row, error in TURN_ERRORS.items()}.values())

#: After how many failures in a row a gate is shut.
SHUT_AFTER = {"shuts": 1, "shuts after five": 5, "stays open": None}


@pytest.mark.parametrize("row", KINDS, ids=lambda row: row.code)
async def test_a_turn_and_its_gate_fare_as_the_table_says(
    settings: Settings, ledger: Ledger, inspector: LedgerInspector, row: FailureRow
) -> None:
    writer = LaneWriter(settings, ledger, FailingMemories())
    writer.memories.fail("add", TURN_ERRORS[row], times=5)
    users = [f"user-{number}" for number in range(5)]
    turns, shut_after = [], None
    for number, user in enumerate(users, 1):
        turns.append(await submit_and_answer(ledger, "I like tea.", user_id=user))
        await writer.write(lane_of(user))
        await writer.gates.flush()
        if shut_after is None and await ledger.gates.not_open():
            shut_after = number

    assert shut_after == SHUT_AFTER[row.gate]
    buried = (await ledger.queries.status(turns[0])).turn is TurnState.DEAD
    assert buried == (row.ends == "a dead letter")
    spent = int(inspector.job(turns[0])["turn_attempts"])
    assert spent == (0 if row.attempts == "none" else 1)

    writer.memories.recover()
    if shut_after is not None:
        inspector.end_pause(REMEMBER_GATE)
    for user in users:
        if inspector.places(lane_of(user)):
            inspector.make_due(lane_of(user))
            await writer.write(lane_of(user))
            await writer.gates.flush()
    if not buried:
        assert (await ledger.queries.status(turns[0])).turn is TurnState.STORED
    assert all(gate.state is GateState.OPENING for gate in await ledger.gates.not_open())
