"""The names that all processes share: ids, shards, Redis keys, queues, channels."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from functools import cache
from urllib.parse import quote, unquote

from afterword.shared.contracts import DEFAULT_TENANT, Priority
from afterword.shared.errors import JobNotFound

REPLIES = "replies"
MEMORIES = "memories"

#: The gates before searches in memory and before writes to it; each model has one of its own.
RECALL_GATE = "recall"
REMEMBER_GATE = "remember"
_MODELS = "claude/"

RUN_TASK = "afterword.run"
WRITE_TASK = "afterword.write"

#: Celery's priority steps on Redis: each is a list of its own, and they are drained in this order.
PRIORITY_STEPS: dict[Priority, int] = {"high": 0, "normal": 3, "low": 6}

#: The version of the keys below. A ledger whose keys have another one is refused.
LAYOUT_VERSION = 1

_SHARD_DIGITS = 2
MAX_SHARDS = 16**_SHARD_DIGITS
#: What percent-encoding leaves unchanged: this check takes a tenth of the time of encoding.
_PLAIN = re.compile(r"[A-Za-z0-9_.~-]*")
#: What no bare memory key holds: mem0 refuses white space, and other keys are made of the rest.
_UNSAFE = re.compile(r"[\s/%]")
_JOB_ID = re.compile(rf"j[0-9a-f]{{{_SHARD_DIGITS}}}_[0-9a-f]{{32}}")


def gate_of(model: str) -> str:
    """Return the name of the gate before a model."""
    return f"{_MODELS}{model}"


def model_of(gate: str) -> str | None:
    """Return the model behind a gate, None if it is not a model's."""
    return gate.removeprefix(_MODELS) if gate.startswith(_MODELS) else None


def memory_key(tenant: str, user_id: str) -> str:
    """Return the owner of a user's memories in mem0; no two users have the same (promise I5).

    Both parts are percent-encoded, so that neither can hold the slash between them, nor white
    space, which mem0 refuses or trims.
    """
    return f"{_encoded(tenant)}/{_encoded(user_id)}"


def bare_memory_key(owner: str) -> str:
    """Return the key of a user of the default tenant without the tenant, any other unchanged.

    It is the id as the backend passed it, as programs that use mem0 by themselves have it. Only an
    id that mem0 refuses or trims, or that could be taken for another key, is percent-encoded. So
    again no two users have the same (promise I5).
    """
    tenant, _, user_id = owner.partition("/")
    bare = unquote(user_id)
    if tenant != DEFAULT_TENANT:
        return owner
    return user_id if _UNSAFE.search(bare) or not bare.isprintable() else bare


def owner_of_bare_key(key: str) -> str:
    """Return the memory key that a bare one stands for: the inverse of `bare_memory_key`."""
    if "/" in key:
        return key
    return f"{DEFAULT_TENANT}/{key}" if "%" in key else memory_key(DEFAULT_TENANT, key)


def is_memory_key(owner: str) -> bool:
    """Return whether an owner of memories is a user of Afterword's, and no other program's."""
    tenant, slash, user_id = owner.partition("/")
    known = slash and tenant and user_id and "/" not in user_id
    return bool(known) and memory_key(unquote(tenant), unquote(user_id)) == owner


def _encoded(part: str) -> str:
    return part if _PLAIN.fullmatch(part) else quote(part, safe="")


def shard_of(owner: str, shards: int) -> int:
    """Return the shard that holds everything of this owner."""
    return int.from_bytes(hashlib.sha256(owner.encode()).digest()[:4]) % shards


def new_job_id(shard: int) -> str:
    """Return a fresh job id of 128 random bits that says which shard holds it."""
    return f"j{shard:0{_SHARD_DIGITS}x}_{secrets.token_hex(16)}"


#: What the owner of a request about memories begins with: no percent-encoded name does.
_REQUEST_OWNER = "%/"


