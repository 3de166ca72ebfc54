"""MkDocs hooks: put the documents at the top of the repository on the site as well.

`README.md` becomes the first page, and the others are listed under Project. A link to any other
file of the repository (`docker-compose.yml`, a program in `examples/`) leads to a copy of it.
So the same relative links work in the repository and on the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, InclusionLevel

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]

#: Where a document at the top of the repository stands on the site.
TOP = {
    "README.md": "index.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    "SUPPORT.md": "project/support.md",
}

_LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]*)\]\((?P<path>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")
_IMAGE = re.compile(r"!\[(?P<text>[^\]]*)\]\((?P<path>[^)#:\s]+)\)")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List every decision in the navigation, so that a new one needs no second place."""
    records = sorted(path.name for path in (ROOT / "docs/decisions").glob("[0-9]*.md"))
    for entry in config.nav or []:
        if "Decisions" in entry:
            entry["Decisions"] += [f"decisions/{name}" for name in records]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the documents at the top, and every other file that a document links to."""
    for name, uri in TOP.items():
        if (ROOT / name).exists():
            files.append(File.generated(config, uri, content=(ROOT / name).read_text()))
    linked = {path for file in list(files.documentation_pages()) for path in _elsewhere(file)}
    for path in sorted(linked):
        copy = File.generated(config, _uri(path), abs_src_path=str(ROOT / path))
        copy.inclusion = InclusionLevel.NOT_IN_NAV
        files.append(copy)
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Let the links of a page lead to where their targets stand on the site."""
    uri = page.file.src_uri

    def moved(found: re.Match[str]) -> str:
        target = _target(uri, found["path"])
        if (ROOT / target).is_dir() and not _uri(target).endswith(".md"):
            return found["text"]  # the site shows no folders
        relative = posixpath.relpath(_uri(target), posixpath.dirname(uri) or ".")
        before, _, after = found[0].rpartition(found["path"])
        return before + relative + after

    return _IMAGE.sub(moved, _LINK.sub(moved, markdown))


def _elsewhere(file: File) -> set[str]:
    """Return the files that a page links to and that are no documents."""
    found = [*_LINK.finditer(file.content_string), *_IMAGE.finditer(file.content_string)]
    targets = {_target(file.src_uri, link["path"]) for link in found}
    return {
        target
        for target in targets
        if (ROOT / target).is_file() and target not in TOP and not target.startswith("docs/")
    }


def _target(uri: str, path: str) -> str:
    """Return what a link of a page points to, as a path in the repository."""
    source = {uri: name for name, uri in TOP.items()}.get(uri, f"docs/{uri}")
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), path))


def _uri(path: str) -> str:
    """Return where a file of the repository stands on the site."""
    if (ROOT / path / "README.md").is_file() and path.startswith("docs/"):
        path += "/README.md"
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return TOP.get(path, f"source/{path}")
