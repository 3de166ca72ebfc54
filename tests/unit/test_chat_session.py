"""What a chat does with Ctrl-C, with the file of what was typed, and what it says to type."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from afterword.producer.cli.chat_commands import run_command
from afterword.producer.cli.chat_history import MAX_BYTES, history_file, open_private
from afterword.producer.cli.chat_session import ChatSession, interrupt_deferred
from afterword.shared.settings import Settings


def test_ctrl_c_takes_effect_once_the_block_is_over() -> None:
    before = signal.getsignal(signal.SIGINT)
    reached = False
    with pytest.raises(KeyboardInterrupt), interrupt_deferred():  # noqa: PT012 both happen in it
        os.kill(os.getpid(), signal.SIGINT)
        reached = True
    assert reached
    assert signal.getsignal(signal.SIGINT) is before


def test_an_error_of_the_block_comes_through() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ConnectionError), interrupt_deferred():
        raise ConnectionError
    assert signal.getsignal(signal.SIGINT) is before


def test_each_user_of_each_tenant_has_a_file_of_their_own_without_their_name() -> None:
    settings = Settings.load({})
    files = {
        history_file(settings, tenant, user)
        for tenant, user in (("default", "ann"), ("default", "bob"), ("t", "ann"), ("t\0", "ann"))
    }
    assert len(files) == 4
    assert "ann" not in str(history_file(settings, "default", "ann"))
    assert history_file(Settings.load({"AFTERWORD_CHAT_HISTORY": "0"}), "default", "ann") is None


def test_a_file_that_others_could_read_is_made_private(tmp_path: Path) -> None:
    file = tmp_path / "history"
    file.touch(0o666)
    file.chmod(0o666)
    open_private(file)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_link_or_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder").mkdir()
    for name in ("link", "folder"):
        with pytest.raises(OSError, match=name):
            open_private(tmp_path / name)


def test_a_long_history_keeps_its_newest_entries_whole(tmp_path: Path) -> None:
    file = tmp_path / "history"
    entries = [f"\n# 2026-11-30\n+message {n:06}\n" for n in range(50_000)]
    file.write_text("".join(entries))
    assert file.stat().st_size > MAX_BYTES
    open_private(file)
    kept = file.read_text()
    assert MAX_BYTES // 2 - 100 < len(kept) <= MAX_BYTES // 2
    assert "".join(entries).endswith(kept)
    assert kept.startswith("\n# ")


@pytest.mark.parametrize(
    ("user", "tenant", "named"),
    [("ann", "default", "ann"), ("ann", "acme", "ann --tenant acme"), ("a b", "default", "'a b'")],
)
def test_the_command_that_a_pipe_is_told_erases_the_user_of_the_chat(
    capsys: pytest.CaptureFixture[str], user: str, tenant: str, named: str
) -> None:
    session = SimpleNamespace(
        user_id=user, tenant=tenant, source=SimpleNamespace(interactive=False)
    )
    run_command(cast("ChatSession", session), "/forget")
    said = capsys.readouterr().out.splitlines()[-1]
    assert said == f"[Nothing was erased. Run: afterword forget {named} --apply]"