def new_memory_request_id(shard: int) -> str:
    """Return a fresh id of a request about memories; it has the form of a lane that nobody has.

    A worker that knows no such requests takes it for a lane without turns.
    """
    return lane_id(f"{_REQUEST_OWNER}{secrets.token_hex(16)}", shard)


def is_memory_request(lane: str) -> bool:
    """Return whether the hint of a lane is that of a request about memories."""
    return owner_of(lane).startswith(_REQUEST_OWNER)


def lane_id(owner: str, shard: int) -> str:
    """Return the id of an owner's lane; it says which shard holds it."""
    return f"l{shard:0{_SHARD_DIGITS}x}_{owner}"


def owner_of(lane: str) -> str:
    """Return the memory key that a lane belongs to."""
    return lane[len("l_") + _SHARD_DIGITS :]


def user_of(lane: str) -> tuple[str, str]:
    """Return the tenant and the user id that a lane belongs to."""
    tenant, _, user_id = owner_of(lane).partition("/")
    return unquote(tenant), unquote(user_id)


def lane_tag(lane: str) -> str:
    """Return a name for a lane in logs and events: it does not repeat the id of a user."""
    shard = lane[: len("l_") + _SHARD_DIGITS]
    return shard + hashlib.blake2b(owner_of(lane).encode(), digest_size=6).hexdigest()


def shard_in(name: str) -> int:
    """Return the shard that the id of a job, a lane or a message batch names, else `ValueError`."""
    return int(name[1 : 1 + _SHARD_DIGITS], 16)


def new_message_batch(shard: int) -> str:
    """Return a fresh name of a message batch; it says which shard holds it."""
    return f"b{shard:0{_SHARD_DIGITS}x}_{secrets.token_hex(6)}"


def check_job_id(job_id: str) -> str:
    """Return a job id; raises `JobNotFound` if it does not have the form of one."""
    if not isinstance(job_id, str):
        raise JobNotFound(f"a value of type {type(job_id).__name__}")
    if not _JOB_ID.fullmatch(job_id):
        raise JobNotFound(job_id[:MAX_SHOWN])
    return job_id


#: Most characters of a malformed id that an error repeats.
MAX_SHOWN = 64


@cache
def _root(namespace: str, shard: int) -> str:
    return f"{namespace}:{{{shard:0{_SHARD_DIGITS}x}}}"


