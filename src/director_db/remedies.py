"""What to do about a value that cannot be stored, for the types that people really have.

A type is told by its name, the names of its bases and what these define. So nothing is imported
for it, and no code of the value runs.
"""

from __future__ import annotations

from typing import Final

# By the module and the name of a class; "numpy.*" is every class of that package.
_BY_CLASS: Final = {
    "numpy.ndarray": "use its .tolist()",
    "numpy.datetime64": "use str(value)",
    "numpy.timedelta64": "use str(value)",
    "numpy.generic": "use its .item()",
    "torch.Tensor": "use its .tolist()",
    "pandas.DataFrame": 'use its .to_dict("records")',
    "pandas.core.frame.DataFrame": 'use its .to_dict("records")',  # Before 3.0.
    "pandas.Series": "use its .tolist()",
    "pandas.core.series.Series": "use its .tolist()",
    "types.SimpleNamespace": "use vars(value)",
    "datetime.datetime": "use its .isoformat(), or int(value.timestamp())",
    "datetime.date": "use its .isoformat()",
    "datetime.time": "use its .isoformat()",
    "datetime.timedelta": "use its .total_seconds()",
    "uuid.UUID": "use str(value)",
    "decimal.Decimal": "use str(value) to keep every digit, or float(value)",
    "fractions.Fraction": "use str(value), or float(value)",
    "builtins.bytes": (
        "use base64.b64encode(value).decode(), or value.decode() if it is UTF-8 text"
    ),
    "builtins.bytearray": "use base64.b64encode(value).decode()",
    "builtins.memoryview": "use base64.b64encode(value).decode()",
    "builtins.set": "use sorted(value), or list(value)",
    "builtins.frozenset": "use sorted(value), or list(value)",
    "builtins.BaseException": "use str(value)",
    "enum.Enum": "use its .value",
    "pathlib.PurePath": "use str(value)",
    "pathlib._local.PurePath": "use str(value)",
    "collections.abc.Mapping": "use dict(value)",
    "collections.UserDict": "use dict(value)",
    "collections.deque": "use list(value)",
    "collections.UserList": "use list(value)",
}

# By what a class defines; the first that fits. A model may be a dataclass as well.
_BY_MEMBER: Final = (
    ("model_dump", 'use its .model_dump(mode="json")'),  # pydantic 2
    ("__dataclass_fields__", "use dataclasses.asdict(value)"),
    ("__fields__", "use its .dict()"),  # pydantic 1
    ("__attrs_attrs__", "use attrs.asdict(value)"),
    ("__struct_fields__", "use msgspec.to_builtins(value)"),
    ("__next__", "use list(value)"),
    ("__array_interface__", "use numpy.asarray(value).tolist()"),
    ("keys", "use dict(value)"),
    ("__iter__", "use list(value)"),
)

# Where a text or a time is asked for, and one of these is given.
_AS_TEXT: Final = {"uuid.UUID": "use str(value)", "builtins.int": "use str(value)"}
_AS_SECONDS: Final = {
    "datetime.datetime": "use int(value.timestamp())",
    "builtins.float": "use int(value)",
}

_FALLBACK: Final = "make a dict, a list, a text or a number of it"


def remedy(value: object) -> str:
    """Return what to do about a value that JSON has no form for.

    >>> import uuid
    >>> remedy(uuid.UUID(int=1))
    'use str(value)'
    """
    known = _find(_BY_CLASS, value)
    if known is not None:
        return known
    classes = type.mro(type(value)) if not isinstance(value, type) else ()
    members = {name for cls in classes for name in vars(cls)}
    for member, known in _BY_MEMBER:
        if member in members:
            return known
    return _FALLBACK


def text_remedy(value: object) -> str:
    """Return what to add to the refusal of what is no text, perhaps nothing."""
    return _after_colon(_find(_AS_TEXT, value))


def time_remedy(value: object) -> str:
    """Return what to add to the refusal of what is no time, perhaps nothing."""
    return _after_colon(_find(_AS_SECONDS, value))


def _after_colon(known: str | None) -> str:
    return "" if known is None else f": {known}"


def _find(known: dict[str, str], value: object) -> str | None:
    for cls in type.mro(type(value)) if not isinstance(value, type) else ():
        found = known.get(f"{cls.__module__}.{cls.__qualname__}")
        if found is not None:
            return found
    return None
