"""Mistakes that mypy and pyright both find; `make lint` fails where one of them does not.

Each ignored line is wrong, and an ignore that nothing needs is an error to both.
"""

from __future__ import annotations

from typing import Any

import director_db
import director_db_postgres
import director_db_sqlite
from director_db import Session, load_db
from director_db.asyncio import load_db as load_async_db
from director_db_postgres import PostgresDB
from director_db_sqlite import SQLiteDB

db = load_db()
db.get_sesion("s")  # type: ignore[attr-defined]
db.create_session(5)  # type: ignore[arg-type]
db.get_sessions("s")  # type: ignore[call-arg, arg-type]
db.get_conversations("s", limit="1")  # type: ignore[arg-type]
db.get_conversations("s", kind="plan")  # type: ignore[call-arg]
db.get_messages("s", [1])  # type: ignore[list-item]
db.append_context_messages("s", [], key=1)  # type: ignore[arg-type]
db.get_conversations("s")[0]["contents"]  # type: ignore[typeddict-item]
db.get_sessions()[0]["update_at"]  # type: ignore[typeddict-item]
db.add_or_update_context_msg("s", [], if_version=5)  # type: ignore[arg-type]
db.update_session("s", merge="yes")  # type: ignore[arg-type]
db.add_or_update_msg_to_conv("s", "c", "m")  # type: ignore[call-arg]
db.add_or_update_msgs_to_conv("s", ["m"])  # type: ignore[list-item]
print(db.delete_session("s").failed)  # type: ignore[attr-defined]
print(db.health().warning)  # type: ignore[attr-defined]

director_db.lod_db()  # type: ignore[attr-defined]
director_db_sqlite.SQLitDB("x.db")  # type: ignore[attr-defined]
director_db_postgres.PostgressDB()  # type: ignore[attr-defined]
SQLiteDB(db_pth="x.db")  # type: ignore[call-arg]
SQLiteDB(5)  # type: ignore[arg-type]
SQLiteDB("x.db").get_sesion("s")  # type: ignore[attr-defined]
with SQLiteDB("x.db") as direct:
    direct.get_sesion("s")  # type: ignore[attr-defined]
PostgresDB(dns="postgresql://localhost/x")  # type: ignore[call-arg]
PostgresDB(dsn="postgresql://localhost/x").get_sesion("s")  # type: ignore[attr-defined]


class Overriding(SQLiteDB):
    """What the class itself refuses, too."""

    def get_session(self, session_id: str) -> Session | dict[str, Any]:  # type: ignore[misc]
        """Override a final operation."""
        return {"session_id": session_id}


async def use_coroutines() -> None:
    """Mistakes with the operations as coroutines."""
    adb = load_async_db()
    await adb.get_sesion("s")  # type: ignore[attr-defined]
    await adb.create_session(5)  # type: ignore[arg-type]
    await adb.get_sessions("s")  # type: ignore[call-arg, arg-type]
    await adb.get_conversations("s", limit="1")  # type: ignore[arg-type]
    await adb.add_or_update_msg_to_conv("s", "c", "m")  # type: ignore[call-arg]
    adb.get_conversations("s")[0]  # type: ignore[index]
    for _ in adb.iter_sessions():  # type: ignore[attr-defined]
        pass
