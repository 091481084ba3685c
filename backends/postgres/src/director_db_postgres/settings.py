"""Where the server is and how to use it: from the environment, a URL or arguments. No I/O."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, NamedTuple, SupportsIndex
from urllib.parse import quote, urlencode

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from director_db.errors import ConfigurationError
from director_db.old_layout import migrates_on_first_use

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping
    from typing import Any

DEFAULT_POOL_SIZE: Final = 10
"""The most connections of one instance."""

DEFAULT_RETRY_DEADLINE: Final = 30.0
"""How long an operation is tried again after a lost connection or a failover, in seconds."""

_DEFAULT_PARTS: Final = {
    "POSTGRES_HOST": ("host", "localhost"),
    "POSTGRES_PORT": ("port", "5432"),
    "POSTGRES_DB": ("dbname", "postgres"),
    "POSTGRES_USER": ("user", "postgres"),
    "POSTGRES_PASSWORD": ("password", "postgres"),
}
_PLACES: Final = ("POSTGRES_DSN", *_DEFAULT_PARTS, "DATABASE_URL")
_OPTIONS: Final = (
    "POSTGRES_SCHEMA",
    "POSTGRES_POOL_SIZE",
    "POSTGRES_STATEMENT_TIMEOUT",
    "POSTGRES_POOLER",
    "POSTGRES_RETRY_DEADLINE",
)
_FLAGS: Final = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}

_MAX_IDENTIFIER_BYTES: Final = 63
_MAX_PORT: Final = 65535
_MAX_TIMEOUT_MS: Final = 2**31 - 1

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

# What libpq would leave to the system, which waits for two hours before it doubts a silent server.
_DEFAULT_PARAMETERS: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    # Keepalives do not run while data is on its way to a host that is gone.
    "tcp_user_timeout": "30000",
    "fallback_application_name": "director-db",
}


class DSN(str):
    """A DSN whose repr is empty: tracebacks that show arguments would show the password."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    def __getitem__(self, key: SupportsIndex | slice) -> DSN:
        # Some tools cut a long text before they show it.
        return DSN(super().__getitem__(key))


class Settings(NamedTuple):
    """The checked settings of an instance.

    Attributes:
        parameters: libpq's connection parameters.
        schema: the schema of our tables; None leaves it to the search path.
        pool_size: the most connections.
        pooler: whether a pooler may give each transaction another server connection.
        retry_deadline: seconds.
    """

    parameters: dict[str, str]
    schema: str | None
    pool_size: int
    pooler: bool
    retry_deadline: float

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.place}>"

    @property
    def place(self) -> str:
        """The server, database and schema as a URL for people, with the password masked."""
        known = self.parameters
        hosts = known.get("host") or known.get("hostaddr") or ""
        ports = (known.get("port") or "").split(",")
        shown, query = [], {}
        for index, host in enumerate(hosts.split(",")):
            port = ports[index] if index < len(ports) else ports[-1]
            if host.startswith(("/", "@")):
                query["host"] = host
                query.update({"port": port} if port else {})
            else:
                name = f"[{host}]" if ":" in host else host
                shown.append(f"{name}:{port}" if port else name)
        user = quote(known.get("user") or "", safe="")
        if "password" in known:
            user += ":***"
        if self.schema is not None:
            query["schema"] = self.schema
        authority = f"{user}@{','.join(shown)}" if user else ",".join(shown)
        database = quote(known.get("dbname") or "", safe="")
        return f"postgresql://{authority}/{database}" + (f"?{urlencode(query)}" if query else "")


def from_environment(environ: Mapping[str, str], url: str | None) -> dict[str, Hashable]:
    """Return the constructor's arguments that the environment, or a URL, asks for.

    The place is the URL; else ``POSTGRES_DSN``; else any of ``POSTGRES_HOST``, ``_PORT``, ``_DB``,
    ``_USER`` and ``_PASSWORD``, with defaults for the others; else ``DATABASE_URL``; else those
    defaults. What is empty counts as not set.

    Raises:
        ConfigurationError: a setting is malformed; the message names it, and no password.
    """
    get = environ.get
    options = tuple(get(name) or None for name in _OPTIONS)
    if url is not None:
        arguments = dict(_arguments(DSN(url), "The URL", options))
    else:
        places = tuple(DSN(get(name)) if get(name) else None for name in _PLACES)
        arguments = dict(_arguments(*_dsn_of(places), options))
    if migrates_on_first_use(environ):
        arguments["migrate"] = True
    return arguments


