"""The shapes of keys and tokens that their providers can tell by their beginning.

Each shape is looked for by a fixed text, which is fast, and then matched once at that place. No
expression can backtrack: every repetition is possessive (`++`) or has one length. So a text of any
content costs at most its own length times a constant; a test reads the expressions for that.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Shape(NamedTuple):
    """A kind of secret: the texts that it begins with, and what has to stand there."""

    kind: str
    beginnings: tuple[str, ...]
    pattern: re.Pattern[str]


def _shape(kind: str, beginnings: str, rest: str, before: str = r"[A-Za-z0-9_-]") -> Shape:
    texts = tuple(beginnings.split())
    either = "|".join(map(re.escape, texts))
    return Shape(kind, texts, re.compile(f"(?<!{before})(?:{either}){rest}"))


_WORD = r"[A-Za-z0-9_-]"
_ALNUM = r"[A-Za-z0-9]"
_END = r"(?![A-Za-z0-9])"

#: Longer ones come before what they begin with.
SHAPES = (
    _shape("anthropic_key", "sk-ant-", rf"{_WORD}{{20,256}}+"),
    _shape("openai_key", "sk-proj- sk-svcacct- sk-admin- sess-", rf"{_WORD}{{32,256}}+"),
    _shape("openai_key", "sk-", rf"{_ALNUM}{{32,256}}+"),
    _shape("openrouter_key", "sk-or-v1-", r"[0-9a-f]{32,64}+"),
    _shape("aws_key", "AKIA ASIA ABIA ACCA", rf"[A-Z2-7]{{16}}{_END}"),
    _shape("github_token", "ghp_ gho_ ghu_ ghs_ ghr_", rf"{_ALNUM}{{36,255}}+"),
    _shape("github_token", "github_pat_", r"[A-Za-z0-9_]{22,255}+"),
    _shape("gitlab_token", "glpat- gldt- glrt- glptt- glcbt-", rf"{_WORD}{{20,255}}+"),
    _shape("slack_token", "xoxb- xoxp- xoxa- xoxr- xoxs- xoxe- xapp-", r"[A-Za-z0-9-]{10,255}+"),
    _shape("slack_webhook", "https://hooks.slack.com/services/", r"[A-Za-z0-9/_-]{20,128}+"),
    _shape("stripe_key", "sk_live_ sk_test_ rk_live_ rk_test_ whsec_", rf"{_ALNUM}{{16,255}}+"),
    _shape("google_key", "AIza", rf"{_WORD}{{35}}(?!{_WORD})"),
    _shape("google_key", "GOCSPX-", rf"{_WORD}{{28}}(?!{_WORD})"),
    _shape("google_key", "ya29.", rf"{_WORD}{{20,1024}}+"),
    _shape("mem0_key", "m0-", rf"{_ALNUM}{{32,64}}+{_END}"),
    _shape("huggingface_token", "hf_", rf"{_ALNUM}{{30,64}}+{_END}"),
    _shape("npm_token", "npm_", rf"{_ALNUM}{{36}}{_END}"),
    _shape("pypi_token", "pypi-AgEI", rf"{_WORD}{{50,1024}}+"),
    _shape("sendgrid_key", "SG.", rf"{_WORD}{{16,32}}+\.{_WORD}{{32,64}}+"),
    _shape(
        "jwt",
        "eyJ",
        rf"{_WORD}{{10,2048}}+\.eyJ{_WORD}{{10,4096}}+\.{_WORD}{{20,1024}}+",
    ),
    _shape(
        "private_key",
        "-----BEGIN",
        # To its end; if that was cut off, as many lines as look like a key.
        r" (?:(?:RSA|DSA|EC|OPENSSH|ENCRYPTED|PGP) )?+PRIVATE KEY(?: BLOCK)?+-----"
        r"(?:(?:[^-]|-(?!----)){0,32768}+-----END [A-Z ]{0,32}+-----"
        r"|(?:(?:\s|\\n)*+[A-Za-z0-9+/=]{16,}+)*+)",
        r"-",
    ),
)
