"""`python -m tests.faults.plants`: take each mechanism out, and see that a test turns red.

Each bug is planted in a copy of the tree, never in the tree itself. A plant names the promise that
it breaks, the text that it replaces and the test that must fail; the list is shown in
`docs/explanation/guarantees.md`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT, ROOTS

LUA = "shared/afterword/shared/ledger/lua"
_PACKAGES = ("producer", "shared", "workers", "tests", "docs", "benchmarks", "deploy")
_LONGEST_S = 300

#: What pytest ends with; anything else is an accident.
_PASSED, _FAILED = 0, 1


@dataclass(frozen=True)
class Plant:
    """One mechanism taken out: in `file`, `old` becomes `new`; then `test` must fail."""

    promise: str
    name: str
    file: str
    old: str
    new: str
    test: str


PLANTS = (
    Plant(
        "I1", "no deadline in the sweep", f"{LUA}/maintenance/sweep.lua",
        "for _, id in ipairs(due(OPEN, now)) do expire(id) end",
        "", "tests/ledger/test_sweep.py",
    ),
    Plant(
        "I1", "attempts are not limited", f"{LUA}/job/claim.lua",
        "if tonumber(job.attempts) >= max_attempts then",
        "if false then", "tests/ledger/test_claim.py",
    ),
    Plant(
        "I2", "no fence on a job", f"{LUA}/_lib.lua",
        "return job[1] == 'running' and job[2] == fence",
        "return job[1] == 'running'", "tests/ledger/test_claim.py",
    ),
    Plant(
        "I3", "what is not to be remembered is stored", "shared/afterword/shared/ledger/jobs.py",
        "return request.remember and ",
        "return ", "tests/ledger/test_submit.py",
    ),
    Plant(
        "I3", "what a stopped job said expires before it is stored", f"{LUA}/_lib.lua",
        "if job[5] ~= 'pending' then retain(id, retention_ms) end",
        "retain(id, retention_ms)", "tests/ledger/test_events.py",
    ),
    Plant(
        "I9", "a message of a burst that is sent again is joined again", f"{LUA}/job/submit.lua",
        "if joined then return answer('same', joined) end",
        "", "tests/ledger/test_conversations.py",
    ),
    Plant(
        "I2", "a message joins a reply that can be read", f"{LUA}/job/submit.lua",
        "return last and last[2][2] ~= 'delta'",
        "return true", "tests/ledger/test_conversations.py",
    ),
    Plant(
        "I1", "news of an earlier attempt end a later one", "workers/afterword/workers/leases.py",
        'if held is not None and fence in ("", held.fence):',
        "if held is not None:", "tests/usecase/test_leases.py",
    ),
    Plant(
        "I9", "a past turn is imported twice", f"{LUA}/turn/import.lua",
        "redis.call('SISMEMBER', imported_key(lane), key) == 1",
        "false", "tests/ledger/test_imports.py",
    ),
    Plant(
        "I10", "an import fills the lanes", f"{LUA}/turn/import.lua",
        "if (waiting[1] or 0) + (waiting[2] or 0) >= limit then",
        "if false then", "tests/ledger/test_imports.py",
    ),
    Plant(
        "I12", "an erasure leaves what was imported", "shared/afterword/shared/ledger/erasures.py",
        "(Keys.conversation, Keys.usage, Keys.imported, Keys.given, Keys.user_jobs)",
        "(Keys.conversation, Keys.usage, Keys.given, Keys.user_jobs)",
        "tests/ledger/test_imports.py",
    ),
    Plant(
        "I12", "an erasure leaves the list of a user's jobs",
        "shared/afterword/shared/ledger/erasures.py",
        "(Keys.conversation, Keys.usage, Keys.imported, Keys.given, Keys.user_jobs)",
        "(Keys.conversation, Keys.usage, Keys.imported, Keys.given)",
        "tests/ledger/test_erasures.py",
    ),
    Plant(
        "I10", "a story grows without bounds", f"{LUA}/_lib.lua",
        "if #story + #step > MOST_STORY then",
        "if false then", "tests/ledger/test_stories.py",
    ),
    Plant(
        "I12", "a retry stores again what its user has deleted", f"{LUA}/turn/mend.lua",
        "if OPEN_TURN[turn] then",
        "if false then", "tests/usecase/test_memory_requests.py",
    ),
    Plant(
        "I12", "nobody looks for late copies of what was deleted", f"{LUA}/turn/mend.lua",
        "redis.call('ZADD', LATE_COPIES, now + check_after_ms, id)",
        "", "tests/usecase/test_memory_requests.py",
    ),
    Plant(
        "I4", "a writer does not leave its lane to a change that waits", f"{LUA}/turn/claim.lua",
        "if not mine and redis.call('EXISTS', mending_key(lane)) == 1 then",
        "if false then", "tests/usecase/test_memory_requests.py",
    ),
    Plant(
        "I5", "the memory of another is answered",
        "workers/afterword/workers/memories/requests.py",
        "for one in found if one.owner == owner)",
        "for one in found)", "tests/usecase/test_memory_requests.py",
    ),
    Plant(
        "I4", "a history has the order in which jobs ended",
        "shared/afterword/shared/ledger/past_turns.py",
        "sorted(placed, key=itemgetter(0))",
        "placed", "tests/ledger/test_conversations.py",
    ),
    Plant(
        "I13", "an older worker takes a turn without a reply", f"{LUA}/_lib.lua",
        "redis.call('HSET', job_key(id), 'version', math.max(job[8], UNANSWERED_VERSION))",
        "", "tests/ledger/test_two_builds.py",
    ),
    Plant(
        "I13", "an older worker takes what it cannot read", "shared/afterword/shared/contracts.py",
        "return RECORD_VERSION if is_newer else OLDEST_VERSION",
        "return OLDEST_VERSION", "tests/ledger/test_two_builds.py",
    ),
    Plant(
        "I2", "a delta that is sent twice appears twice", f"{LUA}/job/delta.lua",
        "if not last or last[1] ~= event then",
        "if true then", "tests/ledger/test_events.py",
    ),
    Plant(
        "I2", "a stream does not say what was recalled", f"{LUA}/_lib.lua",
        "if recalled == '' then return ... end",
        "if true then return ... end", "tests/ledger/test_events.py",
    ),
    Plant(
        "I2", "a stream that is resumed says again what was recalled",
        "shared/afterword/shared/ledger/queries.py",
        " and (recalled := _recalled(job_id, event_id, row)).id != after:",
        " and (recalled := _recalled(job_id, event_id, row)):", "tests/ledger/test_events.py",
    ),
    Plant(
        "I2", "a broken count costs a reply that was paid for",
        "workers/afterword/workers/adapters/claude/reported.py",
        "        self.dropped.append(ours or name)\n        return None",
        "        raise ValueError(name)",
        "tests/fuzz/test_claude_events.py",
    ),
    Plant(
        "I2", "a pair that is cut between two deltas is refused",
        "workers/afterword/workers/adapters/claude/events.py",
        "return json.loads(line)", "return None", "tests/unit/test_claude_events.py",
    ),
    Plant(
        "I3", "a reply says that its turn is queued, and it has none",
        "workers/afterword/workers/replies/respond.py",
        "memory=prepared.claim.remembered and ",
        "memory=", "tests/usecase/test_respond.py",
    ),
    Plant(
        "I3", "a message that only asks is sent to memory",
        "workers/afterword/workers/rules/remembering.py",
        "if is_question_only(message, says_more=not pleasantries):",
        "if False:", "tests/usecase/test_respond.py",
    ),
    Plant(
        "I3", "a question for something of the user is sent to memory",
        "workers/afterword/workers/rules/questions.py",
        "if own is None or self.advice.search(clause):",
        "if True:", "tests/unit/test_relevance.py",
    ),
    Plant(
        "I3", "what is said beside such a question is lost",
        "workers/afterword/workers/rules/questions.py",
        'return clause if self.adds.search(clause, asked) else ""',
        'return ""', "tests/unit/test_relevance.py",
    ),
    Plant(
        "I3", "a message that only asks for work is sent to memory",
        "workers/afterword/workers/rules/remembering.py",
        "if not pleasantries and is_request_only(message):",
        "if False:", "tests/usecase/test_respond.py",
    ),
    Plant(
        "I3", "a message that asks to forget something is sent to memory",
        "workers/afterword/workers/rules/remembering.py",
        "if asks_to_forget(message):", "if False:", "tests/unit/test_forgetting.py",
    ),
    Plant(
        "I3", "the turn is put into its lane outside the script", f"{LUA}/job/finish.lua",
        "  set_turn_state(id, tenant, 'awaited', 'pending')\n",
        "", "tests/ledger/test_lanes.py",
    ),
    Plant(
        "I3", "a turn that may be stored twice is not checked again", f"{LUA}/turn/settle.lua",
        "redis.call('ZADD', DUPLICATE_CHECKS, now + check_after_ms, id)",
        "", "tests/usecase/test_deduplicator.py",
    ),
    Plant(
        "I3", "an inconsistency is not found", f"{LUA}/maintenance/inconsistencies.lua",
        "if not in_lane(job.lane, id) then\n    report(id, 'not_in_lane'",
        "if false then\n    report(id, 'not_in_lane'", "tests/ledger/test_inconsistencies.py",
    ),
    Plant(
        "I4", "no fence on a lane", f"{LUA}/_lib.lua",
        "return redis.call('HGET', FENCES, lane) == fence end",
        "return true end", "tests/ledger/test_lanes.py",
    ),
    Plant(
        "I4", "a conversation runs two jobs at once", f"{LUA}/job/claim.lua",
        "if set_aside(job.id, agenda, job.conversation, job.sequence) then",
        "if false then", "tests/ledger/test_conversations.py",
    ),
    Plant(
        "I10", "a hint serves whom it names", f"{LUA}/job/claim.lua",
        "local chosen, its_limits, next_at, contended = fairest(agenda, named, limits)",
        "local chosen, its_limits = named, limits", "tests/ledger/test_fair_shares.py",
    ),
    Plant(
        "I10", "a tenant's cap is one of each shard", f"{LUA}/job/claim.lua",
        "  if most > 0 and shards > 1 then most = cap_part(job.tenant, most, shards) end\n",
        "", "tests/ledger/test_running_caps.py",
    ),
    Plant(
        "I10", "a balance gives away what still runs",
        "shared/afterword/shared/ledger/cap_parts.py",
        "return max(self.part, self.running)",
        "return self.part", "tests/ledger/test_running_caps.py",
    ),
    Plant(
        "I10", "nobody is let in when a job ends", f"{LUA}/_lib.lua",
        "if from == 'running' then stopped_running(id, tenant) end",
        "", "tests/ledger/test_running_caps.py",
    ),
    Plant(
        "I10", "a tenant's budget is one of each shard", f"{LUA}/_lib.lua",
        " + (redis.call('GET', key .. '/elsewhere') or 0) end",
        " + 0 end", "tests/ledger/test_budgets.py",
    ),
    Plant(
        "I10", "a shard that was passed over waits for all hints before its own",
        "workers/afterword/workers/replies/shard_turns.py",
        "            await self._look(due, agenda)\n",
        "            pass\n", "tests/ledger/test_shard_turns.py",
    ),
    Plant(
        "I10", "a hint that is sent ahead makes all before it count as lost",
        f"{LUA}/job/hint_next.lua",
        "redis.call('ZADD', place_key('hinted', agenda), front, id)\n",
        "", "tests/ledger/test_shard_turns.py",
    ),
    Plant(
        "I10", "what a lost attempt used is counted by nobody", f"{LUA}/job/claim.lua",
        "local is_lost = job.token and job.token ~= token",
        "local is_lost = false", "tests/usecase/test_tokens_without_reply.py",
    ),
    Plant(
        "I10", "what the last attempt of a job used is lost with its worker", f"{LUA}/_lib.lua",
        "  watch_attempt(id)\n", "", "tests/usecase/test_tokens_without_reply.py",
    ),
    Plant(
        "I10", "what a lost attempt used is forgotten when a message is joined",
        f"{LUA}/job/submit.lua", "  watch_attempt(other, other .. ' ' .. job[4])\n", "",
        "tests/usecase/test_tokens_without_reply.py",
    ),
    Plant(
        "I10", "who spends while other shards are told is forgotten",
        f"{LUA}/maintenance/forget_spenders.lua",
        "<= tonumber(one.when) then", "<= math.huge then", "tests/ledger/test_budgets.py",
    ),
    Plant(
        "I12", "a message batch that was not deleted is forgotten",
        f"{LUA}/message_batch/close.lua",
        "if kept then return answer('ok') end\n", "", "tests/usecase/test_message_batches.py",
    ),
    Plant(
        "I10", "what a lost writer paid for facts is counted by nobody", f"{LUA}/_lib.lua",
        "local times = 1 + (redis.call('HGET', job_key(id), 'extraction:lost') or 0)",
        "local times = 1", "tests/ledger/test_extraction_cost.py",
    ),
    Plant(
        "I10", "a job whose hint was used up seems to have come with another's",
        f"{LUA}/maintenance/overview.lua",
        "  look(displaced, hinted, true)\n",
        "", "tests/ledger/test_fair_shares.py",
    ),
    Plant(
        "I3", "settling a batch settles only one turn", f"{LUA}/turn/settle.lua",
        "for _, each in ipairs(batch) do",
        "for _, each in ipairs({ id }) do", "tests/ledger/test_turn_batches.py",
    ),
    Plant(
        "I3", "a batch that was begun is regrouped", f"{LUA}/turn/begin.lua",
        "if turn[5] and turn[5] ~= batch then return answer('regrouped') end",
        "", "tests/ledger/test_turn_batches.py",
    ),
    Plant(
        "I3", "a turn goes into two message batches", f"{LUA}/message_batch/open.lua",
        "and (not other or other == batch) ",
        "", "tests/ledger/test_message_batches.py",
    ),
    Plant(
        "I3", "a turn is extracted while it waits for a message batch", f"{LUA}/turn/claim.lua",
        "return not held and not batched and",
        "return not held and", "tests/ledger/test_message_batches.py",
    ),
    Plant(
        "I3", "a message batch that was not heard of is not looked for",
        "workers/afterword/workers/memories/message_batches.py",
        "        if ours:\n            await self._batches.note(batch.name, ours[0]",
        "        if False:\n            await self._batches.note(batch.name, ours[0]",
        "tests/usecase/test_message_batches.py",
    ),
    Plant(
        "I14", "turns of a message batch wait for as long as a provider says",
        "workers/afterword/workers/memories/message_batches.py",
        "return min(error.retry_after_s or 0.0, LONGEST_SNOOZE_S)",
        "return error.retry_after_s or 0.0", "tests/usecase/test_message_batches.py",
    ),
    Plant(
        "I3", "a batch is split while mem0 may have it",
        "workers/afterword/workers/memories/store_turns.py",
        "counts and (crashed or not unknown)",
        "counts", "tests/usecase/test_store_turn_batches.py",
    ),
    Plant(
        "I3", "no lookup before a turn is added again",
        "workers/afterword/workers/memories/add_batch.py",
        "added = await self._earlier(claim, batch) if unknown else None",
        "added = None", "tests/usecase/test_store_turns.py",
    ),
    Plant(
        "I3", "a turn that kills its writer is retried without limit",
        "workers/afterword/workers/memories/store_turns.py",
        "if batch[0].attempts >= self._settings.max_write_attempts:",
        "if False:", "tests/usecase/test_store_turns.py",
    ),
    Plant(
        "I3", "no lease margin before an add", "workers/afterword/workers/memories/add_batch.py",
        "self._leases.require(claim.lane)",
        "pass", "tests/usecase/test_store_turns.py",
    ),
    Plant(
        "I5", "the owner of a memory is not checked", "workers/afterword/workers/replies/recall.py",
        "[row for row in found.memories if row.owner == owner]",
        "list(found.memories)",
        "tests/unit/test_recall.py",
    ),
    Plant(
        "I5", "what others say in a message is stored",
        "workers/afterword/workers/kept_text.py",
        "return self._redaction.stored(tenant, own_words(text))",
        "return self._redaction.stored(tenant, text)",
        "tests/unit/test_own_words.py",
    ),
    Plant(
        "I5", "what others say waits to be stored as a fact",
        "workers/afterword/workers/kept_text.py",
        "user_text=own_words(turn.user_text)",
        "user_text=turn.user_text",
        "tests/unit/test_own_words.py",
    ),
    Plant(
        "I5", "a message passes for the block of memories",
        "workers/afterword/workers/replies/prompt.py",
        'yield ChatMessage("user", _told(turn.user_text))',
        'yield ChatMessage("user", turn.user_text)',
        "tests/unit/test_own_words.py",
    ),
    Plant(
        "I5", "a message begins a part of the extraction prompt",
        "workers/afterword/workers/adapters/mem0/extraction.py",
        'return _BEGINS_A_PART.sub(" ", message)',
        "return message",
        "tests/unit/test_own_words.py",
    ),
    Plant(
        "I5", "mem0 is given the reply",
        "workers/afterword/workers/adapters/mem0/hosted.py",
        '[{"role": "user", "content": _dated(turn, each.user_text)} for each in turn.exchanges]',
        '[{"role": "user", "content": each.reply_text} for each in turn.exchanges]',
        "tests/contract/test_mem0_failures.py",
    ),
    Plant(
        "I5", "a fact writes another one", "workers/afterword/workers/replies/facts.py",
        '.replace("\\n", "\\n  ")', "", "tests/unit/test_facts.py",
    ),
    Plant(
        "I5", "a fact writes its own origin", "workers/afterword/workers/replies/facts.py",
        ".translate(_NO_BRACKETS)", "", "tests/unit/test_facts.py",
    ),
    Plant(
        "I6", "a score that is no number reaches a reply",
        "workers/afterword/workers/adapters/mem0/answers.py",
        "allow_inf_nan=False",
        "allow_inf_nan=True", "tests/fuzz/test_mem0_rows.py",
    ),
    Plant(
        "I12", "nobody looks whether an erasure left something",
        "workers/afterword/workers/adapters/mem0/hosted.py",
        "        if left:\n",
        "        if False:\n", "tests/contract/test_mem0_failures.py",
    ),
    Plant(
        "I14", "an add that mem0 never finishes is the fault of its turn",
        "workers/afterword/workers/memories/add_batch.py",
        "raise Unavailable(TOO_LONG, unknown_outcome=True)",
        "raise Rejected(TOO_LONG)", "tests/usecase/test_store_turns.py",
    ),
    Plant(
        "I14", "adds that mem0 cannot process shut no gate", "workers/afterword/workers/gate.py",
        "case EventFailed():",
        "case EventFailed() if self.canary:", "tests/usecase/test_store_turns.py",
    ),
    Plant(
        "I14", "each event that was lost in an outage prolongs it",
        "workers/afterword/workers/memories/store_turns.py",
        "if lost and permit.canary:", "if False:",
        "tests/usecase/test_store_turns.py",
    ),
    Plant(
        "I14", "an add that was accepted counts as a success",
        "workers/afterword/workers/memories/store_turns.py",
        "if added.outcome is not AddOutcome.PENDING:",
        "if True:", "tests/usecase/test_store_turns.py",
    ),
    Plant(
        "I5", "a bare key may be that of another user", "shared/afterword/shared/names.py",
        "if _UNSAFE.search(bare) or not bare.isprintable() else bare",
        "if not bare.isprintable() else bare", "tests/unit/test_names.py",
    ),
    Plant(
        "I6", "who has waited gets no more time for memory",
        "workers/afterword/workers/replies/recall.py",
        "return self.budget_s + min(self.patience_s, self.patience * max(0.0, waited_s))",
        "return self.budget_s", "tests/unit/test_recall.py",
    ),
    Plant(
        "I6", "the reply that can wait the longest is next",
        "workers/afterword/workers/replies/recall_queue.py",
        "heapq.heappush(self._line, (deadline,",
        "heapq.heappush(self._line, (-deadline,", "tests/unit/test_recall.py",
    ),
    Plant(
        "I6", "a backlog is claimed faster than it is recalled",
        "workers/afterword/workers/replies/recall_queue.py",
        "if not self._is_full() or not self._paces():", "if True:", "tests/unit/test_recall.py",
    ),
    Plant(
        "I6", "an overload is paced without end",
        "workers/afterword/workers/replies/recall_queue.py",
        "return not self.is_overloaded()", "return True", "tests/unit/test_recall.py",
    ),
    Plant(
        "I6", "the newest hints wait behind a backlog",
        "workers/afterword/workers/celery_runtime/consumer.py",
        'end = "LEFT" if self._takes_newest else "RIGHT"', 'end = "RIGHT"',
        "tests/system/test_consumer.py",
    ),
    Plant(
        "I6", "what came after a backlog is admitted after it",
        "workers/afterword/workers/replies/recall_queue.py",
        "return one or other", "return self._outside or self._outside_ahead",
        "tests/unit/test_recall.py",
    ),
    Plant(
        "I8", "hints that a newer one overtook count as lost",
        "shared/afterword/shared/ledger/lua/_lib.lua",
        "if not ahead then take_up(agenda, id) end", "take_up(agenda, id)",
        "tests/ledger/test_sweep.py",
    ),
    Plant(
        "I6", "a busy machine shuts the gate of recall",
        "workers/afterword/workers/replies/recall.py",
        "busy = self._succeeded_at > asyncio.get_running_loop().time() - BUSY_S", "busy = False",
        "tests/unit/test_recall.py",
    ),
    Plant(
        "I6", "writes do not yield to recall", "workers/afterword/workers/memories/store_turns.py",
        "await self._gates.yield_to_recall()", "pass", "tests/usecase/test_store_turns.py",
    ),
    Plant(
        "I6", "adds compete with searches for the CPU",
        "workers/afterword/workers/adapters/mem0/open_source.py",
        ", initializer=_yield_the_cpu", "", "tests/unit/test_mem0_open_source.py",
    ),
    Plant(
        "I6", "replies without memory are not counted", f"{LUA}/job/finish.lua",
        "if memory == 'degraded' then", "if false then", "tests/ledger/test_account.py",
    ),
    Plant(
        "I8", "no sweep", "shared/afterword/shared/ledger/maintenance.py",
        "await asyncio.gather(*map(self._sweep, self._shards.all))",
        "[SweepCounts()]", "tests/ledger/test_sweep.py",
    ),
    Plant(
        "I9", "an idempotency key without a fingerprint", f"{LUA}/job/submit.lua",
        "known[2] == fingerprint and 'same' or 'reused'",
        "'same'", "tests/ledger/test_submit.py",
    ),
    Plant(
        "I9", "users share their idempotency keys", "shared/afterword/shared/ledger/jobs.py",
        'f"{owner} {key}"', "key", "tests/ledger/test_submit.py",
    ),
    Plant(
        "I9", "one bad request hides the jobs of the others",
        "producer/afterword/producer/client/job_service.py",
        "        except InvalidRequest as error:\n            return error\n",
        "        except KeyError:\n            raise\n", "tests/ledger/test_submit_many.py",
    ),
    Plant(
        "I9", "a submit does not wait for its replicas",
        "shared/afterword/shared/transport/replication.py",
        "if confirmed >= self._replicas:",
        "if True:", "tests/ledger/test_replicas.py",
    ),
    Plant(
        "I9", "a repeated submit to a cluster is believed without its replicas",
        "shared/afterword/shared/ledger/ledger.py",
        "            if is_cluster(settings)\n", "            if False\n",
        "tests/ledger/test_failover.py -k repeated_submit",
    ),
    Plant(
        "I8", "a connection stays with a Redis that became a replica",
        "shared/afterword/shared/transport/connection.py",
        "_ELSEWHERE = (exceptions.ReadOnlyError, exceptions.MovedError)",
        "_ELSEWHERE = (exceptions.MovedError,)", "tests/ledger/test_failover.py -k change_places",
    ),
    Plant(
        "I8", "a slot that moved is not followed",
        "shared/afterword/shared/transport/connection.py",
        "_ELSEWHERE = (exceptions.ReadOnlyError, exceptions.MovedError)",
        "_ELSEWHERE = (exceptions.ReadOnlyError,)",
        "tests/ledger/test_failover.py -k slot_is_moved",
    ),
    Plant(
        "I8", "two primaries are taken for one", "shared/afterword/shared/servers.py",
        "if len(primaries) > 1:", "if False:", "tests/ledger/test_servers.py",
    ),
    Plant(
        "I8", "an empty server in the place of one of several is taken for a new one",
        "shared/afterword/shared/ledger/identity.py",
        'if other.get("name") != found.name:', "if False:", "tests/ledger/test_servers.py",
    ),
    Plant(
        "I8", "servers in another order are taken for a new ledger",
        "shared/afterword/shared/ledger/identity.py",
        'if await self._shards.send_to(server, "EXISTS", *keys):', "if False:",
        "tests/ledger/test_servers.py",
    ),
    Plant(
        "I1", "a read is sent to a node that takes a slot over without saying so",
        "shared/afterword/shared/transport/importing.py",
        '[("ASKING",), command]', '[("PING",), command]',
        "tests/ledger/test_failover.py -k two_nodes",
    ),
    Plant(
        "I3", "the last pass of a migration goes on beside writes",
        "workers/afterword/workers/memories/migrate.py",
        "if pause_memories is not None and progress.number > 1:", "if False:",
        "tests/usecase/test_migrate.py",
    ),
    Plant(
        "I3", "a restored ledger is taken for a new one",
        "shared/afterword/shared/ledger/maintenance.py",
        "seen = await self.newest_number(keys) + SKIPPED_NUMBERS", "return 1",
        "tests/usecase/test_drills.py -k never_saw",
    ),
    Plant(
        "I12", "a Redis without a command log keeps its slow log",
        "shared/afterword/shared/ledger/erasures.py",
        'if error.cause != "unknown_command":', "if True:",
        "tests/ledger/test_erasures.py -k slow_log",
    ),
    Plant(
        "I12", "a scan goes on with the cursor of another server",
        "shared/afterword/shared/transport/scanning.py",
        "if pipeline.connection != used:", "if False:", "tests/unit/test_scanning.py",
    ),
    Plant(
        "I12", "a scan trusts a node that gives the slot away",
        "shared/afterword/shared/transport/scanning.py",
        "if slot_key is not None:", "if False:",
        "tests/unit/test_scanning.py",
    ),
    Plant(
        "I10", "a full queue accepts more", f"{LUA}/job/submit.lua",
        "if count_open() >= max_open then",
        "if false then", "tests/ledger/test_submit.py",
    ),
    Plant(
        "I1", "another number of shards is accepted", "shared/afterword/shared/ledger/identity.py",
        "if found.shards != shards:", "if False:", "tests/ledger/test_identity.py",
    ),
    Plant(
        "I10", "one tenant may fill the queue of all", f"{LUA}/job/submit.lua",
        "if most_jobs > 0 and jobs >= most_jobs then",
        "if false then", "tests/ledger/test_caps.py",
    ),
    Plant(
        "I10", "whoever likes may ask for the priority high", f"{LUA}/job/submit.lua",
        "if agenda == HIGH and limits[7] > 0 and counts[1][3] >= limits[7] then",
        "if false then", "tests/ledger/test_caps.py",
    ),
    Plant(
        "I10", "a job that ended is still counted as open", f"{LUA}/_lib.lua",
        "if redis.call('ZREM', OPEN, id) == 1 then count_open_job(id, -1, agenda, owners) end",
        "redis.call('ZREM', OPEN, id)", "tests/ledger/test_caps.py",
    ),
    Plant(
        "I10", "one script interrupts any number of jobs", f"{LUA}/_lib.lua",
        "local MAX_INTERRUPTED, interrupted = 24, 0",
        "local MAX_INTERRUPTED, interrupted = 100000, 0", "tests/ledger/test_bounded_scripts.py",
    ),
    Plant(
        "I10", "one sweep does all that is due", "shared/afterword/shared/ledger/maintenance.py",
        "limit=SWEEP_LIMIT,", "limit=10**6,", "tests/ledger/test_bounded_scripts.py",
    ),
    Plant(
        "I10", "one script empties all jobs of a user", f"{LUA}/erasure/empty_jobs.lua",
        "if #theirs == MOST then break end",
        "", "tests/ledger/test_bounded_scripts.py",
    ),
    Plant(
        "I3", "a turn of an older ledger is added without a lookup", f"{LUA}/turn/begin.lua",
        "or may_be_stored_since(turn[6])", "", "tests/ledger/test_rollback_detector.py",
    ),
    Plant(
        "I8", "a worker that starts on an older ledger does not notice",
        "workers/afterword/workers/background/rollback_detector.py",
        "self._seen = file.load()", "self._seen = Seen()", "tests/ledger/test_rollback_detector.py",
    ),
    Plant(
        "I12", "an erasure leaves the slow commands", "workers/afterword/workers/memories/erase.py",
        "command_log = await self._erasures.reset_command_log()",
        "command_log = None", "tests/ledger/test_erasures.py",
    ),
    Plant(
        "I12", "a user is erased once, not twice", "workers/afterword/workers/memories/erase.py",
        "if claim.state is ErasureState.ASKED and self._memories is not None:",
        "if False:", "tests/ledger/test_erasures.py",
    ),
    Plant(
        "I12", "a claim returns what is to be erased", f"{LUA}/job/claim.lua",
        "if job.conversation and not erasing then", "if job.conversation then",
        "tests/ledger/test_erasures.py",
    ),
    Plant(
        "I12", "an abandoned write commits",
        "workers/afterword/workers/adapters/mem0/open_source.py",
        "with deadline.observed():", "if True:", "tests/unit/test_sqlite_memory.py",
    ),
    Plant(
        "I12", "an erasure fences no writer", f"{LUA}/erasure/begin.lua",
        "redis.call('HDEL', FENCES, lane)\n",
        "", "tests/ledger/test_erasures.py",
    ),
    Plant(
        "I12", "an erasure leaves the replies", f"{LUA}/erasure/empty_jobs.lua",
        "redis.call('HDEL', job_key(id), unpack(gone))",
        "", "tests/ledger/test_erasures.py",
    ),
    Plant(
        "I13", "an older sweep expires a newer record", f"{LUA}/maintenance/sweep.lua",
        "if newer_version(id, known_version) then "
        "return redis.call('ZADD', OPEN, now + HOLD, id) end",
        "", "tests/ledger/test_versions.py",
    ),
    Plant(
        "I14", "two canaries at once", f"{LUA}/gate/ask.lua",
        "(canary == token or leased <= now)",
        "true", "tests/ledger/test_gates.py",
    ),
    Plant(
        "I14", "a worker starts without knowing what is shut", "workers/afterword/workers/gate.py",
        "        for gate in found:\n            self._see(gate.name, gate.state)\n",
        "        for gate in found:\n", "tests/usecase/test_gate.py",
    ),
    Plant(
        "I14", "a success cannot open a gate that was not known to be shut",
        f"{LUA}/gate/report.lua",
        "if is_shut and not is_canary and not is_witness then",
        "if is_shut and not is_canary then", "tests/ledger/test_gates.py",
    ),
    Plant(
        "I14", "nobody tests a gate without work",
        "workers/afterword/workers/background/probes.py",
        "idle = gate.state is GateState.SHUT and gate.untested_s >= IDLE_S",
        "idle = False", "tests/usecase/test_probes.py",
    ),
    Plant(
        "I14", "a moment of failures after an outage is another outage",
        "shared/afterword/shared/ledger/lua/gate/report.lua",
        "record.pause * 2 / 2 ^ octaves", "record.pause * 2", "tests/ledger/test_gates.py",
    ),
    Plant(
        "I14", "one answer stops the fleet for as long as it asks", f"{LUA}/gate/report.lua",
        "return math.min(pause_ms, cap_ms)", "return pause_ms", "tests/ledger/test_gates.py",
    ),
    Plant(
        "I14", "a call opens a gate that was shut by hand", f"{LUA}/gate/report.lua",
        "if is_shut_by_hand(record) then", "if false then", "tests/ledger/test_gates.py",
    ),
    Plant(
        "I14", "an outage spends attempts", "workers/afterword/workers/rules/retry_policy.py",
        "return Verdict(Decision.SNOOZE, error.code, error.fault, delay_s)",
        "return Verdict(Decision.RETRY, error.code, error.fault, delay_s)",
        "tests/unit/test_retry_policy.py",
    ),
    Plant(
        "I14", "a missing model is the request's fault",
        "workers/afterword/workers/replies/model_call.py",
        "isinstance(error, NoSuchModel) and not self._configured", "isinstance(error, NoSuchModel)",
        "tests/usecase/test_respond.py",
    ),
    Plant(
        "I14", "a bug of ours is the request's fault",
        "workers/afterword/workers/rules/retry_policy.py",
        'return _retried("internal_error", Fault.OPERATOR,',
        'return _retried("internal_error", Fault.REQUEST,',
        "tests/unit/test_retry_policy.py",
    ),
    Plant(
        "I11", "a bug does not say where it is", "shared/afterword/shared/observer.py",
        "place=error_location(error))", 'place="")', "tests/usecase/test_respond.py",
    ),
    Plant(
        "I10", "an argument is not checked", "shared/afterword/shared/arguments.py",
        "model().model_validate(given)", "model().model_construct(**given)",
        "tests/fuzz/test_public_api.py",
    ),
    Plant(
        "I11", "a text acts on the terminal", "producer/afterword/producer/cli/terminal.py",
        "click.echo(visible(str(text)), err=err, nl=nl)", "click.echo(text, err=err, nl=nl)",
        "tests/ledger/test_terminal.py",
    ),
    Plant(
        "I11", "a foreign link leads to the sockets",
        "workers/afterword/workers/local_stack/data_dir.py",
        "if path.is_symlink():", "if path.is_symlink() and not shared_parent:",
        "tests/unit/test_data_dir.py",
    ),
    Plant(
        "I11", "a URL is read by a lenient parser", "shared/afterword/shared/setting_types.py",
        "        urls.parse_url(", "        id(", "tests/unit/test_urls.py",
    ),
    Plant(
        "I11", "a secret reaches mem0", "workers/afterword/workers/memories/compose_turn.py",
        "return Exchange(said.text, reply.text)", "return Exchange(turn.user_text, reply.text)",
        "tests/usecase/test_redaction.py",
    ),
    Plant(
        "I11", "a search is told a secret", "workers/afterword/workers/replies/respond.py",
        "query = self._kept.shown(tenant, request.message)",
        "query = request.message", "tests/usecase/test_redaction.py",
    ),
    Plant(
        "I11", "a conversation keeps a secret", "shared/afterword/shared/ledger/jobs.py",
        'self._redaction.shown(tenant, request["message"]),',
        'request["message"],', "tests/usecase/test_redaction.py",
    ),
    Plant(
        "I11", "a message with a secret is not refused",
        "producer/afterword/producer/client/job_service.py",
        "self._redaction.check(request.tenant, message=request.message)",
        "pass", "tests/unit/test_redaction.py",
    ),
    Plant(
        "I11", "an import with a secret is not refused",
        "producer/afterword/producer/admin/history.py",
        "redaction.check(turn.tenant, message=turn.message, reply=turn.reply)",
        "pass", "tests/unit/test_redaction.py",
    ),
    Plant(
        "I11", "the error of a redactor is passed on",
        "shared/afterword/shared/redaction/policy.py",
        'return "cannot be checked for secrets: the redactor failed"',
        "raise", "tests/unit/test_redaction.py",
    ),
    Plant(
        "I11", "any number of a card's length is removed",
        "shared/afterword/shared/redaction/checksums.py",
        "return _luhn(digits) == 0 and any(",
        "return any(", "tests/unit/test_known_secrets.py",
    ),
    Plant(
        "I11", "a key that no header can carry is sent", "shared/afterword/shared/setting_types.py",
        'if not re.fullmatch("[!-~]+", value.get_secret_value()):', "if False:",
        "tests/unit/test_urls.py",
    ),
    Plant(
        "I5", "an alarm names no job", "workers/afterword/workers/replies/respond.py",
        "job_id=job_id, lane=lane, attempt=claim.attempt, trace=trace, tenant_class=kind",
        "", "tests/usecase/test_respond.py",
    ),
    Plant(
        "I11", "log lines repeat the state of a caller's trace", "shared/afterword/shared/logs.py",
        'trace_id_in(told.pop("trace"))', 'trace_id_in(told["trace"])',
        "tests/usecase/test_traces.py",
    ),
    Plant(
        "I1", "a subscriber's error ends the work", "shared/afterword/shared/observer.py",
        "except Exception as error:  # noqa: BLE001 whoever observes",
        "except KeyError as error:  # noqa: BLE001 whoever observes",
        "tests/unit/test_observer.py",
    ),
    Plant(
        "I8", "a bug in one periodic task ends it",
        "workers/afterword/workers/background/periodic.py",
        "except Exception as error:  # noqa: BLE001 whatever it is",
        "except AfterwordError as error:  # noqa: BLE001 whatever it is",
        "tests/unit/test_periodic.py",
    ),
    Plant(
        "I8", "a periodic task that fails looks well",
        "workers/afterword/workers/background/periodic.py",
        "self._failures += 1", "pass", "tests/unit/test_periodic.py",
    ),
    Plant(
        "I8", "a heartbeat keeps failures to itself", "workers/afterword/workers/wiring.py",
        'if one.state != "ok"]', "if False]", "tests/system/test_periodic_tasks.py",
    ),
    Plant(
        "I10", "a queue's message is decoded, whatever it is", "shared/afterword/shared/hints.py",
        'if hint is None:\n        raise NotAHint("not_a_hint")',
        "if hint is None:\n        return dict(json.loads(raw))", "tests/fuzz/test_hints.py",
    ),
    Plant(
        "I10", "any command of the control channel is followed",
        "workers/afterword/workers/celery_runtime/control.py",
        "if command.method not in COMMANDS:", "if False:", "tests/fuzz/test_control.py",
    ),
    Plant(
        "I8", "kombu puts a hint back in a form of its own",
        "workers/afterword/workers/celery_runtime/consumer.py",
        "if queue not in self.connection._callbacks:", "if False:",
        "tests/system/test_consumer.py",
    ),
    Plant(
        "I8", "another Celery app hears and purges what is ours",
        "shared/afterword/shared/names.py",
        'return f"{namespace}:"', 'return ""', "tests/unit/test_names.py",
    ),
    Plant(
        "I8", "a user of Redis may not hear the control channel by a pattern",
        "workers/afterword/workers/celery_runtime/consumer.py",
        "self.subclient.subscribe(", "self.subclient.psubscribe(", "tests/system/test_acl_user.py",
    ),
    Plant(
        "I8", "an empty Redis in the place of a ledger is not told",
        "workers/afterword/workers/background/rollback_detector.py",
        "(known := self._file.replaces())", "(known := 0)",
        "tests/ledger/test_rollback_detector.py",
    ),
    Plant(
        "I8", "a worker starts with a pool that runs no job",
        "workers/afterword/workers/celery_runtime/consumer.py",
        "if not isinstance(self.pool, TaskPool):", "if False:", "tests/unit/test_pool.py",
    ),
    Plant(
        "I8", "a worker without queues counts as stalled",
        "workers/afterword/workers/celery_runtime/pool.py",
        "if full or not self.app.amqp.queues.consume_from:", "if full:", "tests/unit/test_pool.py",
    ),
    Plant(
        "I9", "a hint that is not sent is forgotten",
        "shared/afterword/shared/transport/hint_sender.py",
        "                continue\n", "", "tests/ledger/test_broker_failures.py",
    ),
    Plant(
        "I9", "an unfit Redis is written to", "shared/afterword/shared/transport/preflight.py",
        "    for problem in found.problems:\n        raise problem\n",
        "", "tests/ledger/test_reading.py",
    ),
    Plant(
        "I9", "a command that reads is refused", "producer/afterword/producer/checked_ledger.py",
        "emit(LedgerUnfit, problem=str(problem))",
        "raise problem", "tests/ledger/test_reading.py",
    ),
    Plant(
        "I9", "doctor tries no write", "producer/afterword/producer/cli/checks/ledger.py",
        "await ledger.jobs.try_write()",
        "pass", "tests/usecase/test_doctor.py",
    ),
    Plant(
        "I9", "doctor waits for a check that hangs",
        "producer/afterword/producer/cli/checks/finding.py",
        "outcome.result(max(0.0, end - monotonic()))",
        "outcome.result()", "tests/usecase/test_doctor.py",
    ),
    Plant(
        "I11", "an error of Redis is repeated in its own words",
        "shared/afterword/shared/transport/causes.py",
        "_misconfigured_words(cause, text), cause=cause)",
        "text, cause=cause)", "tests/ledger/test_causes.py",
    ),
)  # fmt: skip


def fits(plant: Plant, root: Path = ROOT) -> bool:
    """Return whether the text that a plant replaces stands in its file, once."""
    return (root / plant.file).read_text().count(plant.old) == 1


def turns_red(plant: Plant, folder: Path) -> bool:
    """Plant one bug in a copy of the tree; return whether its test fails, and passes without it."""
    for package in _PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, folder / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", folder)
    if _run(plant.test, folder) != _PASSED:
        return False
    planted = folder / plant.file
    planted.write_text(planted.read_text().replace(plant.old, plant.new))
    return _run(plant.test, folder) == _FAILED


def _run(test: str, tree: Path) -> int:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    roots = [tree, *(tree / root.name for root in ROOTS)]
    ran = subprocess.run(
        [*command, *test.split()],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, roots))},
        capture_output=True,
        timeout=_LONGEST_S,
        check=False,
    )
    return ran.returncode


def main() -> None:
    """Plant all, print the list, and fail if one went unseen."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.plants", description=__doc__)
    parser.add_argument("only", nargs="*", help="words of a plant's name")
    told = parser.parse_args()
    unseen = []
    for plant in PLANTS:
        if told.only and not all(word in plant.name for word in told.only):
            continue
        with tempfile.TemporaryDirectory(prefix="afterword-plant-") as folder:
            red = fits(plant) and turns_red(plant, Path(folder))
        print(f"| {plant.promise} | {plant.name} | {plant.test} | {'red' if red else 'UNSEEN'} |")
        unseen += [] if red else [plant.name]
    sys.exit(bool(unseen))


if __name__ == "__main__":
    main()
