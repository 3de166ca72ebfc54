"""Secrets that are told by the label before them: `password: ...`, `API_KEY=...`, `Bearer ...`.

A label alone says little: "password: how do I reset it?" holds none. So what follows must also look
like a secret, and the less the label says, the more of that is asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from afterword.shared.redaction.port import Finding

#: In the languages that Afterword knows, and some more; as `str.lower` writes them.
_PASSWORDS = (
    "password|passwd|passphrase|passcode|pwd|passwort|kennwort|contraseña|contrasena|senha|"
    "mot de passe|parola|şifre|sifre|пароль|wachtwoord|hasło|lösenord|adgangskode|"
    "كلمة المرور|كلمة السر|पासवर्ड|密码|密碼|口令|パスワード|暗証番号|비밀번호"
)
_KEYS = (
    "api key|api-key|api_key|apikey|access key|access-key|access_key|accesskey|secret key|"
    "secret-key|secret_key|secretkey|client secret|client_secret|auth token|auth_token|"
    "access token|access_token|refresh_token|private_key|secret|token|bearer"
)
_LABELS = (*_PASSWORDS.split("|"), *_KEYS.split("|"))

_SIGN = "=>|:=|[:=\uff1a\uff1d]"
_IS = r"(?:is|ist|lautet|est|es|è|é|это|है|هي)(?=\s)|[は是为]"
#: What stands between a label and its value; after a "bearer", nothing has to.
_BETWEEN = rf"[\"'`\])]?+[ \t]{{0,4}}+(?P<said>{_SIGN}|{_IS}|(?<=bearer )|(?<=Bearer ))\s{{0,4}}+"
_VALUE = r"[^\s\"'<>,;`\u3000-\u9fff\uff00-\uffef\uac00-\ud7af]{4,512}+"
_LABELLED = re.compile(
    f"(?:(?P<password>{_PASSWORDS})|{_KEYS}){_BETWEEN}(?P<quote>[\"'`]?+)(?P<value>{_VALUE})",
    re.IGNORECASE,
)

_EQUALS = ("=", ":=", "=>", "\uff1d")
_SIGNS = "!#$%&*+?@^~|\\"
_AROUND = "([{.,;:!?)]}*_…"
_FEWEST_OF_KEY = 16
_FEWEST_OF_PASSWORD = 5
_FEWEST_OF_WORD = 8


def labelled_secrets(text: str) -> Iterator[Finding]:
    """Yield the passwords and keys of a text that stand behind a label."""
    lower = text.lower().replace("i\u0307", "i")  # of a Turkish capital
    if not [label for label in _LABELS if label in lower]:
        return
    for match in _LABELLED.finditer(text):
        value = match["value"]
        if not match["password"]:
            if _is_key(value):
                yield Finding("secret_key", *match.span("value"))
        elif _is_password(value, plain=bool(match["quote"]) or match["said"] in _EQUALS):
            yield Finding("password", *match.span("value"))


def _is_password(value: str, *, plain: bool) -> bool:
    """Return whether a value behind "password" is one; a `plain` one may be a mere word.

    That is one in quotes or after an equals sign, as in configurations.
    """
    bare = value.strip(_AROUND)
    if not bare or _is_reference(value):
        return False
    letters = any(map(str.isalpha, bare))
    if any(map(str.isdigit, bare)):
        return not letters or len(bare) >= _FEWEST_OF_PASSWORD
    if any(sign in bare for sign in _SIGNS):
        return letters and len(bare) > _FEWEST_OF_PASSWORD
    return plain and len(bare) >= _FEWEST_OF_WORD and not _is_name(bare)


def _is_key(value: str) -> bool:
    bare = value.strip(_AROUND)
    return (
        len(bare) >= _FEWEST_OF_KEY
        and bare.isascii()
        and any(map(str.isdigit, bare))
        and any(map(str.isalpha, bare))
        and not _is_reference(value)
    )


def _is_reference(value: str) -> bool:
    """Return whether a value names a secret, or says where it is, and does not hold it."""
    lower = value.lower()
    name, at, host = value.partition("@")
    return (
        lower[0] in "[<{$%("
        or "://" in value
        or "(" in value
        or lower.startswith(("os.", "env.", "process.", "self.", "/"))
        or set(lower) <= set("*x•.…-_")
        or bool(at and name and "." in host and host.replace(".", "").isalpha())
    )


def _is_name(value: str) -> bool:
    """Return whether a value is a name of the code: `user.password`, `PASSWORD`, `required`."""
    return value.replace(".", "_").isidentifier() and ("." in value or "pass" in value.lower())