def check(
    dsn: object,
    schema: str | None,
    pool_size: object,
    statement_timeout: object,
    *,
    pooler: object,
    retry_deadline: object,
) -> Settings:
    """Check the constructor's arguments.

    Raises:
        ConfigurationError: one is malformed, or a statement timeout is asked of a pooler.
    """
    parameters = _parse(dsn, "The dsn")
    _check_schema(schema, "schema")
    if not isinstance(pooler, bool):
        message = f"pooler is True or False, not {pooler!r}."
        raise ConfigurationError(message)
    if isinstance(pool_size, bool) or not isinstance(pool_size, int) or pool_size < 1:
        message = f"pool_size is a number of connections, at least 1, not {pool_size!r}."
        raise ConfigurationError(message)
    retry_seconds = _checked_seconds(retry_deadline, "retry_deadline")
    if pooler and parameters.get("options"):
        message = (
            "The DSN has options, which a pooler does not pass on. Leave them out, and set them "
            "for the role: ALTER ROLE ... SET ..."
        )
        raise ConfigurationError(message)
    for name, value in _DEFAULT_PARAMETERS.items():
        parameters.setdefault(name, value)
    parameters["client_encoding"] = "UTF8"
    if "," in parameters.get("host", "") or "," in parameters.get("hostaddr", ""):
        # We write, so of several servers only the one that takes writes is of use.
        parameters.setdefault("target_session_attrs", "read-write")
    if statement_timeout is not None:
        parameters["options"] = _with_timeout(
            parameters.get("options", ""),
            _checked_seconds(statement_timeout, "statement_timeout"),
            pooler=pooler,
        )
    return Settings(parameters, schema, pool_size, pooler, retry_seconds)


# --- The environment ----------------------------------------------------------------------------

# Parsing takes longer than all the rest of a load_db(), which a caller may do for each request.
_remembered = functools.lru_cache(maxsize=64)


@_remembered
def _dsn_of(places: tuple[str | None, ...]) -> tuple[DSN, str]:
    """Return the DSN that the variables ask for, and the name of what it comes from."""
    given = dict(zip(_PLACES, places, strict=True))
    dsn, database_url = given.pop("POSTGRES_DSN"), given.pop("DATABASE_URL")
    if dsn is not None:
        return DSN(dsn), "POSTGRES_DSN"
    if database_url is not None and not any(given.values()):
        return DSN(database_url), "DATABASE_URL"
    parts = {keyword: given[name] or default for name, (keyword, default) in _DEFAULT_PARTS.items()}
    if not _are_ports(parts["port"]):
        message = f"POSTGRES_PORT is a number from 1 to {_MAX_PORT}, not {str(parts['port'])!r}."
        raise ConfigurationError(message)
    for name, (keyword, _) in _DEFAULT_PARTS.items():
        if "\0" in parts[keyword] or not _is_encodable(parts[keyword]):
            message = f"{name} holds characters that no connection string can hold."
            raise ConfigurationError(message)
    return DSN(make_conninfo(**parts)), "POSTGRES_HOST, _PORT, _DB, _USER, _PASSWORD"


@_remembered
def _arguments(
    dsn: DSN, name: str, options: tuple[str | None, ...]
) -> tuple[tuple[str, Hashable], ...]:
    _parse(dsn, name)
    schema, pool_size, statement_timeout, pooler, retry_deadline = options
    arguments: dict[str, Hashable] = {"dsn": dsn}
    if schema is not None:
        _check_schema(schema, "POSTGRES_SCHEMA")
        arguments["schema"] = schema
    if pool_size is not None:
        arguments["pool_size"] = _whole_number(pool_size, "POSTGRES_POOL_SIZE")
    if statement_timeout is not None:
        arguments["statement_timeout"] = _seconds(statement_timeout, "POSTGRES_STATEMENT_TIMEOUT")
    if pooler is not None:
        arguments["pooler"] = _flag(pooler, "POSTGRES_POOLER")
    if retry_deadline is not None:
        arguments["retry_deadline"] = _seconds(retry_deadline, "POSTGRES_RETRY_DEADLINE")
    return tuple(arguments.items())


def _whole_number(text: str, name: str) -> int:
    digits = str(text).strip()
    number = int(digits) if digits.isascii() and digits.isdecimal() and len(digits) < 10 else 0  # noqa: PLR2004
    if number < 1:
        message = f"{name} is a whole number, at least 1 and below a billion."
        raise ConfigurationError(message)
    return number


def _seconds(text: str, name: str) -> float:
    try:
        return _checked_seconds(float(text), name)
    except ValueError:
        message = f"{name} is a number of seconds above 0, not {text[:50]!r}."
        raise ConfigurationError(message) from None


