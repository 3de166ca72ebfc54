"""Requests about a user's memories: asked by a producer, answered by a memory worker."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from afterword.shared.contracts import RECORD_VERSION
from afterword.shared.errors import LeaseLost
from afterword.shared.ledger import memory_steps as steps
from afterword.shared.ledger.records import DuplicateCheck, LaneClaim, json_object, reading
from afterword.shared.ledger.shard import Shards, milliseconds
from afterword.shared.names import Keys, new_memory_request_id

#: What a producer may ask for. Only the last two change anything.
MemoryAction = Literal["list", "search", "show", "edit", "delete"]

#: Most requests of one shard that may have no answer yet.
MAX_OPEN = 1000

#: How long a request, and then its answer, is kept after the time for which somebody waits.
KEPT_S = 60.0

#: Replies that are read at a time, to see which of them were given a memory.
PAGE = 500

#: Most checks for late copies of one shard that are given out at a time.
MAX_DUE = 20


@dataclass(frozen=True, slots=True)
class MemoryRequest:
    """The right to answer one request; somebody waits for the answer for `left_s` seconds."""

    id: str
    fence: str
    lane: str
    action: str
    arguments: Mapping[str, Any]
    left_s: float


class Withdrawal(NamedTuple):
    """What became of a request that was taken back: its answer, if it has one by then.

    Without one, `begun` says whether a worker may carry it out all the same.
    """

    begun: bool
    answer: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Hold:
    """A lane that is held to change memories, and in how many seconds it is due afterwards.

    `oldest` is the turn that it waits for, '' if it is empty.
    """

    claim: LaneClaim
    due_s: float
    oldest: str


class MemoryRequests:
    """Asks, answers and withdraws requests; holds lanes and mends turns for those that change."""

    def __init__(self, shards: Shards) -> None:
        self._shards = shards

    async def ask(
        self, lane: str, action: MemoryAction, arguments: Mapping[str, Any], wait_s: float
    ) -> tuple[str, str]:
        """Ask something about the memories of a lane's user.

        Returns the id of the request and a word: `asked`, `full` or `erasing`.
        """
        keys = self._shards.keys_of(lane)
        request_id = new_memory_request_id(keys.shard)
        word = await self._shards.run_for_word(
            steps.AskAboutMemories(
                id=request_id,
                lane=lane,
                version=RECORD_VERSION,
                action=action,
                arguments=json.dumps(arguments),
                until_ms=milliseconds(wait_s),
                lifetime_ms=milliseconds(wait_s + KEPT_S),
                max_open=MAX_OPEN,
            )
        )
        return request_id, word

    async def answer_to(self, request_id: str) -> Mapping[str, Any] | None:
        """Return the answer to a request, None if there is none yet."""
        key = self._shards.keys_of(request_id).memory_request(request_id)
        return _read(await self._shards.send_command("HGET", key, "answer"))

    async def remind(self, request_id: str) -> None:
        """Have a request hinted again that a worker which knows no requests has taken up."""
        await self._shards.run_for_word(steps.RemindOfMemoryRequest(id=request_id))

    async def withdraw(self, request_id: str) -> Withdrawal:
        """Take a request back; return its answer if there is one by now."""
        keys = self._shards.keys_of(request_id)
        word, *rest = await self._shards.run_script(
            keys, steps.WithdrawMemoryRequest(id=request_id)
        )
        return Withdrawal(word == "begun", _read(rest[0]) if rest else None)

    async def claim(self, request_id: str, token: str) -> MemoryRequest | None:
        """Claim a request; return None if there is nothing to do."""
        arguments = steps.ClaimMemoryRequest(
            id=request_id, token=token, lease_ms=self._lease_ms, known_version=RECORD_VERSION
        )
        match await self._shards.run_script(self._shards.keys_of(request_id), arguments):
            case ["claimed", fence, lane, action, said, left_ms]:
                with reading("memory request"):
                    left_s = int(left_ms) / 1000
                    return MemoryRequest(request_id, fence, lane, action, json_object(said), left_s)
        return None

    async def answer(self, request: MemoryRequest, result: Mapping[str, Any]) -> None:
        """Answer a request, unless nobody waits for it any longer."""
        await self._shards.run_for_word(
            steps.AnswerMemoryRequest(
                id=request.id,
                fence=request.fence,
                result=json.dumps(result),
                lifetime_ms=milliseconds(KEPT_S),
            )
        )

    async def hold(self, lane: str, token: str) -> Hold | Literal["taken", "erasing"]:
        """Hold a lane as a writer does; release it with `Turns.release_lane`."""
        arguments = steps.HoldLane(lane=lane, token=token, lease_ms=self._lease_ms)
        match await self._shards.run_script(self._shards.keys_of(lane), arguments):
            case ["holding", fence, due_ms, oldest]:
                return Hold(LaneClaim(lane, fence, ()), int(due_ms) / 1000, oldest)
            case ["erasing"]:
                return "erasing"
        return "taken"

    async def mend(self, claim: LaneClaim, turn_id: str, memory_ids: Sequence[str]) -> str:
        """Record which memories a turn has now that its user changed some; nobody stores it again.

        Returns `ok`, or why nothing was recorded: `unknown` if the ledger no longer knows the turn,
        `newer` if only a newer version may change the record, `storing` while mem0 works on what it
        has accepted. Raises `LeaseLost`.
        """
        settings = self._shards.settings
        word = await self._shards.run_for_word(
            steps.MendTurn(
                lane=claim.lane,
                fence=claim.fence,
                id=turn_id,
                memory_ids=json.dumps(list(memory_ids)),
                left=bool(memory_ids),
                retention_ms=milliseconds(settings.retention_s),
                story_ms=milliseconds(settings.story_s),
                check_after_ms=milliseconds(settings.repair_s),
                known_version=RECORD_VERSION,
            )
        )
        if word == "lost":
            raise LeaseLost("another worker holds this lane now")
        return word

    async def replies_given(self, lane: str, memory_id: str, most: int) -> Sequence[str]:
        """Return the newest jobs whose reply is still kept and was given a memory."""
        key, end, found = self._shards.keys_of(lane).given(lane), "+", list[str]()
        while True:
            rows = await self._shards.send_command("XREVRANGE", key, end, "-", "COUNT", PAGE)
            for _, row in rows:
                with reading("replies given"):
                    given, job_id = json.loads(row["memories"]), str(row["job"])
                if memory_id in given and await self._has_reply(job_id):
                    found.append(job_id)
            if len(rows) < PAGE or len(found) >= most:
                return found[:most]
            end = f"({rows[-1][0]}"

    async def due_late_copies(self) -> Sequence[DuplicateCheck]:
        """Return mended turns to check for what was added later; each comes back until finished."""
        return [check for keys in self._shards.all for check in await self._due(keys)]

    async def finish_late_copies(self, turn_id: str) -> None:
        """Record that a mended turn has the memories on record, and no others."""
        await self._shards.run_for_word(steps.FinishLateCopies(id=turn_id))

    async def _due(self, keys: Keys) -> Sequence[DuplicateCheck]:
        arguments = steps.ListDueLateCopies(
            limit=MAX_DUE,
            again_ms=milliseconds(self._shards.settings.repair_s),
            known_version=RECORD_VERSION,
        )
        (rows,) = await self._shards.run_script(keys, arguments)
        return [DuplicateCheck(turn, lane, tuple(json.loads(ids))) for turn, lane, ids in rows]

    async def _has_reply(self, job_id: str) -> bool:
        key = self._shards.keys_of(job_id).job(job_id)
        return bool(await self._shards.send_command("HEXISTS", key, "reply"))

    @property
    def _lease_ms(self) -> int:
        return milliseconds(self._shards.settings.lease_s)


def _read(answer: str | None) -> Mapping[str, Any] | None:
    if answer is None:
        return None
    with reading("answer about memories"):
        return json_object(answer)
