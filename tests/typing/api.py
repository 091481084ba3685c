"""The public API as type checkers see it; `make lint` checks this file, nobody runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, assert_type

from director_db import (
    UNSET,
    BackendSpec,
    BaseDB,
    ConflictError,
    Context,
    DBType,
    DeleteResult,
    Distribution,
    Health,
    Message,
    Migration,
    Session,
    hookimpl,
    load_db,
)
from director_db.asyncio import AsyncDB
from director_db.asyncio import load_db as load_async_db
from director_db.testing import register
from director_db_postgres import PostgresDB
from director_db_sqlite import SQLiteDB

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

db = load_db()
assert_type(db, BaseDB)
assert_type(db.db_type, DBType)
assert_type(DBType.SQLITE.value, str)
assert_type(list(DBType), list[DBType])
assert_type(db.place, str)
assert_type(db.closed, bool)

assert_type(db.create_session("s", created_at=1, anything_else=object()), bool)
db.create_session("s", user_id="u")
db.update_session("s", user_id=None)
db.update_session("s", metadata={"a": None}, merge=True, if_version=None)
assert_type(db.get_sessions()[0]["version"], str)
db.update_session("s", if_version=db.get_session("s").get("version"))
assert_type(db.get_sessions(user_id="u")[0]["user_id"], str | None)
assert_type(db.get_session("s"), Session | dict[str, Any])
assert_type(db.get_sessions(limit=1), list[Session])
assert_type(db.get_sessions(before=db.get_sessions()[-1]), list[Session])
db.update_session("s", video_id=None, collection_id=UNSET)
assert_type(db.delete_session("s"), DeleteResult)
success, failed_components = db.delete_session("s")
assert_type(success, bool)
assert_type(failed_components, list[str])

db.add_or_update_msg_to_conv("s", "c", "m", "input", [], [], [{"text": "hi"}], status="done")
assert_type(db.add_or_update_msgs_to_conv("s", db.get_conversations("s")), list[bool])
assert_type(
    db.add_or_update_msg_to_conv("s", None, "m", "input", 1, 2, 3, revision=1, if_absent=True), bool
)
assert_type(db.get_conversations("s")[0]["revision"], int | None)


def store(many: list[Mapping[str, Any]], few: Sequence[dict[str, object]]) -> None:
    """Store messages as callers have them."""
    db.add_or_update_msgs_to_conv("s", many)
    db.add_or_update_msgs_to_conv("s", few)


assert_type(db.get_conversations("s", limit=1, before="m"), list[Message])
assert_type(db.get_conversations("s", conv_id="c", msg_type="plan"), list[Message])
assert_type(db.get_messages("s", ["m", "n"]), list[Message])
assert_type(db.iter_conversations("s", page=100), Iterator[Message])
assert_type(db.iter_conversations("s", conv_id="c", msg_type=None), Iterator[Message])
assert_type(db.iter_sessions(video_id="v"), Iterator[Session])
assert_type(db.get_message("s", "m"), Message | dict[str, Any])
assert_type(db.delete_message("s", "m"), bool)
assert_type(db.delete_conversation("s"), bool)
assert_type(db.pop_message("s", conv_id="c"), Message | None)
assert_type(db.delete_messages_after("s", "m"), int)
assert_type(db.copy_session("s", "t", until="m"), int)
assert_type(db.replace_conversation("s", db.get_conversations("s")[::-1]), int)

assert_type(db.add_or_update_context_msg("s", {"reasoning": []}), str)
version = db.add_or_update_context_msg("s", [], if_version=None)
db.add_or_update_context_msg("s", [1], if_version=version)
db.add_or_update_context_msg("s", [1], if_version=db.get_context("s").get("version"))
assert_type(ConflictError("s", "context", None).version, str | None)
assert_type(db.append_context_messages("s", [1], key="k"), int)
assert_type(db.append_context_messages("s", [1], key=None), int)
assert_type(db.get_context("s"), Context | dict[str, Any])
assert_type(db.delete_context("s"), bool)

assert_type(db.health(), Health)
assert_type(db.health_check(), bool)
assert_type(db.migrate(), Migration)
assert_type(db.distribute(shards=8), Distribution)
with SQLiteDB(db_path="x.db") as direct:
    assert_type(direct, SQLiteDB)
assert_type(PostgresDB(dsn="postgresql://localhost/x"), PostgresDB)


class Plugin:
    """A plugin, as a package would have it in a module."""

    @staticmethod
    @hookimpl
    def director_db_backend() -> BackendSpec:
        """Offer a backend."""
        return BackendSpec("duck", SQLiteDB, "For type checkers", ("duck",))


with register(Plugin) as spec:
    assert_type(spec, BackendSpec)


async def use_coroutines() -> None:
    """Use the operations as coroutines."""
    adb = load_async_db()
    assert_type(adb, AsyncDB)
    assert_type(adb.sync_db, BaseDB)
    await adb.create_session("s", created_at=1, anything_else=object())
    assert_type(await adb.get_session("s"), Session | dict[str, Any])
    assert_type(await adb.get_conversations("s", limit=1), list[Message])
    assert_type(await adb.delete_session("s"), DeleteResult)
    assert_type(await adb.pop_message("s"), Message | None)
    assert_type(await adb.append_context_messages("s", [1], key="k"), int)
    assert_type(await adb.get_messages("s", ("m",)), list[Message])
    assert_type(await adb.health(), Health)
    assert_type(adb.iter_conversations("s", page=100), AsyncIterator[Message])
    async for session in adb.iter_sessions(video_id="v"):
        assert_type(session, Session)
    async with AsyncDB(SQLiteDB(db_path="x.db")) as direct_face:
        assert_type(direct_face, AsyncDB)
    await adb.aclose()
