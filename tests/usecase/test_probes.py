"""Idle canaries: who calls nothing still learns that a provider is back, and only then."""

from __future__ import annotations

import logging
import re

import pytest

from afterword.shared.errors import AccessDenied, NoSuchModel, ProviderError, Rejected, Unavailable
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.ledger.records import CallOutcome, CallReport, GateState
from afterword.shared.names import RECALL_GATE, REMEMBER_GATE
from afterword.workers.background.probes import IDLE_S, UNSEEN, Probes
from afterword.workers.gate import GateClient
from tests.conftest import ROOT
from tests.kit.fakes.memory import FakeMemories
from tests.kit.fakes.model import FakeModel
from tests.kit.ledger.builder import LedgerInspector

pytestmark = [pytest.mark.redis, pytest.mark.finding(23)]

CLAUDE = "claude/m"


class Quiet:
    """A fleet without work: one worker of each kind, and gates that somebody shut before."""

    def __init__(self, ledger: Ledger, inspector: LedgerInspector) -> None:
        self.model, self.memories = FakeModel(), FakeMemories()
        self._ledger, self._inspector = ledger, inspector

    async def shut(self, name: str, code: str = "overloaded", *, idle_s: float = IDLE_S) -> None:
        report = CallReport(CallOutcome.SHUT, code, pause_s=60)
        await self._ledger.gates.report_outcome(name, "t", report)
        key = self._inspector.keys.gate(name)
        self._inspector.redis.hincrby(key, "until", -round((60 + idle_s) * 1000))

    async def probe(self, *, replies: bool = True, writes: bool = True) -> None:
        gates = GateClient(self._ledger.gates)
        model = self.model if replies else None
        await Probes(gates, model, self.memories, writes=writes).refresh_and_test()
        await gates.flush()

    async def states(self) -> dict[str, GateState]:
        return {gate.name: gate.state for gate in await self._ledger.gates.not_open()}


@pytest.fixture
def quiet(ledger: Ledger, inspector: LedgerInspector) -> Quiet:
    return Quiet(ledger, inspector)


@pytest.mark.parametrize("name", [CLAUDE, RECALL_GATE, REMEMBER_GATE])
async def test_a_gate_opens_although_nobody_has_work(
    quiet: Quiet, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    await quiet.shut(name)
    with caplog.at_level(logging.INFO):
        await quiet.probe()

    assert await quiet.states() == {name: GateState.OPENING}
    assert f"gate {name} opens" in caplog.text


async def test_work_that_waits_comes_first(quiet: Quiet) -> None:
    await quiet.shut(CLAUDE, idle_s=IDLE_S / 2)
    await quiet.probe()

    assert quiet.model.checked == []


@pytest.mark.parametrize("code", ["billing", "spend_limit", "store_full", "memory_model_not_found"])
async def test_a_probe_does_not_test_what_a_free_call_cannot_see(quiet: Quiet, code: str) -> None:
    await quiet.shut(CLAUDE, code)
    await quiet.probe()

    assert quiet.model.checked == []
    assert await quiet.states() == {CLAUDE: GateState.SHUT}


def test_the_documents_name_what_a_free_call_cannot_see() -> None:
    page = (ROOT / "docs/how-to/troubleshoot.md").read_text()
    told = page[page.index("It does not after") : page.index("which such a call cannot see")]

    assert set(re.findall(r"`(\w+)`", told)) == UNSEEN


async def test_each_kind_of_worker_tests_what_it_calls(quiet: Quiet) -> None:
    for name in (CLAUDE, RECALL_GATE):
        await quiet.shut(name)
    await quiet.probe(replies=False)
    assert set((await quiet.states()).values()) == {GateState.SHUT}

    await quiet.shut(REMEMBER_GATE)
    await quiet.probe(writes=False)
    assert await quiet.states() == {
        CLAUDE: GateState.OPENING,
        RECALL_GATE: GateState.OPENING,
        REMEMBER_GATE: GateState.SHUT,
    }


@pytest.mark.parametrize(
    ("error", "untested"),
    [(Unavailable("overloaded"), False), (AccessDenied("key_refused"), False),
     (NoSuchModel("model_not_found"), False), (Rejected("http_418"), True)],
)  # fmt: skip
async def test_a_probe_that_fails_lengthens_the_pause_and_a_refused_one_says_nothing(
    quiet: Quiet, ledger: Ledger, error: ProviderError, untested: bool
) -> None:
    await quiet.shut(CLAUDE)
    quiet.model.fails_checks(error)
    await quiet.probe()

    [gate] = await ledger.gates.not_open()
    assert (gate.state, gate.untested_s > 0) == (GateState.SHUT, untested)