@dataclass(frozen=True, slots=True)
class Keys:
    """The Redis keys and channels of one shard; `ledger/lua/_lib.lua` spells the same.

    All hold the shard's hash tag, so that one script touches one slot of a cluster.
    """

    namespace: str
    shard: int

    @property
    def root(self) -> str:
        """Return what all keys of the shard begin with."""
        return _root(self.namespace, self.shard)

    def job(self, job_id: str) -> str:
        """HASH: the record of one job and of its turn."""
        return f"{self.root}:job:{job_id}"

    def events(self, job_id: str) -> str:
        """STREAM: the events of one job's reply."""
        return f"{self.root}:events:{job_id}"

    def wake(self, job_id: str) -> str:
        """CHANNEL: the type of each event that is appended to the stream of one job."""
        return f"{self.root}:wake:{job_id}"

    def idempotency(self, hashed: str) -> str:
        """HASH: the job and the fingerprint of one idempotency key."""
        return f"{self.root}:idempotency:{hashed}"

    def lane(self, lane: str) -> str:
        """ZSET: the job ids of one user's turns, by sequence."""
        return f"{self.root}:lane:{lane}"

    def conversation(self, conversation: str) -> str:
        """LIST: the newest turns of one conversation, as JSON.

        Its id begins with that of its user's lane, so that an erasure of the user finds it.
        """
        return f"{self.root}:conversation:{conversation}"

    def conversation_queue(self, conversation: str) -> str:
        """ZSET: the open jobs of one conversation, by sequence."""
        return f"{self.root}:conversation-queue:{conversation}"

    def usage(self, lane: str) -> str:
        """HASH: sums over the replies to one lane's user; it expires some time after the last."""
        return f"{self.root}:usage:{lane}"

    def imported(self, lane: str) -> str:
        """SET: the keys of one user's past turns that were imported; it expires after the last."""
        return f"{self.root}:imported:{lane}"

    def tenant_usage(self, tenant: str) -> str:
        """HASH: sums over all replies to one tenant."""
        return f"{self.root}:tenant-usage:{tenant}"

    def behind(self, tenant: str) -> str:
        """ZSET: the lanes of one tenant that have turns to store, by the oldest of them."""
        return f"{self.root}:behind:{tenant}"

    def place(self, place: str, agenda: str) -> str:
        """ZSET: the ids of one agenda in one place: hinted, waiting, leased or held."""
        return f"{self.root}:{place}:{agenda}"

    def share(self, agenda: str) -> str:
        """ZSET: the tenants with queued jobs in one agenda, by when they are next."""
        return f"{self.root}:share:{agenda}"

    def share_clock(self, agenda: str) -> str:
        """CLOCK, a STRING: the virtual time of one agenda."""
        return f"{self.root}:share-clock:{agenda}"

    def share_rest(self, agenda: str) -> str:
        """ZSET: tenants that have no queued jobs, by when they are next if they come back."""
        return f"{self.root}:share-rest:{agenda}"

    def displaced(self, agenda: str) -> str:
        """ZSET: jobs that wait at the hint of another one, by when they were ready."""
        return f"{self.root}:displaced:{agenda}"

    def share_queue(self, agenda: str, tenant: str) -> str:
        """ZSET: the queued jobs of one tenant, by the number of their hint."""
        return f"{self.root}:share-queue:{agenda}:{tenant}"

    def begun(self, slot: int) -> str:
        """HASH: tenant to how many attempts began in the ten minutes of that number."""
        return f"{self.root}:begun:{slot}"

    def capped(self, owner: str) -> str:
        """ZSET: jobs that wait until one of a lane, or of ':' and a tenant, stops running."""
        return f"{self.root}:capped:{owner}"

    def running(self, lane: str) -> str:
        """SET: the running jobs of one lane's user, while those are capped."""
        return f"{self.root}:running:{lane}"

    @property
    def cap_parts(self) -> str:
        """HASH: tenant to this shard's part of its cap on running jobs, of which cap, set when."""
        return f"{self.root}:cap-parts"

    @property
    def balanced(self) -> str:
        """FLAG, a STRING: tenants' caps and budgets were balanced a moment ago; on the first."""
        return f"{self.root}:balanced"

    @property
    def at_cap(self) -> str:
        """ZSET: lanes, and tenants behind a ':', that run all they may, by when to look again."""
        return f"{self.root}:at-cap"

    @property
    def open(self) -> str:
        """ZSET: the ids of queued and running jobs, by deadline."""
        return f"{self.root}:open"

    @property
    def dead_turns(self) -> str:
        """ZSET: the job ids of turns that were buried, by when."""
        return f"{self.root}:dead-turns"

    @property
    def failed_jobs(self) -> str:
        """ZSET: the ids of failed jobs that were neither replayed nor discarded, by when."""
        return f"{self.root}:failed-jobs"

    @property
    def open_counts(self) -> str:
        """HASH: conversation, lane or ':' and tenant, to its open jobs, bytes and `high` jobs."""
        return f"{self.root}:open-counts"

    @property
    def counts(self) -> str:
        """HASH: how many jobs and turns are in each state, per tenant."""
        return f"{self.root}:counts"

    @property
    def fences(self) -> str:
        """HASH: the fence of the writer that holds each lane."""
        return f"{self.root}:fences"

    @property
    def fenced(self) -> str:
        """CHANNEL: ids of jobs and lanes whose running attempt was overtaken or cancelled."""
        return f"{self.root}:fenced"

    @property
    def duplicate_checks(self) -> str:
        """ZSET: the job ids of turns that mem0 may hold twice, by when to look."""
        return f"{self.root}:duplicate-checks"

    @property
    def witnesses(self) -> str:
        """ZSET: machines that watch the ledger, by the newest number that each has seen."""
        return f"{self.root}:witnesses"

    @property
    def put_back(self) -> str:
        """STRING: the newest number of an older ledger that was put back."""
        return f"{self.root}:put-back"

    @property
    def sequence(self) -> str:
        """STRING: the counter that sequence numbers, fences and event ids come from."""
        return f"{self.root}:sequence"

    @property
    def identity(self) -> str:
        """HASH: how many shards the ledger has, and by which version; on the first shard."""
        return f"{self.root}:identity"

    @property
    def submitted(self) -> str:
        """STRING: written with each submit to a cluster that waits for its replicas; empty."""
        return f"{self.root}:submitted"

    @property
    def newer_version(self) -> str:
        """STRING: the newest version of a record that an older build has met."""
        return f"{self.root}:newer-version"

    @property
    def workers(self) -> str:
        """ZSET: '<queue> <worker>', by its last heartbeat."""
        return f"{self.root}:workers"

    @property
    def worker_status(self) -> str:
        """HASH: '<queue> <worker>' to JSON: version, periodic tasks that fail or are late."""
        return f"{self.root}:worker-status"

    @property
    def quarantine(self) -> str:
        """STREAM: notes on queue messages that were no hints; on the first shard."""
        return f"{self.root}:quarantine"

    @property
    def quarantined(self) -> str:
        """HASH: how many queue messages that were no hints there ever were, by reason."""
        return f"{self.root}:quarantined"

    @property
    def reconciled(self) -> str:
        """STRING: exists for a while after somebody began to look for inconsistencies."""
        return f"{self.root}:reconciled"

    @property
    def late_copies(self) -> str:
        """ZSET: the job ids of turns whose memories were changed, by when to look again."""
        return f"{self.root}:late-copies"

    @property
    def lost_attempts(self) -> str:
        """ZSET: jobs that ended before their last attempt told what it used, by when to count."""
        return f"{self.root}:lost-attempts"

    @property
    def memory_requests(self) -> str:
        """ZSET: the requests about memories that have no answer yet, by when they expire."""
        return f"{self.root}:memory-requests"

    def memory_request(self, request_id: str) -> str:
        """HASH: one request about memories, and its answer; expires within minutes."""
        return f"{self.root}:memory-request:{request_id}"

    def mending(self, lane: str) -> str:
        """FLAG, a STRING: somebody waits to change memories of one lane's user."""
        return f"{self.root}:mending:{lane}"

    def story(self, job_id: str) -> str:
        """HASH: what became of one job that has ended, without what was said."""
        return f"{self.root}:story:{job_id}"

    def user_jobs(self, lane: str) -> str:
        """ZSET: the newest jobs of one lane's user, by sequence; see `list_job` in Lua."""
        return f"{self.root}:user-jobs:{lane}"

    def given(self, lane: str) -> str:
        """STREAM: the replies to one lane's user, each with the ids of its memories."""
        return f"{self.root}:given:{lane}"

    @property
    def message_batches(self) -> str:
        """ZSET: the message batches that still have turns, by when to look at each."""
        return f"{self.root}:message-batches"

    def message_batch(self, name: str) -> str:
        """HASH: one message batch: the provider's id, and since when."""
        return f"{self.root}:message-batch:{name}"

    def message_batch_turns(self, name: str) -> str:
        """SET: the job ids of turns that wait for one message batch."""
        return f"{self.root}:message-batch-turns:{name}"

    def migration(self, name: str) -> str:
        """HASH: one migration of memories and how far it has come; on the first shard."""
        return f"{self.root}:migration:{name}"

    @property
    def orders(self) -> str:
        """HASH: '<what> <whom>' to JSON: the orders of operators that concern this shard."""
        return f"{self.root}:orders"

    @property
    def order_ends(self) -> str:
        """ZSET: the names of orders that end by themselves, by when."""
        return f"{self.root}:order-ends"

    @property
    def ended_orders(self) -> str:
        """ZSET: the ids of orders that have ended and for which something may still wait."""
        return f"{self.root}:ended-orders"

    @property
    def slots(self) -> str:
        """HASH: the id of an order that slows, to when the next of its jobs may be claimed."""
        return f"{self.root}:slots"

    def parked(self, order: str) -> str:
        """ZSET: '<agenda> <id>' of what waits for the end of one order, by until when."""
        return f"{self.root}:parked:{order}"

    @property
    def erasures(self) -> str:
        """ZSET: the lanes of users that are being erased, by when that was requested."""
        return f"{self.root}:erasures"

    def erasure(self, lane: str) -> str:
        """HASH: how far the erasure of one lane's user has come; afterwards its receipt."""
        return f"{self.root}:erasure:{lane}"

    @property
    def gates(self) -> str:
        """SET: the gates that are not open; on the first shard."""
        return f"{self.root}:gates"

    @property
    def gate_news(self) -> str:
        """CHANNEL: '<shut|doubted> <gate>', when that has just become so."""
        return f"{self.root}:gate-news"

    def gate(self, name: str) -> str:
        """HASH: one gate that is not open."""
        return f"{self.root}:gate:{name}"

    def gate_failures(self, name: str) -> str:
        """SET: the failed calls since the last success at one gate."""
        return f"{self.root}:gate-failures:{name}"

    def spent(self, owner: str) -> str:
        """INTEGER, a STRING: what the replies to a user's lane, or to ':' and a tenant, cost."""
        return f"{self.root}:spent:{owner}"

    @property
    def spenders(self) -> str:
        """ZSET: tenants that have spent something of which other shards do not know."""
        return f"{self.root}:spenders"

    def quota(self, name: str) -> str:
        """HASH: what one rate limit of a provider has left; on the first shard."""
        return f"{self.root}:quota:{name}"

    @property
    def replay_runs(self) -> str:
        """ZSET: the replay runs, by when they began; on the first shard."""
        return f"{self.root}:replay-runs"

    def replay_run(self, run: str) -> str:
        """HASH: one replay run."""
        return f"{self.root}:replay-run:{run}"

    def replay_todo(self, run: str) -> str:
        """ZSET: the dead letters that one run has not looked at yet, in order."""
        return f"{self.root}:replay-todo:{run}"

    def replay_outcomes(self, run: str) -> str:
        """HASH: what became of each dead letter of one run."""
        return f"{self.root}:replay-outcomes:{run}"

    @property
    def access_keys(self) -> str:
        """HASH: id of a key of the console to JSON: whose, for what, a hash; on the first shard."""
        return f"{self.root}:access-keys"

    @property
    def session_secret(self) -> str:
        """STRING: what signs sessions of the console, in hexadecimal; on the first shard."""
        return f"{self.root}:session-secret"

    @property
    def ended_sessions(self) -> str:
        """ZSET: sessions of the console that were ended, by when they are over; first shard."""
        return f"{self.root}:ended-sessions"

    @property
    def samples(self) -> str:
        """STREAM: figures of the fleet, one entry a minute; on the first shard."""
        return f"{self.root}:samples"

    @property
    def sampled(self) -> str:
        """FLAG, a STRING: the sample of this minute is taken."""
        return f"{self.root}:sampled"

    @property
    def audit(self) -> str:
        """STREAM: what operators did; on the first shard."""
        return f"{self.root}:audit"


def queue_list(namespace: str, queue: str, step: int) -> str:
    """Return the Redis list of a queue's hints of one priority step, as kombu names it."""
    return f"{queue_prefix(namespace)}{queue}" + (f"\x06\x16{step}" if step else "")


def control_channel(namespace: str, database: str) -> str:
    """CHANNEL: commands to the workers of one database, as kombu names it."""
    return f"{queue_prefix(namespace)}/{database}.celery.pidbox"


def queue_prefix(namespace: str) -> str:
    """Return what everything of a namespace that Celery keeps in Redis begins with.

    These are lists of hints, bindings, replies to remote control, and channels. No other Celery app
    on the same Redis and database meets any of them, whatever its queues are called.
    """
    return f"{namespace}:"
