"""What holds for every test: nothing leaves the machine, and nothing of it is looked at."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from afterword.shared.logs import log_events
from afterword.workers.adapters.mem0.import_guard import make_mem0_import_lazy
from tests.kit.fuzz import doors
from tests.kit.network_guard import sitecustomize as offline
from tests.kit.order import arrange

if TYPE_CHECKING:
    from xdist.remote import Producer

    from tests.kit.scheduler import Scheduler
    from tests.kit.servers.postgres import Postgres
    from tests.kit.servers.valkey import Valkey

ROOT = Path(__file__).parents[1]
#: Each contributes to the one package `afterword`.
ROOTS = [ROOT / "shared", ROOT / "producer", ROOT / "workers"]

_FOREIGN = ("AFTERWORD_", "ANTHROPIC_", "CELERY_", "MEM0_", "OPENAI_", "XDG_")
#: What `make test` passes on; a `make` that a test runs must not take it for its own.
_FROM_MAKE = ("ARGS", "MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "USER_ID")
#: With it every process that a test starts would compile every module anew.
_SLOWS_DOWN = ("PYTHONDONTWRITEBYTECODE",)
_HOME = tempfile.TemporaryDirectory(prefix="afterword-tests-")


def _seal(environ: os._Environ[str]) -> None:
    """Take out what a developer's machine has set; give every process we start the guard."""
    for name in list(environ):
        foreign = name.startswith(_FOREIGN) or name.lower().endswith("_proxy")
        if foreign or name in _FROM_MAKE + _SLOWS_DOWN:
            del environ[name]
    environ.update(
        HOME=_HOME.name,
        MEM0_DIR=f"{_HOME.name}/mem0",
        MEM0_TELEMETRY="False",
        PYTHONPATH=os.pathsep.join(map(str, [ROOT, *ROOTS, Path(offline.__file__).parent])),
    )


# How fast a machine makes examples says nothing about the code.
_SLOW = [HealthCheck.too_slow]
settings.register_profile("gate", derandomize=True, deadline=None, suppress_health_check=_SLOW)
settings.register_profile("hunt", deadline=None, suppress_health_check=_SLOW)
settings.load_profile("gate")

# Two fifths of the CPU of a collection of tests went into looking for garbage, and there is none.
gc.disable()

# At import, not in a fixture: mem0 reads its variables when it is imported.
_seal(os.environ)
sys.dont_write_bytecode = False
make_mem0_import_lazy()  # as workers do; all of mem0 would be a third of the time of collection

# As workers and producers do, so that tests can read what is logged.
log_events(logging.DEBUG)

# A shell starts what it runs in the background with this ignored, and so would every process that
# a test starts and then interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    arrange(items)


def pytest_collection_finish() -> None:
    """Collect garbage from now on, but not among the tests and all that they have imported."""
    gc.freeze()
    gc.enable()


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(doors)  # which counts the inputs of the fuzzers


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduler:
    from tests.kit.scheduler import Scheduler

    config.option.loadscopereorder = False
    return Scheduler(config, log)


@pytest.fixture(autouse=True)
def _stays_on_this_machine() -> Iterator[None]:
    """Fail a test that tried to leave, even if the code under test swallowed the refusal."""
    yield
    tried = offline.refused.copy()
    offline.refused.clear()
    assert not tried, f"tried to leave the machine: {tried}"


@pytest.fixture(scope="session")
def valkey() -> Iterator[Valkey]:
    """Give the one Valkey that all tests share; keep to your own `namespace` in it."""
    from tests.kit.servers.valkey import Valkey

    with Valkey() as server:
        yield server


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a certificate that no client trusts by itself; its tests are marked `needs_openssl`."""
    from tests.kit.servers.certificate import make_certificate

    return make_certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """Give the one PostgreSQL that all tests share; make yourself a database in it."""
    from tests.kit.servers.postgres import Postgres

    with Postgres() as server:
        yield server


@pytest.fixture
def namespace() -> str:
    """Give a prefix for keys that no other test has."""
    return f"t-{uuid.uuid4().hex[:12]}"
