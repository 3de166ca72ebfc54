"""Several real servers that stand for one another: a pair, one under Sentinels, a cluster."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from tests.kit.servers.valkey import Valkey, free_port, release_port, server_binary
from tests.kit.waiting import wait_until

#: What every server of a group keeps: no write without a replica.
KEPT = ("--appendonly", "yes", "--min-replicas-to-write", "1", "--repl-diskless-sync-delay", "0")

#: After how much silence Sentinels and nodes take a server for lost.
_LOST_MS = 1500
_SLOTS = 16_384


class Pair:
    """A primary and its replica; each may become the other."""

    def __init__(self, primary: Valkey, replica: Valkey) -> None:
        self.primary = primary
        self.replica = replica

    @property
    def url(self) -> str:
        """Return the URL that names both, the one that is the replica now first."""
        return f"redis://127.0.0.1:{self.replica.port},127.0.0.1:{self.primary.port}/0"

    def promote(self) -> None:
        """Kill the primary and let the replica take its place, as an operator would."""
        self.primary.kill()
        with self.replica.client() as client:
            client.replicaof("NO", "ONE")
        self.return_old()

    def switch(self) -> None:
        """Let both change places while they run: the old primary then refuses writes."""
        with self.replica.client() as new, self.primary.client() as old:
            new.replicaof("NO", "ONE")
            old.replicaof("127.0.0.1", str(self.replica.port))
        self.primary, self.replica = self.replica, self.primary
        self.wait_until_replicated()

    def return_old(self) -> None:
        """Start the old primary again, as the replica of the new one."""
        self.primary.start("--replicaof", f"127.0.0.1 {self.replica.port}")
        self.primary, self.replica = self.replica, self.primary
        self.wait_until_replicated()

    def wait_until_replicated(self) -> None:
        """Wait until the replica is there."""
        with self.primary.client() as client:
            wait_until(lambda: _replicas(client) == 1, "the replica is there", 30)


@contextmanager
def pair() -> Iterator[Pair]:
    """Start a primary and its replica."""
    with Valkey(*KEPT) as primary, Valkey(*KEPT) as replica:
        with replica.client() as client:
            client.replicaof("127.0.0.1", str(primary.port))
        opened = Pair(primary, replica)
        opened.wait_until_replicated()
        yield opened


class Sentinels:
    """Three Sentinels that watch over a pair."""

    NAME = "mymaster"

    def __init__(self, watched: Pair, ports: Sequence[int]) -> None:
        self.watched = watched
        self.ports = ports

    @property
    def url(self) -> str:
        """Return the URL that names them."""
        hosts = ",".join(f"127.0.0.1:{port}" for port in self.ports)
        return f"redis+sentinel://{hosts}/{self.NAME}"

    def client(self, port: int, password: str | None = None) -> Any:
        """Return a client of one of them."""
        return _client(port, password)

    def wait_for_failover(self) -> None:
        """Wait until all of them name the replica as the primary, and it is one."""
        wanted = ("127.0.0.1", self.watched.replica.port)
        for port in self.ports:
            with _client(port) as client:
                wait_until(partial(_names, client, wanted), "the replica is promoted", 60)


@contextmanager
def sentinels(watched: Pair, folder: Path) -> Iterator[Sentinels]:
    """Start three Sentinels and wait until they know each other and the pair."""
    with ExitStack() as stack:
        watching = (one_sentinel(watched.primary.port, folder) for _ in range(3))
        ports = [stack.enter_context(one) for one in watching]
        for port in ports:
            client = stack.enter_context(_client(port))
            wait_until(partial(_knows_all, client), "the Sentinel knows all", 60)
        yield Sentinels(watched, ports)


@contextmanager
def one_sentinel(primary: int, folder: Path, *, quorum: int = 2) -> Iterator[int]:
    """Start a Sentinel that watches over the primary at a port; give its own port."""
    port = free_port()
    file, name = folder / f"sentinel-{port}.conf", Sentinels.NAME
    file.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor {name} 127.0.0.1 {primary} {quorum}\n"
        f"sentinel down-after-milliseconds {name} {_LOST_MS}\n"
        f"sentinel failover-timeout {name} 10000\n"
    )
    command = [str(server_binary()), str(file), "--sentinel"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            yield port
        finally:
            process.kill()
    release_port(port)


def _client(port: int, password: str | None = None) -> Any:
    return Redis(port=port, password=password, decode_responses=True)


def _names(client: Any, primary: tuple[str, int]) -> bool:
    with suppress(RedisError):
        return bool(client.sentinel_get_master_addr_by_name(Sentinels.NAME) == primary)
    return False


def _knows_all(client: Any) -> bool:
    with suppress(RedisError):
        (state,) = client.sentinel_masters().values()
        return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)
    return False


def _replicas(client: Any) -> int:
    with suppress(RedisError):
        found = client.info("replication")
        names = [name for name in found if name.startswith("slave")]
        return sum(
            isinstance(found[one], dict) and found[one]["state"] == "online" for one in names
        )
    return 0


class Cluster:
    """Three primaries of a cluster, each with a replica."""

    def __init__(self, nodes: Sequence[Valkey]) -> None:
        self.nodes = nodes
        self.ids = [_asked(node, "CLUSTER", "MYID") for node in nodes]

    @property
    def url(self) -> str:
        """Return a URL that names some of its nodes."""
        hosts = ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[::2])
        return f"redis+cluster://{hosts}"

    def holder(self, slot: int) -> Valkey:
        """Return the node that has a slot, as all that live agree; waits until they do."""
        found = wait_until(lambda: self._agreed(slot), "all nodes name the one with the slot", 60)
        assert found is not None
        return found

    def _agreed(self, slot: int) -> Valkey | None:
        found = {_holder(node, slot) for node in self.nodes if node.runs}
        port = found.pop()
        return next((node for node in self.nodes if node.port == port and not found), None)

    def wait_for_replica_of(self, node: Valkey) -> None:
        """Wait until a node has a replica."""
        with node.client() as client:
            wait_until(lambda: _replicas(client) == 1, "the node has a replica", 60)

    def replica_of(self, node: Valkey) -> Valkey:
        """Return the replica of a node."""
        with node.client() as client:
            port = int(client.info("replication")["slave0"]["port"])
        return next(one for one in self.nodes if one.port == port)

    def fail_over(self, slot: int) -> Valkey:
        """Kill the node that has a slot; once its replica has it, start the node again."""
        lost = self.holder(slot)
        lost.kill()
        wait_until(lambda: self._agreed(slot) not in (None, lost), "the replica took over", 60)
        lost.start()
        holder = self.holder(slot)
        self.wait_for_replica_of(holder)
        return holder

    def move(self, slot: int) -> tuple[Valkey, Valkey]:
        """Move a slot to another primary, key by key; return where it was and where it is."""
        moving = self.begin_move(slot)
        while moving.move_keys(10):
            pass
        moving.end()
        assert self.holder(slot) is moving.target
        return moving.source, moving.target

    def begin_move(self, slot: int) -> Moving:
        """Begin to move a slot to another primary, and move no key yet."""
        source, target = self._source_and_target(slot)
        ids = [_asked(node, "CLUSTER", "MYID") for node in (source, target)]
        _asked(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        _asked(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        return Moving(slot, source, target)

    def move_at_once(self, slot: int) -> None:
        """Move a slot to another primary in one step, with all its keys."""
        source, target = self._source_and_target(slot)
        target_id = _asked(target, "CLUSTER", "MYID")
        _asked(source, "CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target_id)
        wait_until(lambda: self._agreed(slot) is target, "the slot is on the other node", 60)

    def _source_and_target(self, slot: int) -> tuple[Valkey, Valkey]:
        source = self.holder(slot)
        others = (self.holder(one) for one in (1, 8000, 16_000))
        return source, next(other for other in others if other is not source)


@dataclass
class Moving:
    """A slot whose keys are on two nodes."""

    slot: int
    source: Valkey
    target: Valkey

    def move_keys(self, count: int) -> int:
        """Move as many keys, or what is left of them; return how many it moved."""
        keys = _asked(self.source, "CLUSTER", "GETKEYSINSLOT", self.slot, count)
        if keys:
            to = ("127.0.0.1", self.target.port, "", 0, 60_000)
            _asked(self.source, "MIGRATE", *to, "KEYS", *keys)
        return len(keys)

    def has_moved(self, name: str) -> bool:
        """Return whether a key that ends so is on the target."""
        keys = _asked(self.target, "CLUSTER", "GETKEYSINSLOT", self.slot, 10_000)
        return any(key.endswith(name) for key in keys)

    def end(self) -> None:
        """Let the target have the slot."""
        for node in (self.target, self.source):
            target_id = _asked(self.target, "CLUSTER", "MYID")
            _asked(node, "CLUSTER", "SETSLOT", self.slot, "NODE", target_id)


@contextmanager
def bare_cluster(nodes: Sequence[Valkey], announced: Sequence[int]) -> Iterator[None]:
    """Start nodes and make them a cluster without replicas, in which each names another port."""
    with ExitStack() as stack:
        buses = [free_port() for _ in nodes]
        for number, (node, bus, port) in enumerate(zip(nodes, buses, announced, strict=True)):
            stack.callback(release_port, bus)
            stack.callback(node.stop)
            node.start(*_as_node(bus), "--cluster-announce-port", str(port))
            _asked(node, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            first, last = number * _SLOTS // len(nodes), (number + 1) * _SLOTS // len(nodes) - 1
            _asked(node, "CLUSTER", "ADDSLOTSRANGE", first, last)
            _asked(nodes[0], "CLUSTER", "MEET", "127.0.0.1", port, bus)
        for node in nodes:
            wait_until(partial(_knows, node, len(nodes)), "the node knows all others", 60)
            wait_until(partial(_is_whole, node), "the cluster is whole", 60)
        yield


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start six nodes and make them a cluster."""
    with ExitStack() as stack:
        buses = [free_port() for _ in range(6)]
        for bus in buses:
            stack.callback(release_port, bus)
        nodes = [stack.enter_context(Valkey(*KEPT, *_as_node(bus))) for bus in buses]
        for number, node in enumerate(nodes, 1):
            _asked(node, "CLUSTER", "SET-CONFIG-EPOCH", number)
            _asked(nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port, buses[number - 1])
        for number, node in enumerate(nodes[:3]):
            first, last = number * _SLOTS // 3, (number + 1) * _SLOTS // 3 - 1
            _asked(node, "CLUSTER", "ADDSLOTSRANGE", first, last)
        for node in nodes:
            wait_until(partial(_knows, node, 6), "the node knows all others", 60)
        opened = Cluster(nodes)
        for primary, replica in zip(opened.ids[:3], nodes[3:], strict=True):
            _asked(replica, "CLUSTER", "REPLICATE", primary)
        for node in nodes[:3]:
            opened.wait_for_replica_of(node)
        for node in nodes:
            wait_until(partial(_is_whole, node), "the cluster is whole", 60)
        yield opened


def _as_node(bus: int) -> Sequence[str]:
    return (
        "--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout",
        str(_LOST_MS), "--cluster-replica-validity-factor", "0",
        "--cluster-require-full-coverage", "no",
    )  # fmt: skip


def _asked(node: Valkey, *command: str | int) -> Any:
    with node.client() as client:
        return client.execute_command(*command)


def _knows(node: Valkey, count: int) -> bool:
    with node.client() as client:
        return bool(client.cluster("info")["cluster_known_nodes"] == str(count))


def _is_whole(node: Valkey) -> bool:
    with node.client() as client:
        return bool(client.cluster("info")["cluster_state"] == "ok")


def _holder(node: Valkey, slot: int) -> int:
    with suppress(RedisError), node.client() as client:
        for first, last, primary, *_ in client.execute_command("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return int(primary[1])
    return 0
