"""The Celery app through which workers take hints and operators inspect them: its settings."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from celery import Celery
from kombu import Queue
from kombu.transport import TRANSPORT_ALIASES, redis

from afterword.shared.names import MEMORIES, PRIORITY_STEPS, REPLIES, queue_prefix
from afterword.shared.servers import Locate, broker_url, locating, locator
from afterword.shared.settings import RedisSettings, Settings
from afterword.shared.urls import REDIS, Url, parse_url


def make_app(settings: Settings) -> Celery:
    """Build the Celery app of these settings, without connecting or becoming the current app.

    Raises `Misconfigured` if there is no broker.
    """
    address = broker_address(settings)
    app = Celery("afterword", set_as_current=False, fixups=[])
    app.backend_cls = "disabled"  # whatever CELERY_RESULT_BACKEND says, meant for another app
    app.conf.update(_POLICY)
    app.conf.update(
        broker_url=address,
        # These two win over CELERY_BROKER_URL.
        broker_read_url=address,
        broker_write_url=address,
        broker_transport=_ALIAS,
        broker_transport_options=_transport_options(settings),
        task_queues=[Queue(name, routing_key=name) for name in (REPLIES, MEMORIES)],
        worker_concurrency=settings.concurrency,
    )
    return app


def broker_address(settings: RedisSettings) -> str:
    """Return the broker's address in kombu's form, which differs from redis-py's for some.

    Of several hosts or Sentinels it names the first; see `Channel`.
    """
    parts = parse_url(broker_url(settings), REDIS)
    return _socket_address(parts) if parts.scheme == "unix" else _tcp_address(parts)


def _socket_address(parts: Url) -> str:
    login = _login(
        parts.options.get("username", parts.username), parts.options.get("password", parts.password)
    )
    return f"redis+socket://{login}{quote(parts.path)}?virtual_host={parts.database}"


def _tcp_address(parts: Url) -> str:
    tls = parts.tls_options
    if parts.tls:
        tls.setdefault("ssl_cert_reqs", "required")  # as redis-py; kombu would trust anyone
    return parts.of_one_server(parts.host.partition(",")[0], tls)


def _login(username: str, password: str) -> str:
    named = f"{quote(username, safe='')}:{quote(password, safe='')}@"
    return named if username or password else ""


#: The same for every app. A hint is acknowledged when it starts and never prefetched: the lease in
#: the ledger guarantees what late acknowledgement does not.
_POLICY: dict[str, Any] = {
    "accept_content": ["json"],
    "broker_connection_max_retries": None,
    "broker_connection_retry_on_startup": True,
    "task_acks_late": False,
    "task_create_missing_queues": False,
    "task_default_exchange": "",  # the direct one: it needs no bindings in Redis
    "task_default_queue": REPLIES,
    "task_ignore_result": True,
    "task_send_sent_event": False,
    "task_serializer": "json",
    # No effect on tasks that are acknowledged early; false would log a warning each time.
    "worker_cancel_long_running_tasks_on_connection_loss": True,
    "worker_disable_prefetch": True,
    "worker_enable_prefetch_count_reduction": False,
    "worker_enable_remote_control": True,
    "worker_hijack_root_logger": False,
    "worker_prefetch_multiplier": 1,
    "worker_redirect_stdouts": False,
    "worker_send_task_events": False,
}


class Channel(redis.Channel):
    """kombu's Redis channel, which looks for its server if the broker has several hosts.

    kombu's own ways know Sentinels only for workers, and take a replica for a broker.
    """

    from_transport_options = (*redis.Channel.from_transport_options, "locate")

    #: Set if the broker has several hosts or Sentinels.
    locate: Locate | None = None

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 as kombu
        found: dict[str, Any] = super()._connparams(asynchronous)  # type: ignore[misc]
        if self.locate is not None:
            found["connection_class"] = locating(found["connection_class"], self.locate)
        return found


class Transport(redis.Transport):
    """The Redis transport with our `Channel`."""

    Channel = Channel


#: The name of our transport, which logs show as the scheme of the connection.
_ALIAS = "afterword-redis"
TRANSPORT_ALIASES[_ALIAS] = f"{__name__}:Transport"


def _transport_options(settings: RedisSettings) -> dict[str, Any]:
    return {
        "locate": locator(broker_url(settings)),
        "client_name": "afterword",
        "global_keyprefix": queue_prefix(settings.namespace),
        "max_connections": 20,
        "priority_steps": sorted(PRIORITY_STEPS.values()),
        "queue_order_strategy": "round_robin",
        # Without timeouts a connection whose other end has vanished hangs for ever.
        "health_check_interval": 3,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "socket_timeout": 3,
        "retry_on_timeout": False,  # an LPUSH that timed out may have happened
        "max_retries": 0,  # a sender does not wait until the broker is back; workers do
        # A hint is popped, and no copy is kept while it runs: a copy takes two thirds of the time
        # of a hint, and would come back when it is not needed any more.
        "ack_emulation": False,
    }
