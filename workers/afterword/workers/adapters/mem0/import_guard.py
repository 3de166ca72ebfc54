"""Controls the import of mem0: where it writes, that it sends no telemetry, how much it loads."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
import tempfile
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any


def prepare_mem0_import(mem0_dir: Path) -> None:
    """Set mem0's environment and silence its logger. Call it before the first import of mem0.

    By default mem0 creates a folder in the user's home at import, sends telemetry, and logs
    memories and the bodies of errors. What it logs as an error it also raises.
    """
    os.environ |= {"MEM0_TELEMETRY": "False", "MEM0_DIR": str(mem0_dir)}
    logging.getLogger("mem0").setLevel(logging.CRITICAL + 1)


def import_mem0() -> None:
    """Import what mem0's open-source class needs, before any limit runs: it may take seconds."""
    with tempfile.TemporaryDirectory(prefix="mem0-") as folder:  # importing mem0 writes to it
        prepare_mem0_import(Path(folder))
        importlib.import_module("mem0.memory.main")


def make_mem0_import_lazy() -> None:
    """Make `import mem0.x` load that submodule alone. Call it before the first import of mem0.

    By default the package imports everything it has, for example qdrant's client, grpc and numpy
    even for the platform's client. Asking `mem0` itself for a name still loads all of it.
    """
    spec = importlib.util.find_spec("mem0")
    if "mem0" not in sys.modules and spec is not None:
        sys.modules["mem0"] = _lazy_package(spec)


def _lazy_package(spec: ModuleSpec) -> ModuleType:
    package = importlib.util.module_from_spec(spec)

    def load_package(name: str) -> Any:  # called for a missing attribute (PEP 562)
        assert spec.loader is not None
        del vars(package)["__getattr__"]
        spec.loader.exec_module(package)
        return getattr(package, name)

    vars(package)["__getattr__"] = load_package
    return package
