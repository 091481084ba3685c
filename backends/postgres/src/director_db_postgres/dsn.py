"""Connection strings: libpq's, and the URLs that an application shares with other libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, SupportsIndex
from urllib.parse import unquote

import psycopg
from psycopg.conninfo import conninfo_to_dict

from director_db.errors import ConfigurationError
from director_db.settings import QUOTED, is_quoted

if TYPE_CHECKING:
    from typing import Any

MAX_PORT: Final = 65535

# What libpq would find out only when it connects, and there no SQLSTATE tells it from an outage.
_CHOICES: Final = {
    "sslmode": {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"},
    "target_session_attrs": {
        "any",
        "read-write",
        "read-only",
        "primary",
        "standby",
        "prefer-standby",
    },
}

# Prisma's parameters of a URL, which are understood.
_EXTRAS: Final = frozenset({"schema", "pgbouncer"})

# Those of other libraries, and what to write instead. No other name is told in an error: it may be
# a part of a password whose ? was not encoded.
_INSTEAD: Final = {
    "connection_limit": "POSTGRES_POOL_SIZE",
    "pool_size": "POSTGRES_POOL_SIZE",
    "max_overflow": "POSTGRES_POOL_SIZE",
    "pool_timeout": "POSTGRES_RETRY_DEADLINE",
    "socket_timeout": "POSTGRES_STATEMENT_TIMEOUT",
    "command_timeout": "POSTGRES_STATEMENT_TIMEOUT",
    "statement_cache_size": "POSTGRES_POOLER=1",
    "prepared_statement_cache_size": "POSTGRES_POOLER=1",
    "ssl": "sslmode",
    "sslaccept": "sslmode",
    "sslidentity": "sslcert and sslkey",
}


class DSN(str):
    """A DSN whose repr is empty: tracebacks that show arguments would show the password."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __getitem__(self, key: SupportsIndex | slice) -> DSN:
        # Some tools cut a long text before they show it.
        return DSN(super().__getitem__(key))


def split_extras(dsn: object) -> tuple[object, dict[str, str]]:
    """Take what is not libpq's out of a URL.

    Returns:
        The rest, and the values of ``schema`` and ``pgbouncer`` where they are given.
    """
    if not isinstance(dsn, str) or "://" not in dsn or "?" not in dsn:
        return dsn, {}
    base, _, query = dsn.rpartition("?")
    if "@" in query:  # A ? of the password, which libpq takes as it is.
        return dsn, {}
    kept, extras = [], {}
    for parameter in query.split("&"):
        key, _, value = parameter.partition("=")
        if key in _EXTRAS:
            extras[key] = unquote(value)
        else:
            kept.append(parameter)
    if not extras:
        return dsn, {}
    return DSN("?".join([base, "&".join(kept)] if kept else [base])), extras


def parse(dsn: object, name: str) -> dict[str, str]:
    """Return the parameters of a DSN; libpq's own message would show the DSN, so it is not used.

    Raises:
        ConfigurationError: it is none; `name` says in the message where it stood.
    """
    parsed = None
    if isinstance(dsn, str) and "\0" not in dsn and is_encodable(dsn):
        try:
            parsed = conninfo_to_dict(_with_plain_scheme(dsn))
        except psycopg.Error:
            parsed = None
    if parsed is not None and _is_cut_wrongly(str(dsn), parsed):
        parsed = None
    if parsed is None:
        message = (
            f"{name} is no Postgres connection string, such as "
            "postgresql://user:password@host:5432/database or 'host=... dbname=...'. In a URL, "
            "special characters of a password are percent-encoded."
        )
        raise ConfigurationError(message + _hint(dsn))
    # A value that was cut out of a DSN is never shown: where a special character was not encoded it
    # may be a part of the password.
    parameters: dict[str, str] = {key: DSN(value) for key, value in parsed.items()}
    del parsed
    if parameters.get("port") and not are_ports(parameters["port"]):
        message = f"{name}: port is a number from 1 to {MAX_PORT}; this one is not."
        raise ConfigurationError(message)
    if parameters.get("connect_timeout"):
        whole_number(parameters["connect_timeout"], f"{name}: connect_timeout")
    for keyword, choices in _CHOICES.items():
        value = parameters.get(keyword)
        if value and value not in choices:
            message = f"{name}: {keyword} is one of {', '.join(sorted(choices))}."
            raise ConfigurationError(message)
    return parameters


def is_encodable(text: str) -> bool:
    """Whether a text has no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def are_ports(text: str) -> bool:
    """Whether a text is a port, or one for each of several hosts; one may leave its port out."""
    return all(
        port.isascii() and port.isdecimal() and 1 <= int(port) <= MAX_PORT
        for port in text.split(",")
        if port
    )


def whole_number(text: str, name: str) -> int:
    """Return the number that a text says.

    Raises:
        ConfigurationError: it is none from 1 to a billion.
    """
    digits = str(text).strip()
    number = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 10 else 0  # noqa: PLR2004
    if number < 1:
        quoted = QUOTED if is_quoted(digits) else ""
        message = f"{name} is a whole number, at least 1 and below a billion.{quoted}"
        raise ConfigurationError(message)
    return number


def _hint(dsn: object) -> str:
    if not isinstance(dsn, str):
        return ""
    if is_quoted(dsn):
        return QUOTED
    keys = {parameter.partition("=")[0] for parameter in dsn.rpartition("?")[2].split("&")}
    advice = [f"{key}= (use {_INSTEAD[key]})" for key in sorted(keys & _INSTEAD.keys())]
    return f" It has parameters that libpq does not know: {', '.join(advice)}." if advice else ""


def _with_plain_scheme(dsn: str) -> str:
    """Write the scheme as libpq knows it: in lower case, and without a driver of SQLAlchemy's."""
    scheme, separator, rest = dsn.partition("://")
    dialect, _, driver = scheme.partition("+")
    if separator and dialect.isalpha() and (not driver or driver.isidentifier()):
        return f"{dialect.lower()}://{rest}"
    return dsn


def _is_cut_wrongly(dsn: str, parsed: dict[str, Any]) -> bool:
    """Whether a URL has a user or a password with a special character that is not encoded."""
    if "://" not in dsn:
        return False
    host, database = str(parsed.get("host") or ""), str(parsed.get("dbname") or "")
    in_host = "@" in host and not host.startswith(("@", "/"))
    return in_host or ("@" in database and "user" not in parsed)
