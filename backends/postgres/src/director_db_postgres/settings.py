"""Where the server is and how to use it: from the environment, a URL or arguments. No I/O."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote, urlencode

from psycopg.conninfo import make_conninfo

from director_db.errors import ConfigurationError
from director_db.legacy.old_layout import migrates_on_first_use
from director_db.settings import (
    DEFAULT,
    QUOTED,
    environment,
    is_quoted,
    number_of,
    operation_timeout_of,
)
from director_db.settings import Settings as Found
from director_db_postgres.dsn import (
    DSN,
    MAX_PORT,
    are_ports,
    is_encodable,
    parse,
    split_extras,
    whole_number,
)

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

DEFAULT_POOL_SIZE: Final = 10
"""The most connections of one instance."""

DEFAULT_RETRY_DEADLINE: Final = 30.0
"""How long an operation is tried again after a lost connection or a failover, in seconds."""

DEFAULT_OPERATION_TIMEOUT: Final = 60.0
"""The longest that one call waits, in seconds."""

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
    "POSTGRES_OPERATION_TIMEOUT",
)
_URL: Final = "The URL"
_ARGUMENTS: Final = (
    "schema",
    "pool_size",
    "statement_timeout",
    "pooler",
    "retry_deadline",
    "operation_timeout",
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
_MAX_TIMEOUT_MS: Final = 2**31 - 1

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


def hosts_of(parameters: Mapping[str, str]) -> int:
    """Return how many servers libpq's parameters name."""
    return 1 + max(parameters.get(name, "").count(",") for name in ("host", "hostaddr"))


class Settings(NamedTuple):
    """The checked settings of an instance.

    Attributes:
        parameters: libpq's connection parameters.
        schema: the schema of our tables; None leaves it to the search path.
        pool_size: the most connections.
        pooler: whether a pooler may give each transaction another server connection; None leaves
            it to each connection to find out.
        retry_deadline: seconds.
        operation_timeout: seconds, infinity for no limit.
    """

    parameters: dict[str, str]
    schema: str | None
    pool_size: int
    pooler: bool | None
    retry_deadline: float
    operation_timeout: float

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.place}>"

    @property
    def hosts(self) -> int:
        """How many servers there are to try, one after another."""
        return hosts_of(self.parameters)

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


def from_environment(environ: Mapping[str, str], url: str | None) -> Found:
    """Return the constructor's arguments that the environment, or a URL, asks for.

    The place is the URL; else ``POSTGRES_DSN``; else, where ``POSTGRES_HOST`` names a server, the
    five parts, with defaults for the others; else ``DATABASE_URL``; else the parts that are set,
    and defaults. What is empty counts as not set; a newline at the end, as files have it, is left
    out.

    Raises:
        ConfigurationError: a setting is malformed; the message names it, and no password.
    """
    get = environ.get
    options = tuple([(get(name) or "").rstrip("\r\n") or None for name in _OPTIONS])
    if url is not None:
        found = _arguments(DSN(url), _URL, (("dsn", "the URL"),), (), options)
    else:
        places = tuple([DSN((get(name) or "").rstrip("\r\n")) for name in _PLACES])
        found = _arguments(*_dsn_of(places), options)
    migrate = {"migrate": True} if migrates_on_first_use(environ) else {}
    return Found({**found, **migrate}, found.origins, found.ignored)


def dsn_of_environment() -> DSN:
    """Return the place alone, as `from_environment` finds it."""
    return DSN(from_environment(environment, None)["dsn"])