def _checked_seconds(value: object, name: str) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value <= _MAX_TIMEOUT_MS / 1000:  # type: ignore[operator]
        message = f"{name} is a number of seconds above 0, at most {_MAX_TIMEOUT_MS // 1000:,}."
        raise ConfigurationError(message)
    return float(value)  # type: ignore[arg-type]


def _flag(text: str, name: str) -> bool:
    flag = _FLAGS.get(text.strip().lower())
    if flag is None:
        message = f"{name} is 1 or 0, not {text!r}."
        raise ConfigurationError(message)
    return flag


# --- Checks that the environment and the arguments share ----------------------------------------


def _parse(dsn: object, name: str) -> dict[str, str]:
    """Return the parameters of a DSN; libpq's own message would show the DSN, so it is not used."""
    parsed = None
    if isinstance(dsn, str) and "\0" not in dsn and _is_encodable(dsn):
        try:
            parsed = conninfo_to_dict(_with_plain_scheme(dsn))
        except psycopg.Error:
            parsed = None
    if parsed is not None and _is_cut_wrongly(str(dsn), parsed):
        parsed = None
    if parsed is None:
        hint = ""
        if isinstance(dsn, str) and "+" in dsn.partition("://")[0]:
            hint = " Leave out the + and what follows it in the scheme."
        message = (
            f"{name} is no Postgres connection string, such as "
            "postgresql://user:password@host:5432/database or 'host=... dbname=...'. In a URL, "
            f"special characters of a password are percent-encoded.{hint}"
        )
        raise ConfigurationError(message)
    # A value that was cut out of a DSN is never shown: where a special character was not encoded it
    # may be a part of the password.
    parameters: dict[str, str] = {key: DSN(value) for key, value in parsed.items()}
    del parsed
    if parameters.get("port") and not _are_ports(parameters["port"]):
        message = f"{name}: port is a number from 1 to {_MAX_PORT}; this one is not."
        raise ConfigurationError(message)
    if parameters.get("connect_timeout"):
        _whole_number(parameters["connect_timeout"], f"{name}: connect_timeout")
    for keyword, choices in _CHOICES.items():
        value = parameters.get(keyword)
        if value and value not in choices:
            message = f"{name}: {keyword} is one of {', '.join(sorted(choices))}."
            raise ConfigurationError(message)
    return parameters


def _with_plain_scheme(dsn: str) -> str:
    """Write the scheme in lower case, the only one that libpq knows."""
    scheme, separator, rest = dsn.partition("://")
    if separator and scheme.isalpha():
        return f"{scheme.lower()}://{rest}"
    return dsn


def _is_cut_wrongly(dsn: str, parsed: dict[str, Any]) -> bool:
    """Whether a URL has a user or a password with a special character that is not encoded."""
    if "://" not in dsn:
        return False
    host, database = str(parsed.get("host") or ""), str(parsed.get("dbname") or "")
    in_host = "@" in host and not host.startswith(("@", "/"))
    return in_host or ("@" in database and "user" not in parsed)


def _are_ports(text: str) -> bool:
    # One host of several may leave its port out.
    return all(
        port.isascii() and port.isdecimal() and 1 <= int(port) <= _MAX_PORT
        for port in text.split(",")
        if port
    )


def _check_schema(schema: object, name: str) -> None:
    if schema is None:
        return
    if not isinstance(schema, str) or not schema or "\0" in schema or not _is_encodable(schema):
        message = f"{name} is the name of a schema, not {schema!r}."
        raise ConfigurationError(message)
    if len(schema.encode()) > _MAX_IDENTIFIER_BYTES:
        # Postgres would cut it, and two long names could then mean one schema.
        message = f"{name} is at most {_MAX_IDENTIFIER_BYTES} bytes long; {schema!r} is longer."
        raise ConfigurationError(message)


def _with_timeout(options: str, seconds: float, *, pooler: bool) -> str:
    if pooler:
        message = (
            "A statement timeout cannot be set through a pooler: what one client sets would hold "
            "for others. Leave out POSTGRES_STATEMENT_TIMEOUT, and set statement_timeout for the "
            "role or in the pooler."
        )
        raise ConfigurationError(message)
    milliseconds = seconds * 1000
    if not 1 <= milliseconds <= _MAX_TIMEOUT_MS:
        message = f"statement_timeout is a number of seconds, at least 0.001, not {seconds!r}."
        raise ConfigurationError(message)
    return f"{options} -c statement_timeout={int(milliseconds)}".strip()


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
