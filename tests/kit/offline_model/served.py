"""The offline model in a process of its own, called by our adapter or by the anthropic SDK."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import anthropic

from afterword.workers.adapters.claude.client import Claude
from afterword.workers.local_stack import model_server

KEY = "a-key-of-this-test"
COMMAND = (sys.executable, "-P", "-m", "afterword.workers.local_stack.model_server")


class ServedModel:
    """One process that serves the model."""

    def __init__(self, *options: str) -> None:
        environ = os.environ | {"ANTHROPIC_API_KEY": KEY}
        self.process = subprocess.Popen([*COMMAND, *options], env=environ, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.url = str(json.loads(self.process.stdout.readline())["url"])

    def client(self, key: str = KEY) -> anthropic.AsyncAnthropic:
        """Return a client of the SDK that closes its connections, as those of our workers do."""
        client = anthropic.AsyncAnthropic(api_key=key, base_url=self.url, max_retries=0)
        (header,) = model_server.CLIENT_ENV.values()
        name, value = header.split(": ")
        return client.with_options(default_headers={name: value})

    @asynccontextmanager
    async def adapter(self) -> AsyncIterator[Claude]:
        """Open the adapter of our workers; the caller has set `model_server.CLIENT_ENV`."""
        claude = Claude(
            api_key=KEY, base_url=self.url, connections=4, total_s=60, first_event_s=60, idle_s=60
        )
        try:
            yield claude
        finally:
            await claude.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.communicate()
