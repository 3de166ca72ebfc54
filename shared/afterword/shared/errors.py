"""Every error of Afterword, as a tree by what the caller does about it.

    AfterwordError
    ├─ InvalidRequest(field)         fix the call
    ├─ Misconfigured(setting)        fix the environment
    ├─ NotAccepted                   send again, with the same idempotency key
    │  ├─ LedgerUnavailable          Redis is away, slow or not fit for use
    │  ├─ NotReplicated              too few replicas confirmed it; it may have been accepted
    │  ├─ QueueFull                  wait, then send again
    │  ├─ BudgetSpent                do not send again before the next period begins
    │  ├─ Blocked                    do not send again: an operator has to lift the block
    │  ├─ ConversationBusy           an earlier message of the conversation has no reply yet
    │  └─ KeyReused                  do not send again: the key belongs to a different request
    ├─ JobNotFound                   it never existed, or its retention time is over
    ├─ MemoryNotFound                the user has no such memory
    ├─ MemoriesUnavailable(code)     no memory worker could do it in time; `may_be_done` says more
    ├─ NewerRecord                   a newer version wrote it: read it with that version
    ├─ NoReplyInTime                 the job goes on; wait for it again
    ├─ JobFailed(code)               the job has ended without a reply
    ├─ LeaseLost                     somebody newer holds it; write nothing, stop the call
    ├─ IllegalStep                   a bug: the record's state does not allow the step
    └─ ProviderError(fault)          Claude or mem0 did not give what was asked for
       ├─ Unavailable · RateLimited  provider: no attempt is spent
       ├─ AccessDenied               operator: key revoked, quota spent, bad configuration
       └─ Rejected · BadAnswer       request: fail or bury it, and go on with the next one

A producer raises those above `LeaseLost`; an operator's calls raise `LeaseLost` as well. The
others stay inside the workers. No message of an error holds content: no prompt, reply, memory or
key (promise I11).
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

#: The `Retry-After` of what may be sent again: Redis is usually back within seconds.
_RETRY_AFTER_S = 1

#: The HTTP statuses of a job without a reply, by the code of its end or else by its state.
_STATUS_OF_END = {
    "erased": 410,
    "internal_error": 500,
    "undecodable": 500,
    "cancelled": 409,
    "expired": 504,
    "failed": 502,
}


#: Why memories are not available, in words; all other codes are mem0's.
_NO_MEMORIES = {
    "no_worker": "no memory worker has answered in time: start one, or wait for longer",
    "too_slow": "the memory worker took too long: ask again",
    "gate_shut": "mem0 is away or refuses: see `afterword gate list`",
    "memory_off": "AFTERWORD_MEMORY is off",
    "lane_busy": "a turn of the user was being stored all the time: ask again",
    "being_stored": "mem0 still works on its turn: ask again later",
    "being_erased": "the user is being erased",
    "too_many_requests": "too many requests wait for an answer: ask again later",
    "redactor_failed": "the redactor of AFTERWORD_REDACTOR failed",
    "newer_record": "a newer version of Afterword wrote its turn: finish the upgrade",
    "internal_error": "a bug, which the memory worker has logged",
    "unknown_action": "the memory worker is older than this program: upgrade it",
}
_MEM0_REFUSES = "mem0 is away or refuses"


class AfterwordError(Exception):
    """The base of all errors of Afterword.

    Attributes:
        http_status: the status with which a web backend answers; the table above lists them.

    """

    http_status: int = 500
    _may_be_sent_again: ClassVar[bool] = False

    @property
    def http_headers(self) -> dict[str, str]:
        """The headers that belong to `http_status`: `Retry-After`, or none."""
        return {"Retry-After": str(_RETRY_AFTER_S)} if self._may_be_sent_again else {}


class InvalidRequest(AfterwordError):
    """An argument is not valid, and nothing was written. Fix the call; do not send it again as is.

    Attributes:
        field: the argument.
        reason: what is wrong with it; never what it held.

    """

    http_status = 422

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class Misconfigured(AfterwordError):
    """A setting cannot work. Fix the environment and start again.

    Attributes:
        setting: the environment variable, such as `AFTERWORD_REDIS_URL`.
        reason: what is wrong with it; never a password or key.
        cause: for a Redis that answers, and cannot be used: why, as a fixed word such as
            `wrong_password` or `no_such_database`; empty otherwise.

    """

    def __init__(self, setting: str, reason: str, *, cause: str = "") -> None:
        super().__init__(f"{setting}: {reason}")
        self.setting = setting
        self.reason = reason
        self.cause = cause


class NotAccepted(AfterwordError):
    """The request was not accepted, or nobody knows whether it was.

    Sending it again is safe with the same idempotency key: the same request never makes a second
    job.

    Attributes:
        may_be_accepted: whether there may be a job all the same. If not, sending the request again
            is safe without an idempotency key, too.

    """

    http_status = 503
    may_be_accepted: bool = False
    _may_be_sent_again = True
    _REASON = "the request was not accepted"

    def __init__(self, reason: str | None = None) -> None:
        super().__init__(reason or self._REASON)


class LedgerUnavailable(NotAccepted):
    """Redis did not confirm in time, refused the connection, or refused the command.

    Attributes:
        cause: why, as a fixed word such as `refused`, `no_such_host`, `untrusted_certificate` or
            `silent`; empty if nobody knows.
        may_be_accepted: true if the request was sent and Redis did not answer: there may be a job,
            so send it again with the same idempotency key. False if it is certain that there is
            none, since nothing was sent or Redis refused it.

    """

    _REASON = "AFTERWORD_REDIS_URL: Redis did not confirm in time"

    def __init__(
        self, reason: str | None = None, *, cause: str = "", may_be_accepted: bool = True
    ) -> None:
        super().__init__(reason)
        self.cause = cause
        self.may_be_accepted = may_be_accepted


class NotReplicated(NotAccepted):
    """Redis stored the request, but too few replicas confirmed it: it may be lost in a failover.

    Raised with `AFTERWORD_DURABILITY=d3` only. Send it again with the same idempotency key: that
    returns the same job as soon as enough replicas have it.
    """

    may_be_accepted = True
    _REASON = "too few replicas of Redis confirmed the request"


class QueueFull(NotAccepted):
    """As much is open as a setting allows. Wait until some of it has ended, then send again.

    Attributes:
        scope: whose cap it is: `conversation`, `user`, `tenant`, or `ledger` for everybody's. A cap
            of one tenant, user or conversation does not concern the others.
        setting: the environment variable that sets the cap; empty if an operator set it.

    """

    _REASON = "AFTERWORD_MAX_QUEUED: the ledger holds as many open jobs as it may; try again later"

    def __init__(
        self,
        reason: str | None = None,
        *,
        scope: str = "ledger",
        setting: str = "AFTERWORD_MAX_QUEUED",
    ) -> None:
        super().__init__(reason)
        self.scope = scope
        self.setting = setting
        self.http_status = 503 if scope == "ledger" else 429


class BudgetSpent(NotAccepted):
    """The tenant or the user has spent what `AFTERWORD_BUDGETS` allows in this period.

    Attributes:
        scope: whose budget it is: `user` or `tenant`.
        resets_at: when the next period begins, in UTC; None if nobody knows.

    """

    http_status = 402
    _may_be_sent_again = False
    _REASON = "AFTERWORD_BUDGETS: as much is spent as may be"

    def __init__(
        self,
        reason: str | None = None,
        *,
        scope: str = "tenant",
        resets_at: datetime | None = None,
    ) -> None:
        super().__init__(reason)
        self.scope = scope
        self.resets_at = resets_at


class Blocked(NotAccepted):
    """An operator has blocked the user or the tenant: nothing of theirs is accepted meanwhile.

    Attributes:
        scope: who is blocked: `user` or `tenant`.

    """

    http_status = 403
    _may_be_sent_again = False
    _REASON = "an operator has blocked this user or tenant"

    def __init__(self, reason: str | None = None, *, scope: str = "tenant") -> None:
        super().__init__(reason)
        self.scope = scope


class ConversationBusy(NotAccepted):
    """An earlier message of the conversation has no reply yet, and `when_busy` is `reject`.

    Also raised for `interrupt`, if only a newer version of Afterword may cancel the earlier one.
    """

    http_status = 409
    _may_be_sent_again = False
    _REASON = "conversation_id: an earlier message has no reply yet"


class KeyReused(NotAccepted):
    """The idempotency key was used before with a different request. Use a new key."""

    http_status = 422
    _may_be_sent_again = False
    _REASON = "idempotency_key: it was used before with a different request"


class JobNotFound(AfterwordError):
    """There is no such job, dead letter or run: it never existed, or its retention time is over.

    Attributes:
        job_id: the id that was asked for.

    """

    http_status = 404

    def __init__(self, job_id: str) -> None:
        named = job_id or "an empty id"
        super().__init__(f"{named} is not known: it never existed or its retention time is over")
        self.job_id = job_id


class MemoryNotFound(AfterwordError):
    """The user has no memory with this id: it never existed, was deleted, or is another user's.

    Attributes:
        memory_id: the id that was asked for.

    """

    http_status = 404

    def __init__(self, memory_id: str) -> None:
        super().__init__("the user has no memory with this id")
        self.memory_id = memory_id


class MemoriesUnavailable(AfterwordError):
    """Memories could not be read or changed: no memory worker, or mem0 refuses or is away.

    To ask again is always safe: an edit and a deletion that were done are done once.

    Attributes:
        code: why, as a fixed word: `no_worker`, `memory_off`, `being_erased`, `being_stored`,
            `lane_busy`, `too_many_requests`, `too_slow`, `gate_shut`, `newer_record`, or a code of
            mem0's.
        may_be_done: whether an edit or a deletion may be done all the same, now or within
            `AFTERWORD_REPAIR_S`; if not, nothing was changed and nothing will be.

    """

    http_status = 503
    _may_be_sent_again = True

    def __init__(self, code: str, *, may_be_done: bool = False) -> None:
        advice = "it may be done all the same" if may_be_done else "nothing was changed"
        why = _NO_MEMORIES.get(code, _MEM0_REFUSES)
        super().__init__(f"memories are not available: {why} ({code}); {advice}")
        self.code = code
        self.may_be_done = may_be_done


class NoReplyInTime(AfterwordError):
    """The job had no reply when the timeout was over. It goes on: wait for it again.

    Attributes:
        job_id: the job.

    """

    http_status = 202

    def __init__(self, job_id: str, waited_s: float) -> None:
        super().__init__(f"job {job_id} has no reply after {waited_s:g} s; it goes on")
        self.job_id = job_id


class JobFailed(AfterwordError):
    """The job has ended without a reply. Submit a new one, or tell the user.

    Attributes:
        job_id: the job.
        state: `failed`, `cancelled` or `expired`.
        code: why, as a fixed word, such as `invalid_request`.

    """

    def __init__(self, job_id: str, state: str, code: str) -> None:
        super().__init__(f"job {job_id} {state}" + (f": {code}" if code != state else ""))
        self.job_id = job_id
        self.state = state
        self.code = code
        self.http_status = _STATUS_OF_END.get(code) or _STATUS_OF_END.get(state, 502)


class NewerRecord(AfterwordError):
    """A newer version of Afterword wrote the record. This version leaves it as it is: upgrade.

    Attributes:
        job_id: the job, the run, or what else was to be read.

    """

    http_status = 503

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"{job_id} was written by a newer version of Afterword, or by another program; upgrade"
        )
        self.job_id = job_id


class LeaseLost(AfterwordError):
    """Somebody newer holds this job, lane or run. Write nothing more, and stop the call."""

    http_status = 409


class IllegalStep(AfterwordError):
    """The state of a record does not allow this step. In a run of Afterword this is a bug."""


class Fault(StrEnum):
    """Whose failure it is, and so who has to act: provider, operator, or sender of the request."""

    PROVIDER = "provider"
    OPERATOR = "operator"
    REQUEST = "request"


class ProviderError(AfterwordError):
    """Claude or mem0 did not give what was asked for.

    Attributes:
        code: a short fixed word, for the ledger.
        request_id: the provider's own id of the request, if it gave one.
        retry_after_s: how long the provider asks to be left alone, in seconds.
        unknown_outcome: true if the call may have taken effect all the same.

    """

    fault = Fault.PROVIDER

    def __init__(
        self,
        code: str,
        *,
        request_id: str | None = None,
        retry_after_s: float | None = None,
        unknown_outcome: bool = False,
    ) -> None:
        super().__init__(code if request_id is None else f"{code} (request {request_id})")
        self.code = code
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.unknown_outcome = unknown_outcome


class Unavailable(ProviderError):
    """The provider is down, overloaded, unreachable or too slow. No attempt is spent."""


class RateLimited(ProviderError):
    """The provider asked to wait. No attempt is spent."""


class AccessDenied(ProviderError):
    """The provider refuses the key, the account or the configuration. An operator has to act."""

    fault = Fault.OPERATOR


class NoSuchModel(AccessDenied):
    """The provider does not have the model of a setting: misspelt, retired, or not open to us.

    For a model that a request names itself, `Rejected` is raised in its place.
    """


class Rejected(ProviderError):
    """The provider refuses this one request. Sending it again cannot help."""

    fault = Fault.REQUEST


class BadAnswer(ProviderError):
    """The provider's answer is cut short or malformed. Asking again may help."""

    fault = Fault.REQUEST


#: The setting to correct, by the code of a failure that only an operator can end.
SETTING_OF = {
    "model_not_found": "AFTERWORD_MODEL or AFTERWORD_FALLBACK_MODELS",
    "memory_model_not_found": "AFTERWORD_MEMORY_MODEL",
}
