"""Stages what users complain about: a worker of each kind between fakes, on a real ledger."""

from __future__ import annotations

from dataclasses import dataclass, field

from afterword.shared.ledger.ledger import Ledger
from afterword.shared.settings import Settings
from afterword.workers.gate import GateClient
from afterword.workers.leases import Leases
from afterword.workers.replies.model_call import ModelCaller
from afterword.workers.replies.recall import RecallBudget, Recaller
from afterword.workers.replies.respond import Responder
from tests.kit.fakes.model import FakeModel
from tests.kit.ledger.builder import submit_job
from tests.kit.ledger.lane_writer import FailingMemories, LaneWriter


@dataclass
class StagedFleet:
    """A worker of each kind between fakes, on a real ledger."""

    settings: Settings
    ledger: Ledger
    memories: FailingMemories = field(default_factory=FailingMemories)
    budget_s: float = 30.0

    async def answer(self, message: str, **fields: object) -> str:
        """Submit a message and answer it; return its job."""
        settings, gates = self.settings, GateClient(self.ledger.gates)
        await gates.refresh()  # as workers do when they start
        budget = RecallBudget(self.budget_s)
        leases = Leases(self.ledger.jobs.renew_leases, settings.lease_s)
        job_id = await submit_job(self.ledger, message, **fields)
        await Responder(
            settings,
            self.ledger.jobs,
            ModelCaller(settings, FakeModel(), gates),
            Recaller(self.memories, gates, budget=budget, limit=5, least_score=0.0),
            leases,
            b"tag key",
            worker_name="host:1",
        ).respond(job_id)
        return job_id

    async def store(self) -> None:
        """Let a memory worker take Ann's lane once."""
        writer = LaneWriter(self.settings, self.ledger, self.memories)
        await writer.gates.refresh()
        await writer.write()
