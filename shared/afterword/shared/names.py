"""Every name that two processes must agree on: ids, shards, keys, queues, channels."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from urllib.parse import quote, unquote

from afterword.shared.contracts import Priority
from afterword.shared.errors import JobNotFound

REPLIES = "replies"
MEMORIES = "memories"

RUN_TASK = "afterword.run"
WRITE_TASK = "afterword.write"

#: Celery's own priority steps on Redis, each a list of its own, drained in this order.
PRIORITY_STEPS: dict[Priority, int] = {"high": 0, "normal": 3, "low": 6}

_SHARD_DIGITS = 2
MAX_SHARDS = 16**_SHARD_DIGITS
#: What percent-encoding leaves as it is; to see that is a tenth of the work of encoding it.
_PLAIN = re.compile(r"[A-Za-z0-9_.~-]*")
_JOB_ID = re.compile(rf"j[0-9a-f]{{{_SHARD_DIGITS}}}_[0-9a-f]{{32}}")


def memory_key(tenant: str, user_id: str) -> str:
    """Return the owner name of a user's memories: injective in (tenant, user) (promise I5).

    Both parts are percent-encoded, so that neither can hold the slash between them, nor white
    space, which mem0 refuses or trims.
    """
    return f"{_encoded(tenant)}/{_encoded(user_id)}"


def _encoded(part: str) -> str:
    return part if _PLAIN.fullmatch(part) else quote(part, safe="")


def shard_of(owner: str, shards: int) -> int:
    """Return the shard where everything of this owner lives."""
    return int.from_bytes(hashlib.sha256(owner.encode()).digest()[:4]) % shards


def new_job_id(shard: int) -> str:
    """Return a fresh job id of 128 random bits that says which shard holds it."""
    return f"j{shard:0{_SHARD_DIGITS}x}_{secrets.token_hex(16)}"


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
    """Return the shard that a job id or a lane id names; raise `ValueError` if it is neither."""
    return int(name[1 : 1 + _SHARD_DIGITS], 16)


def check_job_id(job_id: str) -> str:
    """Return the id if it has the form of one of ours, else raise `JobNotFound`."""
    if not _JOB_ID.fullmatch(str(job_id)):
        raise JobNotFound(str(job_id)[:MAX_SHOWN])
    return job_id


#: How much of a foreign id an error repeats.
MAX_SHOWN = 64


@dataclass(frozen=True, slots=True)
class Keys:
    """The Redis keys of one shard; `ledger/lua/_lib.lua` spells the same shapes.

    All hold the shard's hash tag, so that one script touches one slot of a cluster.
    """

    namespace: str
    shard: int

    @property
    def root(self) -> str:
        """Return what all keys of the shard begin with."""
        return f"{self.namespace}:{{{self.shard:0{_SHARD_DIGITS}x}}}"

    def job(self, job_id: str) -> str:
        """HASH: the record of one job and of its turn."""
        return f"{self.root}:job:{job_id}"

    def events(self, job_id: str) -> str:
        """STREAM: the reply stream of one job."""
        return f"{self.root}:events:{job_id}"

    def usage(self, lane: str) -> str:
        """HASH: what the replies of a lane's user have cost; it ends some time after the last.

        Like the history of a conversation, LIST `talk:<lane>/<hash>`, it bears its lane's id, so
        that whoever erases the user finds it.
        """
        return f"{self.root}:usage:{lane}"

    def tenant_usage(self, tenant: str) -> str:
        """HASH: what the replies of a tenant have cost, since ever."""
        return f"{self.root}:tenant-usage:{tenant}"

    def wake(self, job_id: str) -> str:
        """CHANNEL: a message here says that the reply stream grew, and by which type of event."""
        return f"{self.root}:wake:{job_id}"

    @property
    def sequence(self) -> str:
        """STRING: the counter that sequence numbers, fences and event ids come from."""
        return f"{self.root}:seq"

    @property
    def dead(self) -> str:
        """ZSET: job ids of turns that were buried, by when."""
        return f"{self.root}:dead"

    @property
    def failed(self) -> str:
        """ZSET: ids of failed jobs that were neither replayed nor discarded, by when."""
        return f"{self.root}:failed"

    @property
    def quarantine(self) -> str:
        """STREAM: notes of messages that were no hints; on the first shard."""
        return f"{self.root}:quarantine"

    @property
    def fenced(self) -> str:
        """CHANNEL: job ids whose running attempt was just overtaken or cancelled."""
        return f"{self.root}:fenced"

    @property
    def gate_news(self) -> str:
        """CHANNEL: '<shut|doubted> <gate>', when that has just become so."""
        return f"{self.root}:gate-news"


def queue_key(queue: str, priority: Priority = "high") -> str:
    """Return the Redis list that kombu keeps a queue's messages of one priority in."""
    step = PRIORITY_STEPS[priority]
    return f"{queue}\x06\x16{step}" if step else queue


def queue_prefix(namespace: str) -> str:
    """Return what the queues of a namespace begin with in Redis: nothing for the default one.

    So `replies` and `memories` are the lists that everyone expects, and a second fleet on the
    same Redis, under another namespace, has its own.
    """
    return "" if namespace == "afterword" else f"{namespace}:"
