"""Which servers hold the ledger and the queues, and which of several hosts takes writes now."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeAlias

from redis import Redis, exceptions
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from afterword.shared.errors import Misconfigured
from afterword.shared.names import Keys
from afterword.shared.settings import RedisSettings
from afterword.shared.urls import CLUSTER, REDIS, Url, UrlForm, parse_ledger, parse_url, split_urls

#: How long a host may take to say what it is. A submit waits two seconds in all.
PROBE_S = 0.6

#: Once one host has said that it is the primary, how long to wait whether another says so, too.
_SECOND_S = 0.2

_PORT, _SENTINEL_PORT = 6379, 26379

Address: TypeAlias = tuple[str, int]

#: Returns the address to connect to now. Blocks for about a second at most.
Locate: TypeAlias = Callable[[], Address]

_UntypedSentinel: Any = Sentinel  # redis-py does not annotate it

#: As a cluster's URL, and its path the slot whose node is meant. Not for settings.
_OF_SLOT = {
    scheme: UrlForm(form.example, "/[0-9]{1,5}", form.options, form.hosts)
    for scheme, form in CLUSTER.items()
}


class NotLocated(exceptions.ConnectionError):
    """No host that takes writes was found; `cause` says why, as in `transport.causes`."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def ledger_urls(settings: RedisSettings) -> list[str]:
    """Return the URL of each server; the shard of index i is on the one of index i modulo all.

    A cluster has one for each shard, which names its slot. Raises `Misconfigured` if there is no
    server, or if one would hold no shard.
    """
    if settings.redis_url is None:
        raise Misconfigured("AFTERWORD_REDIS_URL", "must be set: there is no ledger without it")
    urls = split_urls(settings.redis_url)
    if is_cluster(settings):
        roots = [Keys(settings.namespace, shard).root for shard in range(settings.shards)]
        return [_of_slot(urls[0], key_slot(root.encode())) for root in roots]
    if len(urls) > settings.shards:
        reason = f"is {settings.shards}, and AFTERWORD_REDIS_URL names {len(urls)} servers"
        raise Misconfigured("AFTERWORD_SHARDS", f"{reason}: each holds a shard at least")
    return urls


def is_cluster(settings: RedisSettings) -> bool:
    """Return whether the ledger is in a Redis Cluster."""
    return (settings.redis_url or "").partition("://")[0] in CLUSTER


def broker_url(settings: RedisSettings) -> str:
    """Return the URL of the broker; raise `Misconfigured` if there is none that Celery can use."""
    if settings.broker_url is not None:
        return settings.broker_url
    if settings.redis_url is None:
        raise Misconfigured("AFTERWORD_REDIS_URL", "must be set: there is no broker without it")
    if is_cluster(settings):
        reason = "must be set: Celery cannot keep its queues in a Redis Cluster, so name another"
        raise Misconfigured("AFTERWORD_BROKER_URL", f"{reason} Redis for them")
    return split_urls(settings.redis_url)[0]


def broker_is_apart(settings: RedisSettings) -> bool:
    """Return whether hints are sent to the broker, because no script of the ledger can push them.

    With several servers one of them may be the broker: then the scripts on it do not push, either.
    """
    return broker_url(settings) != settings.redis_url


def place(settings: RedisSettings) -> str:
    """Return where the ledger is, without login and options."""
    assert settings.redis_url is not None, "there is no ledger without it"
    places = [url.place for url in parse_ledger(settings.redis_url)]
    return " ".join([*places, settings.namespace])


def is_in_cluster(url: str) -> bool:
    """Return whether a URL names the node that has a slot."""
    return url.partition("://")[0] in CLUSTER


def server_url(url: str) -> str:
    """Return the URL of one server in redis-py's form: the first of several hosts."""
    parts = _parsed(url)
    if parts.scheme == "unix":
        return url
    return parts.of_one_server(parts.host.partition(",")[0], parts.tls_options)


def node_url(url: str, address: Address) -> str:
    """Return the URL of one node of the cluster that a URL names, in redis-py's form."""
    parts, (host, port) = _parsed(url), address
    named = f"[{host}]" if ":" in host else host
    return parts.of_one_server(f"{named}:{port}", parts.tls_options)


def locator(url: str) -> Locate | None:
    """Return what finds the address to connect to; None if the URL names one server."""
    parts = _parsed(url)
    if "+sentinel" in parts.scheme:
        return _SentinelLocator(parts)
    if "+cluster" in parts.scheme:
        return _SlotLocator(parts, int(parts.path.strip("/")))
    return _HostLocator(parts) if len(parts.hosts) > 1 else None


def locating(kind: Any, locate: Locate) -> Any:
    """Return a class of blocking connections that look for their server when they open."""

    class Locating(kind):  # type: ignore[misc]
        def _connect(self) -> Any:
            self.host, self.port = locate()
            return super()._connect()

    return Locating


def _of_slot(url: str, slot: int) -> str:
    before, mark, query = url.partition("?")
    return f"{before.rstrip('/')}/{slot}{mark}{query}"


def _parsed(url: str) -> Url:
    return parse_url(url, {**REDIS, **_OF_SLOT})


