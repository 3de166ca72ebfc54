"""What an error of Redis, or on the way to it, means: one of our errors that names the cause.

No text of a server or a library is repeated: it may hold what was sent, a password included.
"""

from __future__ import annotations

import errno
import re
import socket
import ssl
from collections.abc import Iterator

from redis import exceptions

from afterword.shared.errors import LedgerUnavailable, Misconfigured, QueueFull
from afterword.shared.servers import NotLocated
from afterword.shared.transport.connection import NotConnected, SlotClosed, SlotMoved
from afterword.shared.urls import is_local_stack

_SETTING = "AFTERWORD_REDIS_URL"

#: What may end by itself, so that a retry can help: the cause, and what it means in words.
WORDS: dict[str, str] = {
    "refused": "nothing listens at its address (connection refused)",
    "no_such_host": "its host name is unknown",
    "no_such_file": "a file that its URL names does not exist: the socket, or a certificate",
    "unreachable": "the network does not reach its host",
    "untrusted_certificate": "its certificate is not trusted",
    "no_tls": "it does not speak TLS; for a Redis without TLS the URL begins with redis://",
    "silent": "it gives no answer",
    "closed": "it closed the connection",
    "closed_at_once": "it closes the connection at once; if it wants TLS, the URL begins with "
    "rediss://",
    "loading": "it is still loading its data",
    "busy": "a script of another client blocks it; SCRIPT KILL ends that",
    "read_only": "it is a replica and takes no writes; name the primary",
    "primary_down": "it is a replica that has lost its primary",
    "cannot_persist": "it cannot write to its disk",
    "too_few_replicas": "it takes no writes while too few replicas are connected",
    "too_many_clients": "it has as many clients as its maxclients allows",
    "no_primary": "no Sentinel that answers knows a primary of the name that the URL has",
    "sentinel_refuses": "a Sentinel asks for a login; the URL's options sentinel_username and "
    "sentinel_password name it",
    "no_sentinel": "what answers at its address is no Sentinel, or refuses SENTINEL MASTERS",
    "two_primaries": "several of its hosts say that they are the primary; stop all but the one "
    "with the newest data",
    "slot_moved": "the slot of the shard has moved to another node of the cluster",
    "slot_closed": "the cluster serves no writes to the slot of the shard: it is being moved, or "
    "has no primary",
}

#: What says of the local stack's Redis, whose socket is there while it runs, that it was stopped.
_STOPPED = frozenset({"refused", "no_such_file", "closed", "closed_at_once"})

#: What it says itself: it runs, and starting it again would help nobody.
_RUNS = frozenset({"busy", "cannot_persist", "too_many_clients"})

#: What can be done about the Redis of the local stack if it gives no answer.
LOCAL_REMEDY = (
    "it starts again by itself while the stack runs; else end the commands that use it, and start "
    "`afterword up` or `afterword chat` again"
)

#: What Redis says itself in place of doing what it was sent.
_REFUSALS = frozenset(
    {
        "loading", "busy", "read_only", "primary_down", "cannot_persist", "too_few_replicas",
        "too_many_clients", "slot_moved", "slot_closed",
    }
)  # fmt: skip

#: By how an answer of the server begins: redis-py has no class of its own for these.
_TRANSIENT_TEXTS = {
    "BUSY": "busy",
    "MISCONF": "cannot_persist",
    "NOREPLICAS": "too_few_replicas",
    "max number of clients": "too_many_clients",
}
_TRANSIENT_TYPES: tuple[tuple[type[Exception], str], ...] = (
    (SlotMoved, "slot_moved"),
    (SlotClosed, "slot_closed"),
    (exceptions.BusyLoadingError, "loading"),
    (exceptions.ReadOnlyError, "read_only"),
    (exceptions.MasterDownError, "primary_down"),
    (ssl.SSLCertVerificationError, "untrusted_certificate"),
    (ssl.SSLError, "no_tls"),
    (socket.gaierror, "no_such_host"),
    (ConnectionRefusedError, "refused"),
    (FileNotFoundError, "no_such_file"),
    (exceptions.TimeoutError, "silent"),
    (TimeoutError, "silent"),
    (ConnectionError, "closed"),
    (OSError, "unreachable"),
    (exceptions.ConnectionError, "closed"),
)

#: What no retry can help: the cause, and what it means in words.
MISCONFIGURED_WORDS: dict[str, str] = {
    "no_password": "it asks for a password, and the URL has none",
    "unwanted_password": "the URL has a password, and the server has none",
    "wrong_password": "it refuses the user name or the password",
    "no_such_database": "it has no database of the number that the URL names",
    "forbidden_command": "its user may not run a command that Afterword needs",
    "forbidden_keys": "its user may not use the keys that begin with AFTERWORD_NAMESPACE",
    "forbidden_channels": "its user may not use the channels that begin with AFTERWORD_NAMESPACE",
    "forbidden": "its user lacks a permission that the ledger needs",
    "cluster": "it is a node of a Redis Cluster; for a cluster the URL begins with redis+cluster://",
    "no_cluster": "it is a single Redis and no cluster; its URL begins with redis://",
    "sentinel": "it is a Sentinel; with the name of the primary that it watches over the URL is "
    "redis+sentinel://host:26379/name",
    "unknown_command": "it does not know a command that the ledger needs; is it a Sentinel?",
    "no_redis": "what answers at its address is no Redis",
}