def check(
    dsn: object,
    schema: str | None,
    pool_size: object,
    statement_timeout: object,
    *,
    pooler: object,
    retry_deadline: object,
    operation_timeout: object,
) -> Settings:
    """Check the constructor's arguments.

    Raises:
        ConfigurationError: one is malformed, or a statement timeout is asked of a pooler.
    """
    plain, extras = split_extras(dsn)
    parameters = parse(plain, "The dsn")
    if schema is None:
        schema = extras.get("schema")
    _check_schema(schema, "schema")
    if pooler is None and "pgbouncer" in extras:
        pooler = _flag(extras["pgbouncer"], "The dsn: pgbouncer")
    if pooler is not None and not isinstance(pooler, bool):
        message = f"pooler is True, False, or None to find out, not {pooler!r}."
        raise ConfigurationError(message)
    if isinstance(pool_size, bool) or not isinstance(pool_size, int) or pool_size < 1:
        message = f"pool_size is a number of connections, at least 1, not {pool_size!r}."
        raise ConfigurationError(message)
    retry_seconds = _checked_seconds(retry_deadline, "retry_deadline")
    operation_seconds = operation_timeout_of(operation_timeout, "operation_timeout")
    if pooler and parameters.get("options"):
        message = (
            "The DSN has options, which a pooler does not pass on. Leave them out, and set them "
            "for the role: ALTER ROLE ... SET ..."
        )
        raise ConfigurationError(message)
    for name, value in _DEFAULT_PARAMETERS.items():
        if not parameters.get(name):  # Also one that is empty, which says nothing.
            parameters[name] = value
    parameters["client_encoding"] = "UTF8"
    if hosts_of(parameters) > 1:
        # We write, so of several servers only the one that takes writes is of use.
        parameters.setdefault("target_session_attrs", "read-write")
    if statement_timeout is not None:
        parameters["options"] = _with_timeout(
            parameters.get("options", ""),
            _checked_seconds(statement_timeout, "statement_timeout"),
            pooler=pooler,
        )
    return Settings(parameters, schema, pool_size, pooler, retry_seconds, operation_seconds)


# --- The environment ----------------------------------------------------------------------------

# Parsing takes longer than all the rest of a load_db(), which a caller may do for each request.
_remembered = functools.lru_cache(maxsize=64)


