"""The page that the tutorial builds, as its reader starts it."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT
from tests.examples.browsers import FastApiBrowser, uvicorn
from tests.kit.workers.fleet import Fleet
from tests.packaging.blocks import blocks

pytestmark = [pytest.mark.system, pytest.mark.redis, pytest.mark.slow]


def test_the_page_streams_a_reply_and_remembers(fleet: Fleet, tmp_path: Path) -> None:
    (page,) = [b.text for b in blocks(ROOT / "docs/tutorial.md") if "app = FastAPI" in b.text]
    (tmp_path / "page.py").write_text(page)
    options = ["--app-dir", str(tmp_path), "--log-level", "warning"]
    with uvicorn(fleet, *options, "page:app") as url, httpx.Client(base_url=url) as client:
        assert "EventSource" in client.get("/").text
        browser = FastApiBrowser(client)
        replies = []
        for text in ("I play the cello.", "Which instrument do I play?"):
            job_id = client.post("/messages", params={"text": text}).json()["job_id"]
            status, found = browser.stream(f"/replies/{job_id}")
            assert status == httpx.codes.OK
            assert [event.type for event in found][-2:] == ["delta", "final"]
            replies.append(found[-1].data["reply"])
    assert [reply["memory"] in {"fresh", "overlay"} for reply in replies] == [True, True]
