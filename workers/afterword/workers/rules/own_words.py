"""What of a message are the words of its user, and not text of others that they paste or quote.

Only what is marked as the words of others can be told from a user's own: quoted lines, forwarded
mails, transcripts with roles, the output of tools, pages in HTML, and blocks that look like ours.
Whatever is pasted without a mark counts as what the user says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from afterword.workers.rules.visible_text import visible

#: What stands in the place of what was left out.
QUOTED = "[quoted text]"

_MAY_HOLD_OTHERS = re.compile(
    r"[<>\uff1e]|---|\[INST\]|:[ \t]*$|^\W{0,8}(?:system|assistant|tool|developer|function)\b",
    re.IGNORECASE | re.MULTILINE,
)

_QUOTE = re.compile(r"[ \t]{0,3}(?:>|\uff1e)")

#: A line between dashes introduces a forwarded mail in any language.
_SEPARATOR = re.compile(r"[ \t]{0,3}-{3,}+[ \t]{0,3}+[^-\s][^\n]{0,80}-{3,}[ \t]*+")
_FORWARDED = re.compile(r"[ \t]{0,3}begin forwarded message:[ \t]*+", re.IGNORECASE)
_SENDER = re.compile(
    r"\W{0,4}(?:from|von|de|da|kimden|gönderen|от|от кого|من|प्रेषक|发件人|寄件者|差出人)"
    r"[ \t*]{0,3}[:\uff1a]",
    re.IGNORECASE,
)
_HEADER = re.compile(r"[^\s:\uff1a][^:\uff1a\n]{0,24}[:\uff1a]\s?\S")
_LOOKED_AT = 6
_FEWEST_HEADERS = 2

_ROLE = re.compile(
    r"\W{0,8}(?:system|assistant|tool|developer|function)(?:[ _](?:message|prompt|result|output))?"
    r"\W{0,3}[:\uff1a>\]]|[ \t]{0,3}(?:<\|(?!im_end)|\[INST\]|<<SYS>>)",
    re.IGNORECASE,
)
_OWN_ROLE = re.compile(r"\W{0,8}(?:user|human|me)\W{0,3}[:\uff1a]", re.IGNORECASE)

_OURS = "memories"
_TAG = re.compile(
    r"(?P<begins_line>^[ \t]*+)?"
    r"<(?P<tag>memories|system|assistant|tool_result|tool_output|tool_response|function_results?"
    r"|function_response|instructions?|document|search_results?|html|script|style|!doctype|!--)"
    r"(?![a-z])",
    re.IGNORECASE | re.MULTILINE,
)


def own_words(text: str) -> str:
    """Return what the user of a message says in it; "" if all of it is marked as of others.

    Where something was left out, a mark stands for it.
    """
    seen = visible(text)
    if not _MAY_HOLD_OTHERS.search(seen):
        return seen
    kept: list[str] = []
    for line in _own_lines(_without_elements(seen).split("\n")):
        if line != QUOTED or kept[-1:] != [QUOTED]:
            kept.append(line)
    own = "\n".join(kept).strip("\n")
    return own if own.replace(QUOTED, "").strip() else ""


def _without_elements(text: str) -> str:
    """Return a text without the elements of a page, a tool or a prompt.

    One that begins a line may lack its end; elsewhere, somebody may only speak of a tag.
    """
    lower = text.lower()
    if len(lower) != len(text):  # some capitals are one letter, and two in lower case
        lower = text
    pieces, at, never_closed = [], 0, set[str]()
    for tag in _TAG.finditer(text):
        name = tag["tag"].lower()
        if tag.start() < at:
            continue
        end = 0 if name in never_closed else _end_of(name, lower, tag.end())
        if not end:
            never_closed.add(name)
            if tag["begins_line"] is None and name != _OURS:
                continue
            end = len(text)
        pieces += [text[at : tag.start()], QUOTED]
        at = end
    return "".join([*pieces, text[at:]])


def _end_of(tag: str, lower: str, start: int) -> int:
    """Return where an element ends, 0 if it is not closed."""
    closing = {"!--": "-->", "!doctype": "</html"}.get(tag, f"</{tag}")
    at = lower.find(closing, start)
    if at < 0:
        return 0
    return lower.find(">", at) + 1 or len(lower)


def _own_lines(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines of the user, and a mark for each of others."""
    in_role = False
    for place, line in enumerate(lines):
        if _begins_mail(lines, place):
            yield QUOTED
            return
        if not line.strip() or _OWN_ROLE.match(line):
            in_role = False
        elif _ROLE.match(line):
            in_role = True
        yield QUOTED if in_role or _QUOTE.match(line) else line


def _begins_mail(lines: Sequence[str], place: int) -> bool:
    """Return whether a mail begins at a line, with its headers, that reaches to the end."""
    line = lines[place]
    separated = _SEPARATOR.fullmatch(line) or _FORWARDED.fullmatch(line)
    if not (separated or _SENDER.match(line)):
        return False
    following = [one for one in lines[place + 1 : place + 1 + _LOOKED_AT] if one.strip()]
    headers = [one for one in following if _HEADER.match(one.lstrip(" \t*"))]
    return len(headers) >= _FEWEST_HEADERS and "@" in "".join([line, *following])
