"""Keys of the console from the command line, and a console that would let everybody in."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from afterword.producer.cli.main import main
from afterword.producer.web.options import ConsoleOptions
from afterword.producer.web.server import serve
from afterword.shared.errors import InvalidRequest, Misconfigured
from afterword.shared.ledger.access_keys import AccessKey, AccessScope, StoredKey
from afterword.shared.ledger.ledger import Ledger
from afterword.shared.listen_address import ListenAddress
from afterword.shared.settings import Settings
from tests.kit.console_client import LOOPBACK
from tests.kit.ledger.builder import LedgerInspector

pytestmark = pytest.mark.redis

NOW = datetime(2026, 11, 30, tzinfo=UTC)
KEY = AccessKey("0" * 12, "ann", (AccessScope.READ,), NOW, "bea", NOW + timedelta(days=1))
ELSEWHERE = ListenAddress("0.0.0.0", 0)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setenv("AFTERWORD_REDIS_URL", str(settings.redis_url))
    monkeypatch.setenv("AFTERWORD_NAMESPACE", settings.namespace)
    monkeypatch.setenv("AFTERWORD_DURABILITY", "none")
    monkeypatch.setenv("AFTERWORD_MEMORY", "off")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["afterword", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_keys_are_created_listed_and_revoked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "keys", "create", "ann", "--scope", "operate", "--expires", "1d") == 0
    text = capsys.readouterr().out.strip()
    assert run(monkeypatch, "keys", "list", "--json") == 0
    (key,) = json.loads(capsys.readouterr().out)
    assert text.startswith(f"afterword_{key['id']}_")
    assert (key["name"], key["scopes"]) == ("ann", ["read", "operate"])
    assert run(monkeypatch, "keys", "list") == 0
    shown = capsys.readouterr().out
    assert "read, operate" in shown
    assert text.rpartition("_")[2] not in shown
    assert run(monkeypatch, "keys", "revoke", key["id"]) == 0
    assert run(monkeypatch, "keys", "revoke", key["id"]) == 1
    assert run(monkeypatch, "keys", "create", " ") == 2
    assert "name" in capsys.readouterr().err.lower()


async def test_a_console_that_others_can_reach_needs_a_key_to_start(
    settings: Settings, ledger: Ledger
) -> None:
    listened: list[str] = []
    for options in (
        replace(LOOPBACK, listen=ELSEWHERE),
        replace(LOOPBACK, origin="https://console.example"),
        replace(LOOPBACK, require_key=True),
    ):
        with pytest.raises(Misconfigured, match="keys create"):
            await serve(settings, options, listened.append)
    assert listened == []


@pytest.mark.parametrize(
    "origin", ["console.example", "https://", "https://a/b", "ftp://a", "https://u@a", "https://a/"]
)
def test_an_origin_is_a_scheme_and_a_host(origin: str) -> None:
    with pytest.raises(InvalidRequest, match="origin"):
        ConsoleOptions(ELSEWHERE, by="ann", origin=origin)


async def test_a_scope_of_a_newer_version_is_not_granted(
    ledger: Ledger, inspector: LedgerInspector
) -> None:
    await ledger.access_keys.add(StoredKey(KEY, "salt", "digest"))
    written = json.loads(inspector.redis.hget(inspector.keys.access_keys, KEY.id) or "")
    written["scopes"].append("everything")
    inspector.redis.hset(inspector.keys.access_keys, KEY.id, json.dumps(written))
    inspector.redis.hset(inspector.keys.access_keys, "broken", "{}")
    assert await ledger.access_keys.all() == [KEY]