def _login(parts: Url) -> dict[str, Any]:
    """Return what redis-py needs besides an address to ask a host."""
    tls: dict[str, Any] = {"ssl": True, **parts.tls_options} if parts.tls else {}
    if "ssl_check_hostname" in tls:
        tls["ssl_check_hostname"] = tls["ssl_check_hostname"] == "true"
    return {
        "username": parts.username or None,
        "password": parts.password or None,
        "socket_timeout": PROBE_S,
        "socket_connect_timeout": PROBE_S,
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": True,
        "protocol": 2,
        **tls,
    }


class _HostLocator:
    """Finds the one of several hosts that says it is the primary.

    If none does, the address of one that says why: its answer to the connection names the cause.
    """

    def __init__(self, parts: Url) -> None:
        self._hosts = [(host, port or _PORT) for host, port in parts.hosts]
        self._login = _login(parts)

    def __call__(self) -> Address:
        roles = self._roles()
        primaries = [host for host, role in roles.items() if role == "master"]
        if len(primaries) > 1:
            raise NotLocated("two_primaries")
        for wanted in ("master", "refused", "loading", "slave", ""):
            for host in self._hosts:
                if roles.get(host, "") == wanted:
                    return host
        return self._hosts[0]

    def _roles(self) -> dict[Address, str]:
        """Ask all hosts at once what they are: one that is silent holds up none of the others."""
        executor = ThreadPoolExecutor(len(self._hosts), thread_name_prefix="redis-host")
        futures = {executor.submit(self._role, host): host for host in self._hosts}
        executor.shutdown(wait=False)
        open_ones: set[Future[str]] = set(futures)
        found: dict[Address, str] = {}
        while open_ones:
            left_s = _SECOND_S if "master" in found.values() else 2 * PROBE_S
            done, open_ones = wait(open_ones, left_s, return_when="FIRST_COMPLETED")
            if not done:
                break
            found |= {futures[one]: one.result() for one in done}
        return found

    def _role(self, host: Address) -> str:
        """Return what a host says it is; or "refused", if it does not want us; or ""."""
        try:
            with Redis(*host, **self._login) as client:
                return str(client.info("replication").get("role", "refused"))
        except exceptions.BusyLoadingError:
            return "loading"
        except (exceptions.AuthenticationError, exceptions.ResponseError):
            return "refused"
        except (exceptions.RedisError, OSError, ValueError):
            return ""


class _SentinelLocator:
    """Asks Sentinels, one after the other, for the address of a primary."""

    def __init__(self, parts: Url) -> None:
        self._hosts = [(host, port or _SENTINEL_PORT) for host, port in parts.hosts]
        self._name = parts.path.strip("/")
        self._login = _login(parts) | {
            "username": parts.options.get("sentinel_username") or None,
            "password": parts.options.get("sentinel_password") or None,
        }

    def __call__(self) -> Address:
        sentinels: Any = _UntypedSentinel(self._hosts, sentinel_kwargs=self._login)
        try:
            host, port = sentinels.discover_master(self._name)
            return str(host), int(port)
        except MasterNotFoundError:
            cause = _why_none(sentinels)
        except exceptions.ResponseError:
            cause = "no_sentinel"
        finally:
            sentinels.close()
        if cause:
            raise NotLocated(cause)
        return self._hosts[0]  # none can be reached: the connection names the cause


def _why_none(sentinels: Any) -> str:
    """Return why no Sentinel named a primary; nothing if none can be reached."""
    for one in sentinels.sentinels:
        try:
            one.ping()
        except exceptions.AuthenticationError:
            return "sentinel_refuses"
        except (exceptions.RedisError, OSError):
            continue
        return "no_primary"
    return ""


class _SlotLocator:
    """Asks the nodes of a cluster, the ones that answered first, for the one that has a slot."""

    def __init__(self, parts: Url, slot: int) -> None:
        self._nodes = [(host, port or _PORT) for host, port in parts.hosts]
        self._slot = slot
        self._login = _login(parts)

    def __call__(self) -> Address:
        for node in list(self._nodes):
            # Another node is asked the next time: this one may be cut off from the others.
            self._nodes.remove(node)
            self._nodes.append(node)
            try:
                found = self._ask(node)
            except (exceptions.AuthenticationError, exceptions.ResponseError):
                return node  # it refuses us, or is no node of a cluster, and says so itself
            except (exceptions.RedisError, OSError):
                continue
            if found:
                return found
        return self._nodes[0]

    def _ask(self, node: Address) -> Address | None:
        with Redis(*node, **self._login) as client:
            ranges: list[list[Any]] = client.execute_command("CLUSTER", "SLOTS")
        found = None
        for first, last, *nodes in ranges:
            addresses = [(str(host or node[0]), int(port)) for host, port, *_ in nodes]
            self._learn(addresses)
            if first <= self._slot <= last:
                found = addresses[0]  # the primary; replicas follow
        return found

    def _learn(self, nodes: Sequence[Address]) -> None:
        for node in nodes:
            if node not in self._nodes:
                self._nodes.append(node)
