"""How this distribution was installed, and the command that installs more of it.

There may be no index that has Afterword: a command that names only the distribution would fail.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

_NAME = "afterword"


def install_command(extra: str) -> str:
    """Return the command that installs an extra from where this distribution came from."""
    requirement, options = _source(_direct_url(distribution(_NAME)), f"[{extra}]")
    return " ".join(["pip install", *options, shlex.quote(requirement)])


def _direct_url(dist: Distribution) -> Mapping[str, Any]:
    """Return what the installer noted of a file, folder or repository; empty for an index.

    The form is that of PEP 610, "Recording the Direct URL Origin of installed distributions".
    """
    noted: Mapping[str, Any] = json.loads(dist.read_text("direct_url.json") or "{}")
    return noted


def _source(noted: Mapping[str, Any], extra: str) -> tuple[str, list[str]]:
    """Return the requirement, and the options that it takes."""
    url = noted.get("url", "")
    if not url:
        return f"{_NAME}{extra}", []
    if "vcs_info" in noted:
        vcs = noted["vcs_info"]
        return f"{_NAME}{extra} @ {vcs['vcs']}+{url}@{vcs['commit_id']}", []
    if not url.startswith("file:"):
        return f"{_NAME}{extra} @ {url}", []
    path = Path(url2pathname(urlsplit(url).path))
    editable = noted.get("dir_info", {}).get("editable", False)
    # A file that is gone can be fetched again by its name; a folder has none that says more.
    shown = path if path.exists() else Path(path.name)
    return f"{shown}{extra}", ["--editable"] if editable else []
