"""URLs of servers: one strict grammar for all of them, and refusals that never repeat the URL.

Lenient parsers cut a password at its first unquoted `/`, `?` or `#`, and print a piece of it when
the rest does not fit. Here every character of a URL must have its place, or it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv6Address
from typing import NamedTuple, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlencode

#: What must be percent-encoded in a user or a password is everything but these, as in RFC 3986.
_PLAIN = r"A-Za-z0-9._~!$&'()*+,;=%\-"
_URL = re.compile(
    r"(?P<scheme>[a-z]+(?:\+[a-z]+)?)://"
    rf"(?:(?P<username>[{_PLAIN}]*)(?::(?P<password>[{_PLAIN}:]*))?@)?"
    r"(?P<hosts>[A-Za-z0-9._,:\[\]-]*)"
    rf"(?P<path>(?:/[{_PLAIN}:/]*)?)"
    rf"(?:\?(?P<query>[{_PLAIN}:/?]*))?"
)
_HALF_ENCODED = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*)(?P<port>:[0-9]*)?")
_SHOWN_NAME = re.compile(r"[A-Za-z0-9_]{1,40}")
_LAST_PORT = 65_535

#: The name of the socket on which the Redis of the local stack listens, and no other.
LOCAL_SOCKET = "afterword.sock"


@dataclass(frozen=True, slots=True)
class UrlForm:
    """What the URLs of one scheme may hold."""

    example: str
    """A URL of this form, for refusals."""

    path: str = ".*"
    """A pattern of the path."""

    options: Mapping[str, str] = field(default_factory=dict)
    """The options that may stand in the query, with a pattern of the value of each."""

    hosts: tuple[int, int] = (1, 1)
    """How many hosts it names: at least, and at most."""

    login: bool = True
    """Whether it may hold a user and a password."""


Forms: TypeAlias = Mapping[str, UrlForm]


class Url(NamedTuple):
    """The decoded parts of a URL; `host` is as it stood there: one or several, with their ports."""

    scheme: str
    username: str
    password: str
    host: str
    path: str
    options: dict[str, str]

    @property
    def database(self) -> str:
        """Return the number of the database that a Redis URL names."""
        named = self.path.strip("/") if self.scheme in ("redis", "rediss") else ""
        return self.options.get("db") or named or "0"

    @property
    def place(self) -> str:
        """Return where a Redis URL leads, without login and options."""
        named = self.host if self.scheme in ("redis", "rediss") else f"{self.host}{self.path}"
        return f"{named} {self.database}"

    @property
    def tls(self) -> bool:
        """Return whether the servers of a Redis URL are spoken to over TLS."""
        return self.scheme.startswith("rediss")

    @property
    def tls_options(self) -> dict[str, str]:
        """Return the options of a Redis URL that are about TLS."""
        return {name: value for name, value in self.options.items() if name in _TLS}

    @property
    def hosts(self) -> list[tuple[str, int | None]]:
        """Return each host that a Redis URL names, without brackets, and its port if it has one."""
        found = [match for host in self.host.split(",") if (match := _HOST.fullmatch(host))]
        return [
            (match["name"].strip("[]"), int(match["port"][1:]) if match["port"] else None)
            for match in found
        ]

    def of_one_server(self, host: str, options: Mapping[str, str]) -> str:
        """Return the URL of one server with the login, the database and TLS of this one."""
        login = f"{quote(self.username, safe='')}:{quote(self.password, safe='')}@"
        named = login if self.username or self.password else ""
        address = f"{'rediss' if self.tls else 'redis'}://{named}{host}/{self.database}"
        return f"{address}?{urlencode(options)}" if options else address


def parse_url(text: str, forms: Forms) -> Url:
    """Return the parts of a URL; raise `ValueError` without repeating it, it may hold a password.

    `forms` says which schemes it may have, and what may stand in the URLs of each.
    """
    scheme = text.partition("://")[0]
    if scheme not in forms:
        raise ValueError(f"must begin with {_alternatives([f'{one}://' for one in forms])}")
    form = forms[scheme]
    found = _URL.fullmatch(text)
    if found is None or _HALF_ENCODED.search(text):
        raise _unfit(form)
    if not form.login and found["username"] is not None:
        raise ValueError("must hold neither a user nor a password")
    _check_hosts(found["hosts"], form)
    try:
        username, password, path = (
            unquote(found[name] or "", errors="strict") for name in ("username", "password", "path")
        )
    except ValueError:
        raise _unfit(form) from None
    if not re.fullmatch(form.path, path):
        raise ValueError(f"its path does not fit: it must be a URL such as {form.example}")
    return Url(
        scheme, username, password, found["hosts"], path, _options(found["query"] or "", form)
    )


def _unfit(form: UrlForm) -> ValueError:
    return ValueError(
        f"must be a URL such as {form.example}; percent-encode whatever is not a letter or a digit "
        "in its user and password (%2F for /, %3F for ?, %23 for #, %40 for @)"
    )


def _check_hosts(hosts: str, form: UrlForm) -> None:
    """Check each host and port: a password that was cut at a slash looks like a port."""
    found = [_HOST.fullmatch(host) for host in hosts.split(",")]
    named = [host["name"] for host in found if host and host["name"]]
    least, most = form.hosts
    if None in found or len(named) > most or (len(found) > 1 and len(named) < len(found)):
        raise _unfit(form)
    if not all(map(_is_address, (name[1:-1] for name in named if name.startswith("[")))):
        raise ValueError("has no IPv6 address between its brackets")
    if len(named) < least:
        raise ValueError("must name a host")
    for port in (host["port"] for host in found if host and host["port"] is not None):
        if not re.fullmatch(":[0-9]{1,5}", port) or not 1 <= int(port[1:]) <= _LAST_PORT:
            raise ValueError(f"its port must be from 1 to {_LAST_PORT}")


def _is_address(name: str) -> bool:
    try:
        return bool(IPv6Address(name))
    except ValueError:
        return False


def _options(query: str, form: UrlForm) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            query, keep_blank_values=True, strict_parsing=bool(query), errors="strict"
        )
    except ValueError:
        raise _unfit(form) from None
    for name, value in pairs:
        if name not in form.options:
            shown = f" {name}" if _SHOWN_NAME.fullmatch(name) else ""
            raise ValueError(f"has an unknown option{shown}; known: {_known(form)}")
        if not re.fullmatch(form.options[name], value):
            raise ValueError(f"its option {name} has a value that does not fit")
    options = dict(pairs)
    if len(options) < len(pairs):
        raise ValueError("gives an option twice")
    return options


def _known(form: UrlForm) -> str:
    return ", ".join(form.options) or "none"


def _alternatives(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}" if len(names) > 1 else names[0]


_FILE = ".+"
_TLS = {
    "ssl_cert_reqs": "none|optional|required",
    "ssl_check_hostname": "true|false",
    "ssl_ca_certs": _FILE,
    "ssl_ca_path": _FILE,
    "ssl_certfile": _FILE,
    "ssl_keyfile": _FILE,
}
_DATABASE = "[0-9]{1,5}"
_REDIS_PATH = f"/?|/{_DATABASE}"

_HOSTS = (1, 16)
_SENTINEL = {"db": _DATABASE, "sentinel_username": ".*", "sentinel_password": ".*"}
_MASTER_NAME = "/[A-Za-z0-9._-]{1,128}"

#: Timeouts and the like are not among the options: our own would lose against those of the URL.
REDIS: Forms = {
    "redis": UrlForm("redis://user:password@host:6379/0", _REDIS_PATH, {"db": _DATABASE}, _HOSTS),
    "rediss": UrlForm(
        "rediss://user:password@host:6379/0", _REDIS_PATH, {"db": _DATABASE, **_TLS}, _HOSTS
    ),
    "unix": UrlForm(
        "unix://user:password@/run/redis.sock?db=0",
        "/.+",
        {"db": _DATABASE, "username": ".*", "password": ".*"},
        hosts=(0, 0),
    ),
    "redis+sentinel": UrlForm(
        "redis+sentinel://user:password@host:26379,host:26379/mymaster?db=0",
        _MASTER_NAME,
        _SENTINEL,
        _HOSTS,
    ),
    "rediss+sentinel": UrlForm(
        "rediss+sentinel://user:password@host:26379,host:26379/mymaster?db=0",
        _MASTER_NAME,
        {**_SENTINEL, **_TLS},
        _HOSTS,
    ),
}

#: A cluster has one database. Celery cannot use one as its broker.
CLUSTER: Forms = {
    "redis+cluster": UrlForm("redis+cluster://user:password@host:6379,host:6379", "/?", {}, _HOSTS),
    "rediss+cluster": UrlForm(
        "rediss+cluster://user:password@host:6379,host:6379", "/?", _TLS, _HOSTS
    ),
}

#: What may hold the ledger.
LEDGER: Forms = {**REDIS, **CLUSTER}


def split_urls(text: str) -> list[str]:
    """Return the URLs of a list: what separates them, white space, stands in none of them."""
    return text.split()


def is_local_stack(url: str) -> bool:
    """Return whether a URL is that of the local stack's Redis, which nobody has set."""
    return url.startswith("unix://") and url.partition("?")[0].endswith(f"/{LOCAL_SOCKET}")


