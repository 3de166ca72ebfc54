"""The import of mem0: where it may write, that it tells nobody, and no more of it than is used."""

from __future__ import annotations

import importlib.util
import logging
import os
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any


def mem0_silenced(folder: Path) -> None:
    """Make mem0 fit to be imported; call it before the first import.

    It makes a folder at import, `folder`, reports home unless it is told not to, and logs
    memories and the bodies of errors; what it logs as an error it also raises.
    """
    os.environ |= {"MEM0_TELEMETRY": "False", "MEM0_DIR": str(folder)}
    logging.getLogger("mem0").setLevel(logging.CRITICAL + 1)


def mem0_in_parts() -> None:
    """Let `import mem0.part` import that part alone; call it before the first import.

    mem0 as a package imports all that it has: qdrant's client, grpc and numpy for its client of
    the platform too. Whoever asks the package itself for a name gets all of it, then.
    """
    spec = importlib.util.find_spec("mem0")
    if "mem0" not in sys.modules and spec is not None:
        sys.modules["mem0"] = _in_parts(spec)


def _in_parts(spec: ModuleSpec) -> ModuleType:
    package = importlib.util.module_from_spec(spec)

    def whole(name: str) -> Any:  # what a module does when it lacks a name: PEP 562
        assert spec.loader is not None
        del vars(package)["__getattr__"]
        spec.loader.exec_module(package)
        return getattr(package, name)

    vars(package)["__getattr__"] = whole
    return package
