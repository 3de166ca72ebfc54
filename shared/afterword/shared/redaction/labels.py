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
    "palavra-passe|mot de passe|parola|parolă|şifre|sifre|пароль|wachtwoord|hasło|lösenord|"
    "adgangskode|passord|salasana|heslo|jelszó|mật khẩu|kata sandi|κωδικός πρόσβασης|סיסמה|"
    "كلمة المرور|كلمة السر|पासवर्ड|รหัสผ่าน|密码|密碼|口令|パスワード|暗証番号|비밀번호"
)
_KEYS = (
    "api key|api-key|api_key|apikey|access key|access-key|access_key|accesskey|secret key|"
    "secret-key|secret_key|secretkey|client secret|client_secret|auth token|auth_token|"
    "access token|access_token|refresh_token|private_key|secret|token|bearer|"
    "authorization: basic|api-schlüssel|clé api|clé d'api|clave de api|clave api|chave de api|"
    "chave api|chiave api|api-ключ|ключ api|api 키|api키|apiキー|密钥|密鑰"
)
_LABELS = (*_PASSWORDS.split("|"), *_KEYS.split("|"))

_SIGN = "=>|:=|->|[:=\uff1a\uff1d\u2192]"
#: "Is" and "was" in these languages.
_IS = (
    r"(?:is|was|will be|ist|war|lautet|est|c'est|es|era|será|è|é|sarà|это|to jest|jest|"
    r"je|este|är|er|luidt|là|adalah|είναι|है|هي|هو)(?=[\s:\uff1a])|[は是为為는은]"
)
#: Words that come before a password, and before much else.
_PERHAPS = r"(?:to|auf|en|à|a|por|para|in|na|on)(?=[\s:])|[\-\u2013\u2014](?=\s)|(?<=\s)"
#: What the password is for, as in "for the wifi", without the word that says "is".
_FOR = (
    r"\([^()\n]{1,40}+\)|(?:for|of|to|on|at|für|zu|zum|zur|vom|von|im|pour|de|du|del|para|do|da|"
    r"di|della|per|для|от|voor|van|för|till|til|الخاصة)"
    rf"(?: (?!{_IS})[\w'\u2019.-]{{1,20}}+){{1,4}}+"
)
#: Endings of a label: a possessive, a plural, a closing quote.
_ENDING = r"['\u2019]s(?= )|(?:m|m[i\u0131]z|s[i\u0131]|ni|s)(?=[\s:=])|[\"'`\])]"
#: What stands between a label and its value; after a "bearer", nothing has to.
_BETWEEN = (
    rf"(?:{_ENDING})?[ \t]{{0,4}}+(?P<far>(?:{_FOR})[ \t]?)?"
    rf"(?:(?P<said>(?:(?:{_IS}|to)[ \t]?)?(?:{_SIGN})|{_IS}|(?<=bearer )|(?<=basic ))"
    rf"|(?:{_PERHAPS}))\s{{0,4}}+"
)
_VALUE = r"[^\s\"'<>,;`\u3000-\u9fff\uff00-\uffef\uac00-\ud7af]{4,512}+"
_LABELLED = re.compile(
    f"(?:(?P<password>{_PASSWORDS})|{_KEYS}){_BETWEEN}(?P<quote>[\"'`]?+)(?P<value>{_VALUE})",
    re.IGNORECASE,
)
#: Ways to keep a password, which are none.
_WAYS = re.compile(
    r"(?:1password|keepass|base64|sha-?[0-9]|md5|pbkdf2|argon2|aes-?[0-9]|rsa-?[0-9]|oauth|utf-?8|"
    r"2fa|u2f|fido2)",
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
        value, sure = match["value"], match["said"] is not None
        if match["password"]:
            if _fits(match):
                yield Finding("password", *match.span("value"))
        elif sure and _is_key(value):
            yield Finding("secret_key", *match.span("value"))


def _fits(match: re.Match[str]) -> bool:
    """Return whether the value is a password; the less its label says, the more is asked."""
    value, said = match["value"], match["said"]
    if said is not None and not match["far"]:
        return _is_password(value, plain=bool(match["quote"]) or said.strip() in _EQUALS)
    bare = value.strip(_AROUND)
    made_of = (str.isalpha, str.isdigit, _SIGNS.__contains__)
    letters, digits, signs = (any(map(one, bare)) for one in made_of)
    mixed = letters and (digits or signs) if said is not None else letters and digits and signs
    return mixed and len(bare) > _FEWEST_OF_PASSWORD and not _is_reference(value)


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
        or _WAYS.match(lower.strip(_AROUND)) is not None
        or bool(at and name and "." in host and host.replace(".", "").isalpha())
    )


def _is_name(value: str) -> bool:
    """Return whether a value is a name of the code: `user.password`, `PASSWORD`, `required`."""
    return value.replace(".", "_").isidentifier() and ("." in value or "pass" in value.lower())
