"""Columns, encodings and parameters: what a server makes of a value."""

from __future__ import annotations

from director_db_postgres import arrays, schema
from director_db_postgres.encoding import message_in_ascii, to_ascii
from gallery.broken import replace
from gallery.postgres.broken import BrokenPostgresDB, connect_with, edit_tables

_BY_WAY_OF_JSONB = (
    """
    CREATE FUNCTION director_normal_form() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.content = NEW.content::jsonb::text;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER director_normal_form BEFORE INSERT OR UPDATE
    ON {schema}director_conversations FOR EACH ROW EXECUTE FUNCTION director_normal_form()
    """,
)


class ContentsAsJsonb(BrokenPostgresDB, rule="VAL-1"):
    """JSONB has an order of its own for the keys, and one kind of number."""

    by = "keys_keep_their_order"

    @classmethod
    def break_code(cls):
        schema.CREATE += _BY_WAY_OF_JSONB


class NulLeftOut(BrokenPostgresDB, rule="VAL-2"):
    """No text of the server holds U+0000, so it is taken out of everything."""

    by = "every_text_as_a_value"

    def _text(self, payload):
        return super()._text(payload).replace(r"\u0000", "")


class ClientSpeaksLatin1(BrokenPostgresDB, rule="VAL-2"):
    """The encoding of the connection is what the client's machine happened to say."""

    by = "every_text_as_a_value"

    @classmethod
    def break_code(cls):
        connect_with(client_encoding="LATIN1")


class SortedByTheDatabase(BrokenPostgresDB, rule="SES-4"):
    """No collation is named, so ids are sorted as people sort words."""

    by = "orders_by_activity"

    @classmethod
    def break_code(cls):
        edit_tables((' COLLATE "C"', ""))


class IdsWithoutCase(BrokenPostgresDB, rule="VAL-4"):
    """A collation that tells upper and lower case not apart."""

    by = "naughty_session_ids"

    @classmethod
    def break_code(cls):
        edit_tables((' COLLATE "C"', " COLLATE director_ids"))
        collation = """
            CREATE COLLATION director_ids
            (PROVIDER = icu, LOCALE = 'und-u-ks-level2', DETERMINISTIC = false)
        """
        schema.CREATE = (collation, *schema.CREATE)


class IdsOfFixedLength(BrokenPostgresDB, rule="VAL-4"):
    """CHAR fills up with spaces, so those at the end of an id do not count."""

    by = "one_character"

    @classmethod
    def break_code(cls):
        edit_tables(
            ("session_id TEXT", "session_id CHAR(255)"), ("msg_id TEXT", "msg_id CHAR(255)")
        )


class IdsOf191(BrokenPostgresDB, rule="VAL-4"):
    """VARCHAR(191), as an index of another database wanted it."""

    by = "255_characters"

    @classmethod
    def break_code(cls):
        edit_tables(
            ("session_id TEXT", "session_id VARCHAR(191)"), ("msg_id TEXT", "msg_id VARCHAR(191)")
        )


class TimesOfFourBytes(BrokenPostgresDB, rule="VAL-5"):
    """INTEGER, as for every number."""

    by = "any_64_bit"

    @classmethod
    def break_code(cls):
        edit_tables(("created_at BIGINT", "created_at INTEGER"))


class TimesAsFloats(BrokenPostgresDB, rule="VAL-5"):
    """DOUBLE PRECISION, since a clock gives fractions."""

    by = "any_64_bit"

    @classmethod
    def break_code(cls):
        edit_tables(("updated_at BIGINT", "updated_at DOUBLE PRECISION"))


class ContentsIndexed(BrokenPostgresDB, rule="VAL-1"):
    """An index over contents, for searching; a long text does not fit into its page."""

    by = "payloads_of_every_size"

    @classmethod
    def break_code(cls):
        edit_tables(("UNIQUE (session_id, seq)", "UNIQUE (session_id, seq, content)"))


class NullsOfABulkAreEmpty(BrokenPostgresDB, rule="MSG-7"):
    """An array of texts that has no form for NULL."""

    by = "stores_what_is_given"

    @classmethod
    def break_code(cls):
        healthy = arrays._TextArrayDumper.dump
        arrays._TextArrayDumper.dump = lambda self, texts: healthy(self, [t or "" for t in texts])


# --- A database whose encoding has no form for most characters ------------------------------------


class Latin1AsItIs(BrokenPostgresDB, rule="VAL-2"):
    """The server's encoding is never asked for."""

    by = "surrogates"

    encoding = "LATIN1"

    def _text(self, payload):
        return payload


class Latin1InOneFieldOfFour(BrokenPostgresDB, rule="VAL-1"):
    """A message is made fit for the encoding, and its metadata was forgotten."""

    by = "any_payload_in_any_place"

    encoding = "LATIN1"

    @classmethod
    def break_code(cls):
        def broken(row):
            return message_in_ascii(row)._replace(metadata=row.metadata)

        replace(message_in_ascii, broken)


class EscapedTwice(BrokenPostgresDB, rule="VAL-2"):
    """What was escaped for the encoding comes back as it was stored."""

    by = "every_text_as_a_value"

    encoding = "LATIN1"

    @classmethod
    def break_code(cls):
        replace(to_ascii, lambda text: to_ascii(text).replace("\\u", "\\\\u"))
