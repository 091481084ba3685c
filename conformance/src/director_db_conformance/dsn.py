"""Taking Postgres connection strings apart and putting them together, always as URLs."""

from __future__ import annotations

from urllib.parse import quote, urlencode


def parts(dsn: str) -> dict[str, str]:
    """Return what a connection string, a URL or `key=value` pairs, says, by libpq's names."""
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415 - an extra

    return {key: str(value) for key, value in conninfo_to_dict(dsn).items() if value is not None}


def url(parameters: dict[str, str]) -> str:
    """Return the URL that says the same as these parameters.

    Several hosts are given as libpq wants them: `host` and `port` with as many comma-separated
    values each.
    """
    rest = dict(parameters)
    user, password = rest.pop("user", ""), rest.pop("password", "")
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    hosts = rest.pop("host", "").split(",")
    ports = rest.pop("port", "").split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    places = ",".join(
        _place(host) + (f":{port}" if port else "") for host, port in zip(hosts, ports, strict=True)
    )
    name = quote(rest.pop("dbname", ""), safe="")
    query = f"?{urlencode(rest, quote_via=quote)}" if rest else ""
    return f"postgresql://{login}{'@' if login else ''}{places}/{name}{query}"


def replace(dsn: str, **changes: str) -> str:
    """Return the URL of a connection string with some of its parameters changed."""
    return url({**parts(dsn), **changes})


def _place(host: str) -> str:
    # An IPv6 address needs brackets; a socket's folder must be quoted.
    return f"[{host}]" if ":" in host else quote(host, safe="")
