"""Every error of ours, drawn as a tree by what a caller would do.

    AfterwordError
    ├─ InvalidRequest(field)         fix the call
    ├─ Misconfigured(setting)        fix the environment
    ├─ NotAccepted                   nothing was promised; send again, same idempotency key
    │  ├─ LedgerUnavailable          Redis is away, slow or not fit for use
    │  ├─ NotReplicated              unknown: it may have been accepted, send it again
    │  ├─ QueueFull                  wait, then send again
    │  ├─ ConversationBusy           an earlier message of the conversation has no reply yet
    │  └─ KeyReused                  the idempotency key belongs to another body
    ├─ JobNotFound                   never existed, or its retention time is over
    ├─ NewerRecord                   a newer version wrote it: ask again with that
    ├─ NoReplyInTime                 the job goes on; ask again with its id
    ├─ JobFailed(code)               the job has ended without a reply
    ├─ LeaseLost                     someone newer owns it; write nothing, stop the call
    ├─ IllegalStep                   a bug: a record was asked to do what it cannot
    └─ ProviderError(blame)               Claude or mem0 did not give what was asked
       ├─ Unavailable · RateLimited  provider: nobody's attempt is spent
       ├─ AccessDenied               operator: key revoked, quota spent, bad configuration
       └─ Rejected · BadAnswer       request: fail or bury it, let the next one go on

No text of an error carries content: not a prompt, reply, memory or key (promise I11).
"""

from __future__ import annotations

from enum import StrEnum


class AfterwordError(Exception):
    """Something Afterword was asked for did not happen."""


class InvalidRequest(AfterwordError):
    """A request is refused before anything is written; `field` names the culprit."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class Misconfigured(AfterwordError):
    """A setting cannot work; `setting` is its environment variable."""

    def __init__(self, setting: str, reason: str) -> None:
        super().__init__(f"{setting}: {reason}")
        self.setting = setting
        self.reason = reason


class NotAccepted(AfterwordError):
    """The job was not accepted; sending it again with the same key is always safe."""


class LedgerUnavailable(NotAccepted):
    """Redis did not confirm the step in time."""


class NotReplicated(NotAccepted):
    """Redis has the job, but too few replicas confirmed it: it may have been accepted.

    Sent again with the same idempotency key it gives the same job, once it is safe.
    """


class QueueFull(NotAccepted):
    """The ledger holds as many open jobs as it may."""


class ConversationBusy(NotAccepted):
    """An earlier message of the conversation has no reply yet, and the request was not to wait."""


class KeyReused(NotAccepted):
    """The idempotency key was used before with another request."""


class JobNotFound(AfterwordError):
    """No record of that job or run: it never existed, or its retention time is over."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"{job_id} is not known: it never existed or its retention time is over")
        self.job_id = job_id


class NoReplyInTime(AfterwordError):
    """The wait is over, the job is not: ask again with the same job id."""

    def __init__(self, job_id: str, waited_s: float) -> None:
        super().__init__(f"job {job_id} has no reply after {waited_s:g} s; it goes on")
        self.job_id = job_id


class JobFailed(AfterwordError):
    """The job ended without a reply; `code` says why, `state` how."""

    def __init__(self, job_id: str, state: str, code: str) -> None:
        super().__init__(f"job {job_id} {state}: {code}")
        self.job_id = job_id
        self.state = state
        self.code = code


class NewerRecord(AfterwordError):
    """A newer version wrote the record: this one leaves it as it is, or cannot read it."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"job {job_id} was written by a newer version; ask again with that")
        self.job_id = job_id


class LeaseLost(AfterwordError):
    """Someone newer owns this job or lane: write nothing more."""


class IllegalStep(AfterwordError):
    """A record was asked for a step its state does not allow."""


class Fault(StrEnum):
    """Who has to act on a failure: the provider, the operator, or whoever made the request."""

    PROVIDER = "provider"
    OPERATOR = "operator"
    REQUEST = "request"


class ProviderError(AfterwordError):
    """Claude or mem0 did not give what was asked.

    `code` is a short fixed word for the ledger, `request_id` the provider's own, and
    `unknown_outcome` is true when the call may have taken effect all the same.
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
    """The provider is down, overloaded, unreachable or too slow."""


class RateLimited(ProviderError):
    """The provider asked us to wait."""


class AccessDenied(ProviderError):
    """The provider refuses our key, our account or our configuration."""

    fault = Fault.OPERATOR


class Rejected(ProviderError):
    """The provider refuses this one request; sending it again cannot help."""

    fault = Fault.REQUEST


class NoSuchModel(Rejected):
    """The provider does not have the model: it is misspelt, retired or not for us."""


class BadAnswer(ProviderError):
    """The provider's answer is cut short or not what it should be; again may help."""

    fault = Fault.REQUEST