#: By what an answer of the server says.
_MISCONFIGURED_TEXTS = {
    "Authentication required": "no_password",
    "without any password configured": "unwanted_password",
    "invalid username-password": "wrong_password",
    "DB index is out of range": "no_such_database",
    "SELECT is not allowed in cluster mode": "cluster",
    "unknown command": "unknown_command",
    "access a key": "forbidden_keys",
    "access a channel": "forbidden_channels",
    "one of the keys": "forbidden_keys",
    "one of the channels": "forbidden_channels",
}
_MISCONFIGURED_TYPES: tuple[tuple[type[Exception], str], ...] = (
    (exceptions.AuthenticationError, "wrong_password"),
    (exceptions.NoPermissionError, "forbidden"),
    (exceptions.ClusterError, "cluster"),
    (exceptions.ClusterCrossSlotError, "cluster"),
    (exceptions.AskError, "cluster"),
    (exceptions.TryAgainError, "cluster"),
    (exceptions.InvalidResponse, "no_redis"),
)

#: The command that a user of an ACL may not run; nothing else of the text is used.
_FORBIDDEN = re.compile(r"permissions to run the '([a-z|]{1,40})' command")


def translated(error: Exception) -> Exception:
    """Return our error for one of Redis; a missing script or a bug is returned unchanged."""
    text = str(error)
    if isinstance(error, exceptions.OutOfMemoryError) or text.startswith("OOM"):
        return QueueFull(
            "Redis is at its maxmemory; try again later", setting="AFTERWORD_REDIS_URL"
        )
    if cause := _misconfigured(error, text):
        return Misconfigured(_SETTING, _misconfigured_words(cause, text), cause=cause)
    cause, details = _transient(error, text)
    if cause:
        sent = not isinstance(error, NotConnected) and cause not in _REFUSALS
        reason = f"{_SETTING}: {WORDS[cause]}{details}"
        return LedgerUnavailable(reason, cause=cause, may_be_accepted=sent)
    return error


def spoken(reason: str, url: str, cause: str) -> str:
    """Return a reason as it is told to whoever uses the Redis of a URL.

    Nobody has set the URL of the local stack: what helps there is told, and not the setting.
    """
    if not is_local_stack(url):
        return reason
    known = reason.removeprefix(f"{_SETTING}: ")
    if cause in _STOPPED:
        known = known.replace(WORDS[cause], "its Redis does not run")
    if cause in _RUNS:
        return f"the local stack: {known}"
    return f"the local stack: {known}; {LOCAL_REMEDY}"


def _misconfigured(error: Exception, text: str) -> str:
    """Return the cause that no retry can help; empty if one can."""
    if isinstance(error, exceptions.MasterDownError):
        return ""  # for redis-py it is an error of a cluster
    if _FORBIDDEN.search(text):
        return "forbidden_command"
    if isinstance(error, exceptions.ResponseError | exceptions.AuthenticationError):
        for part, cause in _MISCONFIGURED_TEXTS.items():
            if part in text:
                return cause
    return next((cause for kind, cause in _MISCONFIGURED_TYPES if isinstance(error, kind)), "")


def misconfigured(cause: str) -> Misconfigured:
    """Return the error of a cause that no retry can help."""
    return Misconfigured(_SETTING, MISCONFIGURED_WORDS[cause], cause=cause)


def _misconfigured_words(cause: str, text: str) -> str:
    """Return what a cause means; a command that is forbidden is named."""
    if cause == "forbidden_command" and (found := _FORBIDDEN.search(text)):
        return f"its user may not run {found[1].upper()}, which Afterword needs"
    return MISCONFIGURED_WORDS[cause]


def _transient(error: Exception, text: str) -> tuple[str, str]:
    """Return the cause, if it may end by itself, and details of it; else nothing."""
    for beginning, cause in _TRANSIENT_TEXTS.items():
        if text.startswith(beginning):
            return cause, ""
    known = [(cause, each) for each in _chain(error) if (cause := _cause_of(each))]
    if not known:
        return "", ""
    if not isinstance(error, NotConnected):
        return known[0][0], ""
    cause, root = known[-1]  # the errors before it say only that there is no connection
    if cause == "silent" and error.tls:
        return "no_tls", ""
    if cause == "closed" and not error.tls:
        return "closed_at_once", ""
    return cause, _details(root)


def _cause_of(error: BaseException) -> str:
    if isinstance(error, NotLocated):
        return error.cause
    return next((cause for kind, cause in _TRANSIENT_TYPES if isinstance(error, kind)), "")


def _details(error: BaseException) -> str:
    """Return what the system says of an error; it never saw a user or a password."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f" ({error.verify_message.rstrip('.')})"
    name = errno.errorcode.get(error.errno or 0) if type(error) is OSError else None
    return f" ({name})" if name else ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and those that led to it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