def parse_ledger(text: str) -> list[Url]:
    """Return the URLs of the ledger's servers; raise `ValueError` without repeating them.

    They stand in the order of the servers. A cluster is one URL, and stands alone.
    """
    found = [parse_url(one, LEDGER) for one in split_urls(text) or [""]]
    if len(found) > 1 and any(one.scheme in CLUSTER for one in found):
        raise ValueError("names a cluster and another server: a cluster stands alone")
    if len({one.place for one in found}) < len(found):
        raise ValueError("names a server twice")
    return found


_NUMBER = "[0-9]{1,9}"
_SWITCH = "[01]"
_POSTGRES_OPTIONS = {
    "host": ".+", "hostaddr": ".+", "port": f"{_NUMBER}(,{_NUMBER})*", "dbname": ".+", "user": ".+",
    "password": ".*", "passfile": _FILE, "service": ".+", "application_name": ".*",
    "options": ".*", "connect_timeout": _NUMBER, "client_encoding": r"[A-Za-z0-9_-]+",
    "sslmode": "disable|allow|prefer|require|verify-ca|verify-full",
    "sslnegotiation": "postgres|direct", "sslrootcert": _FILE, "sslcert": _FILE, "sslkey": _FILE,
    "sslpassword": ".*", "sslcrl": _FILE, "sslcrldir": _FILE, "sslsni": _SWITCH,
    "ssl_min_protocol_version": r"TLSv1(\.[0-3])?", "ssl_max_protocol_version": r"TLSv1(\.[0-3])?",
    "channel_binding": "disable|prefer|require", "require_auth": "[!a-z0-9,-]+",
    "gssencmode": "disable|prefer|require", "krbsrvname": ".+",
    "keepalives": _SWITCH, "keepalives_idle": _NUMBER, "keepalives_interval": _NUMBER,
    "keepalives_count": _NUMBER, "tcp_user_timeout": _NUMBER,
    "target_session_attrs": "any|read-write|read-only|primary|standby|prefer-standby",
    "load_balance_hosts": "disable|random",
}  # fmt: skip

POSTGRES: Forms = {
    scheme: UrlForm(
        f"{scheme}://user:password@host:5432/database",
        "/?|/[^/]+",
        _POSTGRES_OPTIONS,
        hosts=(0, 32),
    )
    for scheme in ("postgresql", "postgres")
}

HTTP: Forms = {
    scheme: UrlForm(f"{scheme}://host:8000", login=False) for scheme in ("https", "http")
}

PROXY: Forms = {
    scheme: UrlForm(f"{scheme}://user:password@host:3128", "/?") for scheme in ("http", "https")
}