@_remembered
def _dsn_of(
    places: tuple[DSN, ...],
) -> tuple[DSN, str, tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Return the DSN that the variables ask for.

    Returns:
        The DSN, the name of what it comes from, where each of its parts comes from, and what was
        ignored.
    """
    given = {name: value for name, value in zip(_PLACES, places, strict=True) if value}
    if "POSTGRES_DSN" in given:
        return _whole("POSTGRES_DSN", given)
    # Others set the rest for their own purposes: who starts the server in a container, a password
    # from a secret, or Kubernetes the port. A host is set by who means a server.
    if "DATABASE_URL" in given and "POSTGRES_HOST" not in given:
        return _whole("DATABASE_URL", given)
    ignored = []
    if "DATABASE_URL" in given:
        ignored.append("DATABASE_URL is ignored, since POSTGRES_HOST names the server.")
    if given.get("POSTGRES_PORT", "").startswith("tcp://"):
        del given["POSTGRES_PORT"]
        ignored.append(
            "POSTGRES_PORT is ignored: it is no number but what Kubernetes sets for a service "
            "called postgres. Rename the service, or set POSTGRES_DSN."
        )
    parts = {}
    for name, (keyword, default) in _DEFAULT_PARTS.items():
        value = given.get(name, default)
        if "\0" in value or not is_encodable(value):
            message = f"{name} holds characters that no connection string can hold."
            raise ConfigurationError(message)
        # A password may be what it likes.
        if is_quoted(value) and keyword != "password":
            message = f"{name} is {str(value)!r}.{QUOTED}"
            raise ConfigurationError(message)
        parts[keyword] = value
    if not are_ports(parts["port"]):
        message = f"POSTGRES_PORT is a number from 1 to {MAX_PORT}, not {str(parts['port'])!r}."
        raise ConfigurationError(message)
    origins = tuple(
        (keyword, name if name in given else DEFAULT)
        for name, (keyword, _) in _DEFAULT_PARTS.items()
    )
    source = "POSTGRES_HOST, _PORT, _DB, _USER, _PASSWORD"
    return DSN(make_conninfo(**parts)), source, origins, tuple(ignored)


def _whole(
    name: str, given: dict[str, DSN]
) -> tuple[DSN, str, tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Return the DSN that one variable holds, and say what is ignored for its sake."""
    others = ", ".join(other for other in given if other != name)
    why = f"{name} is set" + (" and POSTGRES_HOST is not" if name == "DATABASE_URL" else "")
    ignored = (f"Ignored, since {why}: {others}.",) if others else ()
    return given[name], name, (("dsn", name),), ignored


@_remembered
def _arguments(
    dsn: DSN,
    name: str,
    places: tuple[tuple[str, str], ...],
    ignored: tuple[str, ...],
    options: tuple[str | None, ...],
) -> Found:
    plain, extras = split_extras(dsn)
    parse(plain, name)
    if name == _URL:
        # Who gives a URL means all that it says, and the environment only for the rest.
        in_dsn = {"POSTGRES_SCHEMA": "schema" in extras, "POSTGRES_POOLER": "pgbouncer" in extras}
        pairs = zip(_OPTIONS, options, strict=True)
        options = tuple([None if in_dsn.get(variable) else value for variable, value in pairs])
    schema, pool_size, statement_timeout, pooler, retry_deadline, operation_timeout = options
    # The DSN keeps its extras, which the constructor understands as well.
    arguments: dict[str, Hashable] = {"dsn": dsn}
    origins = dict(places)
    for argument, variable, value in zip(_ARGUMENTS, _OPTIONS, options, strict=True):
        origins[argument] = DEFAULT if value is None else variable
    for extra, argument in (("schema", "schema"), ("pgbouncer", "pooler")):
        if extra in extras and origins[argument] == DEFAULT:
            origins[argument] = name
    if schema is not None:
        _check_schema(schema, "POSTGRES_SCHEMA")
        arguments["schema"] = schema
    elif "schema" in extras:
        _check_schema(extras["schema"], f"{name}: schema")
    if pool_size is not None:
        arguments["pool_size"] = whole_number(pool_size, "POSTGRES_POOL_SIZE")
    if statement_timeout is not None:
        arguments["statement_timeout"] = _seconds(statement_timeout, "POSTGRES_STATEMENT_TIMEOUT")
    if pooler is not None:
        arguments["pooler"] = _flag(pooler, "POSTGRES_POOLER")
    elif "pgbouncer" in extras:
        _flag(extras["pgbouncer"], f"{name}: pgbouncer")
    if retry_deadline is not None:
        arguments["retry_deadline"] = _seconds(retry_deadline, "POSTGRES_RETRY_DEADLINE")
    if operation_timeout is not None:
        seconds = number_of(operation_timeout)
        operation_timeout_of(seconds, "POSTGRES_OPERATION_TIMEOUT")
        arguments["operation_timeout"] = seconds
    return Found(arguments, origins, ignored)


def _seconds(text: str, name: str) -> float:
    try:
        return _checked_seconds(float(text), name)
    except ValueError:
        quoted = QUOTED if is_quoted(text) else ""
        message = f"{name} is a number of seconds above 0, not {text[:50]!r}.{quoted}"
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
        quoted = QUOTED if is_quoted(text) else ""
        message = f"{name} is 1 or 0, not {text!r}.{quoted}"
        raise ConfigurationError(message)
    return flag


# --- Checks that the environment and the arguments share ----------------------------------------


def _check_schema(schema: object, name: str) -> None:
    if schema is None:
        return
    if not isinstance(schema, str) or not schema or "\0" in schema or not is_encodable(schema):
        message = f"{name} is the name of a schema, not {schema!r}."
        raise ConfigurationError(message)
    if len(schema.encode()) > _MAX_IDENTIFIER_BYTES:
        # Postgres would cut it, and two long names could then mean one schema.
        message = f"{name} is at most {_MAX_IDENTIFIER_BYTES} bytes long; {schema!r} is longer."
        raise ConfigurationError(message)


def _with_timeout(options: str, seconds: float, *, pooler: bool | None) -> str:
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
