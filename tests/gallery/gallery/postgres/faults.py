"""A server that cannot be used for a while: what its errors say, and what is remembered of it."""

from __future__ import annotations

from director_db_postgres import database, errors
from director_db_postgres.connections import Connection
from gallery.broken import replace
from gallery.postgres.broken import BrokenPostgresDB

_ERRORS = {"rule": "LIF-6", "level": "durable"}
_HEALTH = {"rule": "LIF-4", "level": "durable"}


class PsycopgsOwn(BrokenPostgresDB, **_ERRORS):
    """What psycopg raises is raised again, and goes out as it is."""

    by = "a_user_without_rights"

    @classmethod
    def break_code(cls):
        replace(errors.explain, lambda error, _place, **_flags: error)

    def _translate(self, error):
        return None


class PsycopgsOwnOfAServerThatIsAway(PsycopgsOwn, **_ERRORS):
    """The same, where nobody has tried it without a server."""

    by = "a_server_that_is_away"
    own_server = True


class SettingsInTheMessage(BrokenPostgresDB, **_ERRORS):
    """The message names what was connected to, as it was given."""

    by = "a_server_that_lets_nobody_in"

    @classmethod
    def break_code(cls):
        healthy = errors.explain
        given = []
        init = database.Database.__init__

        def remember(self, settings, *args, **kwargs):
            given.append(settings.parameters["password"])
            init(self, settings, *args, **kwargs)

        database.Database.__init__ = remember
        replace(
            healthy,
            lambda error, place, **flags: healthy(error, f"{place} {' '.join(given)}", **flags),
        )


class NobodyIsToldToTryAgain(BrokenPostgresDB, **_ERRORS):
    """An error is an error: `retryable` is left as it is by default."""

    by = "a_server_that_is_away"
    own_server = True

    @classmethod
    def break_code(cls):
        healthy = errors.explain

        def explain(error, place, **flags):
            ours = healthy(error, place, **flags)
            ours.retryable = False
            return ours

        replace(healthy, explain)


class EveryReadOnlyServerIsAStandby(BrokenPostgresDB, **_ERRORS):
    """One SQLSTATE, one meaning: somebody is about to take over."""

    by = "a_database_that_is_read_only"

    @classmethod
    def break_code(cls):
        Connection.is_read_only = lambda _self: False


class HealthOfTheFirstTime(BrokenPostgresDB, **_HEALTH):
    """Versions and settings do not change while a process lives, so they are asked for once."""

    by = "a_place_that_goes_and_comes"
    _known = None

    def health(self):
        if self._known is None:
            self._known = super().health()
        return self._known


class PoolIsHealthEnough(HealthOfTheFirstTime, **_HEALTH):
    """Who has a pool is connected; the server is asked for its health no more."""

    by = "a_server_that_goes_and_comes"
    own_server = True
