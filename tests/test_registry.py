"""Finding, loading and sharing backends."""

from __future__ import annotations

import copy
import gc
import importlib
import itertools
import os
import pickle
import re
import subprocess
import sys
import textwrap
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

import director_db
from director_db import (
    BackendSpec,
    BaseDB,
    ConfigurationError,
    DBType,
    PluginError,
    UnknownDBTypeError,
    close_all,
    discovery,
    hookimpl,
    load_db,
    loading,
)
from director_db.settings import Settings
from director_db.testing import register
from director_db_sqlite import SQLiteDB

unique = itertools.count()


@pytest.fixture(autouse=True)
def at_home(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(discovery, "_installed", None)
    monkeypatch.setattr(loading, "_loaded", {})


@pytest.fixture
def install(monkeypatch, tmp_path_factory):
    """Install a distribution with one plugin, as pip would lay it out on ``sys.path``."""

    def install(distribution, db_type, *, version="1.0", plugin=None, spec=None, entry_point=None):
        site = tmp_path_factory.mktemp("site")
        package = f"fake_{next(unique)}"
        (site / package).mkdir()
        (site / package / "__init__.py").touch()
        spec = spec or f'BackendSpec("{db_type}", "{package}.db:DB", "A fake", ("{db_type}s",))'
        default = f"""
            from director_db import BackendSpec, hookimpl
            @hookimpl
            def director_db_backend():
                return {spec}
        """
        (site / package / "plugin.py").write_text(textwrap.dedent(plugin or default))
        (site / package / "db.py").write_text(
            "from director_db_sqlite import SQLiteDB\n"
            f"class DB(SQLiteDB, db_type={db_type!r}): pass\n"
        )
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        line = entry_point or f"{db_type} = {package}.plugin"
        (info / "entry_points.txt").write_text(f"[director_db]\n{line}\n")
        monkeypatch.syspath_prepend(str(site))
        importlib.invalidate_caches()
        return package

    return install


class TestDBType:
    def test_it_is_the_text(self):
        assert "sqlite" == DBType.SQLITE == DBType("SQLite") == str(DBType.SQLITE)
        assert ("sqlite", "SQLITE") == (DBType.SQLITE.value, DBType.SQLITE.name)
        assert str is type(DBType.SQLITE.value)
        assert "DBType('sqlite')" == repr(DBType.SQLITE)
        assert {"sqlite": 1}[DBType.SQLITE] == 1
        assert f"{DBType.SQLITE}" == "sqlite"
        assert isinstance(DBType("sqlite"), DBType)

    def test_postgres_is_known_by_name_without_its_package(self):
        assert "postgres" == DBType.POSTGRES

    def test_it_lists_what_is_installed(self):
        assert "sqlite" in list(DBType)
        assert "sqlite" in DBType
        assert "SQLITE" in DBType
        assert "nope" not in DBType
        assert 5 not in DBType
        assert len(DBType) == len(list(DBType))

    def test_an_unknown_one_is_a_value_error(self):
        with pytest.raises(ValueError, match="Unknown DB type 'nope'"):
            DBType("nope")
        with pytest.raises(ConfigurationError, match="not int"):
            DBType(5)

    def test_it_survives_copies_and_pickles(self):
        for again in (pickle.loads(pickle.dumps(DBType.SQLITE)), copy.deepcopy(DBType.SQLITE)):  # noqa: S301
            assert DBType.SQLITE == again
            assert DBType is type(again)


class TestOtherNames:
    """One URL or name that an application shares with others."""

    @pytest.mark.parametrize("name", ["ducks", "DUCKS", "ducks+x", "duck+x"])
    def test_a_scheme_is_as_good_as_the_type(self, install, name):
        install("duck-db", "duck")
        assert "duck" == DBType(name)
        assert "duck" == load_db(name).db_type
        assert load_db(name) is load_db("duck")

    @pytest.mark.parametrize(
        ("url", "meant"),
        [
            ("duck+x:///a.db", "duck...a.db"),
            ("DUCKS+X_2:///a.db", "ducks...a.db"),
            ("DUCKS:///a.db", "DUCKS...a.db"),
        ],
    )
    def test_the_driver_in_a_scheme_is_left_out(self, install, url, meant):
        package = install("duck-db", "duck")
        (Path(importlib.import_module(package).__file__).parent / "db.py").write_text(
            "from director_db_sqlite import SQLiteDB\n"
            "class DB(SQLiteDB, db_type='duck'):\n"
            "    @classmethod\n"
            "    def _settings(cls, environ, url):\n"
            "        return {'db_path': url.replace('/', '.').replace(':', '')}\n"
        )
        assert meant == load_db(url).db_path

    def test_a_scheme_with_a_driver_may_be_a_backends_own(self, install):
        install("duck-db", "duck")
        install("goose-db", "duck+goose")
        assert "duck+goose" == load_db("duck+goose").db_type
        assert "duck" == load_db("duck+x").db_type

    def test_one_that_is_not_installed_is_told_as_without_the_driver(self, monkeypatch):
        plugins = {"sqlite": discovery.find_plugins().plugins["sqlite"]}
        installed = discovery.Installed(plugins, [])
        monkeypatch.setattr(discovery, "_discovered", lambda **_anew: installed)
        for name in ("postgresql+psycopg://u:secret@h/d", "postgresql+psycopg", "postgresql"):
            with pytest.raises(UnknownDBTypeError) as caught:
                load_db(name)
            assert 'pip install "director-db[postgres]"' in str(caught.value)
            assert "secret" not in str(caught.value)


class TestWithoutArguments:
    """A class that is built without arguments reads the environment, as `load_db` does."""

    def test_it_is_where_load_db_is(self, monkeypatch, tmp_path):
        monkeypatch.setenv("SQLITE_DB_PATH", str(tmp_path / "env.db"))
        with SQLiteDB() as db:
            assert load_db("sqlite").place == db.place == str(tmp_path / "env.db")

    def test_it_is_an_instance_of_its_own(self):
        with SQLiteDB() as db:
            assert load_db("sqlite") is not db
        assert db.closed

    def test_with_arguments_the_environment_is_not_read(self, monkeypatch, tmp_path):
        monkeypatch.setenv("SQLITE_SYNCHRONOUS", "nonsense")
        with pytest.raises(ConfigurationError, match="SQLITE_SYNCHRONOUS"):
            SQLiteDB()
        with SQLiteDB(str(tmp_path / "x.db")) as positional, SQLiteDB(db_path="y") as named:
            assert str(tmp_path / "x.db") == positional.place
            assert str(tmp_path / "y") == named.place


class _FromEnvironment(SQLiteDB, db_type="told"):
    @classmethod
    def _settings(cls, environ, url):
        found = Settings({"db_path": "told.db"}, {"db_path": "TOLD_PATH"}, ("TOLD_X is ignored.",))
        return found if environ.get("TOLD_PATH") else dict(found)


class TestWhereSettingsComeFrom:
    @pytest.fixture(autouse=True)
    def _told(self):
        plugin = SimpleNamespace(
            director_db_backend=hookimpl(lambda: BackendSpec("told", _FromEnvironment, "Tells"))
        )
        with register(plugin):
            yield

    def test_health_tells(self, monkeypatch):
        monkeypatch.setenv("TOLD_PATH", "1")
        with _FromEnvironment() as built:
            for db in (built, load_db("told")):
                health = db.health()
                assert {"db_path": "TOLD_PATH"} == health.settings
                assert "TOLD_X is ignored." == health.warnings[-1]

    def test_a_plain_dict_will_do(self):
        assert {} == load_db("told").health().settings

    def test_it_does_not_part_instances(self, monkeypatch):
        first = load_db("told")
        monkeypatch.setenv("TOLD_PATH", "1")
        assert load_db("told") is first

    def test_arguments_come_from_no_variable(self):
        with _FromEnvironment(db_path="told.db") as db:
            assert {} == db.health().settings


class TestUnknownTypes:
    def test_a_typo(self, monkeypatch):
        monkeypatch.setattr(discovery, "installed_types", lambda: ["sqlite"])
        with pytest.raises(UnknownDBTypeError) as caught:
            load_db("postgress")
        assert (
            "Unknown DB type 'postgress'. Installed: sqlite. Did you mean 'postgres'? "
            'Install it with: pip install "director-db[postgres]"'
        ) == str(caught.value)

    def test_a_typo_of_what_is_installed(self):
        with pytest.raises(UnknownDBTypeError, match=r"Did you mean 'sqlite'?"):
            load_db("sqlit")

    def test_a_known_one_that_is_not_installed(self, monkeypatch):
        monkeypatch.setattr(discovery, "find_plugins", lambda: discovery.Installed({}, []))
        for name in ("postgres", "POSTGRES", "postgresql://u:secret@h/db"):
            with pytest.raises(
                UnknownDBTypeError, match=r'pip install "director-db\[postgres\]"'
            ) as c:
                load_db(name)
            assert "Installed: none" in str(c.value)
            assert "secret" not in str(c.value)

    def test_the_environment(self, monkeypatch):
        monkeypatch.setenv("DB_TYPE", "nope")
        with pytest.raises(
            UnknownDBTypeError, match=r"Unknown DB type 'nope'. Installed: .*sqlite"
        ):
            load_db()

    def test_what_may_hold_a_password_is_not_shown(self):
        for wrong in (
            "postgres:user:hunter2@host/db",
            "mysql://user:hunter2@host/db",
            "host=h password=hunter2",
            "password = 'hunter2'",
        ):
            with pytest.raises(UnknownDBTypeError) as caught:
                load_db(wrong)
            assert "hunter2" not in str(caught.value)

    def test_a_url_that_lacks_its_slashes(self):
        for wrong, scheme in (("sqlite:x.db", "sqlite"), ("postgresql:u:pw@h/db", "postgresql")):
            with pytest.raises(UnknownDBTypeError) as caught:
                load_db(wrong)
            assert f"a URL begins with '{scheme}://'" in str(caught.value)
            assert "Did you mean" not in str(caught.value)

    @pytest.mark.parametrize("wrong", [5, b"sqlite", ["sqlite"]])
    def test_what_is_no_text(self, wrong):
        with pytest.raises(ConfigurationError, match="str"):
            load_db(wrong)


class TestPlugins:
    def test_an_installed_plugin_works(self, install, tmp_path):
        install("my-duck", "duck")
        db = load_db("Duck")
        db.create_session("s1")
        assert "duck" == db.db_type == DBType("DUCK")
        assert (tmp_path / "director.db").exists()
        assert db.health().db_type == "duck"
        assert "duck" == load_db("ducks:///x.db").db_type

    def test_two_distributions_with_one_name(self, install):
        install("my-duck", "duck", version="1.0")
        install("your-duck", "duck", version="2.1")
        with pytest.raises(PluginError, match="claimed by") as caught:
            load_db("duck")
        assert "my-duck 1.0" in str(caught.value)
        assert "your-duck 2.1" in str(caught.value)
        assert "sqlite" == load_db("sqlite").db_type

    def test_a_second_sqlite_is_a_conflict_too(self, install):
        install("other", "sqlite")
        with pytest.raises(
            PluginError, match=r"director-db 0.*other 1\.0|other 1\.0.*director-db 0"
        ):
            load_db()

    def test_one_distribution_found_twice_is_one(self, install):
        install("my-duck", "duck", version="1.0")
        install("My.Duck", "duck", version="2.0")
        load_db("duck").create_session("s1")

    def test_a_plugin_that_cannot_be_imported(self, install):
        install("bad-duck", "duck", plugin="import a_module_that_is_not_there")
        with pytest.raises(PluginError, match=r"bad-duck 1\.0 .*a_module_that_is_not_there") as c:
            load_db("duck")
        assert isinstance(c.value, ImportError)
        assert isinstance(c.value.__cause__, ModuleNotFoundError)
        assert "sqlite" == load_db("sqlite").db_type
        assert "sqlite" == load_db("sqlite:///x.db").db_type

    def test_a_plugin_that_raises(self, install):
        install("bad-duck", "duck", plugin="1 / 0")
        with pytest.raises(PluginError, match="ZeroDivisionError"):
            load_db("duck")

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ('BackendSpec("goose", "x:Y", "A fake")', "plugin says 'goose'"),
            ('BackendSpec("duck", "no_such_module:Y", "A fake")', "no_such_module"),
            ('BackendSpec("duck", "json:no_such_name", "A fake")', "no_such_name"),
            ('BackendSpec("duck", "json:JSONDecoder", "A fake")', "no subclass of BaseDB"),
            (
                'BackendSpec("duck", "director_db_sqlite.db:SQLiteDB", "A fake")',
                "the db_type sqlite, not duck",
            ),
            ('BackendSpec("duck", "director_db.base:BaseDB", "A fake")', "lacks _abandon"),
            ("'duck'", "not one BackendSpec"),
            ("None", "not one BackendSpec"),
            ("1 / 0", "ZeroDivisionError"),
        ],
    )
    def test_a_plugin_with_a_wrong_spec(self, install, spec, message):
        install("bad-duck", "duck", spec=spec)
        with pytest.raises(PluginError, match=message) as caught:
            load_db("duck")
        assert "bad-duck 1.0" in str(caught.value)

    def test_a_plugin_with_a_misspelled_hook(self, install):
        plugin = """
            from director_db import hookimpl
            @hookimpl
            def director_db_backends(): pass
        """
        install("bad-duck", "duck", plugin=plugin)
        with pytest.raises(PluginError, match="director_db_backends"):
            load_db("duck")

    def test_malformed_entry_points_harm_nobody_else(self, install):
        install("bad-duck", "duck", entry_point="duck = ")
        assert "sqlite" == load_db("sqlite").db_type
        with pytest.raises((PluginError, UnknownDBTypeError), match=r"bad-duck|duck"):
            load_db("duck")

    @pytest.mark.parametrize("name", ["", "a duck", "5", "dück"])
    def test_what_is_no_name_is_ignored_and_told(self, install, name):
        install("bad-duck", "duck", entry_point=f"{name} = x.plugin")
        assert name not in list(DBType)
        with pytest.raises(UnknownDBTypeError, match=r"Ignored: bad-duck: .* no name of a DB type"):
            load_db("nope")

    def test_only_the_one_that_was_asked_for_is_imported(self, install):
        package = install("my-duck", "duck")
        load_db("sqlite")
        assert "duck" in DBType
        assert f"{package}.plugin" not in sys.modules
        assert "postgres" == DBType("postgresql")
        load_db("postgresql://localhost/x")
        assert f"{package}.plugin" not in sys.modules
        load_db("ducks:///x.db")
        assert f"{package}.plugin" in sys.modules

    def test_two_that_claim_one_url_scheme(self, install):
        for name in ("duck", "goose"):
            spec = f'BackendSpec("{name}", "x:Y", "A fake", ("bird",))'
            install(f"my-{name}", name, spec=spec)
        with pytest.raises(PluginError, match=r"'bird' is claimed by duck .* and goose"):
            load_db("bird://x")

    def test_a_scheme_is_looked_up_once(self, install, monkeypatch):
        install("my-duck", "duck")
        db = load_db("ducks:///x.db")
        monkeypatch.setattr(loading, "hooks_of", None)
        assert db is load_db("ducks:///x.db")

    def test_a_plugin_that_ends_the_process(self, install):
        install("bad-duck", "duck", plugin="import sys; sys.exit(3)")
        with pytest.raises(PluginError, match=r"bad-duck 1\.0 .*SystemExit"):
            load_db("duck")
        with pytest.raises(UnknownDBTypeError):
            load_db("nobody://x")

    @pytest.mark.parametrize(
        "spec",
        [
            'BackendSpec("Duck", "x:Y", "A fake")',
            'BackendSpec(None, "x:Y", "A fake")',
            'BackendSpec("duck", "x:Y", "A fake", "ducky")',
            'BackendSpec("duck", "x:Y", "A fake", None)',
            'BackendSpec("duck", "x:Y", "A fake", (5,))',
        ],
    )
    def test_a_name_that_nobody_could_ask_for(self, install, spec):
        install("bad-duck", "duck", spec=spec)
        with pytest.raises(PluginError, match="lower-case"):
            load_db("duck")

    def test_one_that_is_installed_while_the_process_runs(self, install):
        with pytest.raises(UnknownDBTypeError):
            load_db("duck")
        install("my-duck", "duck")
        assert "duck" == load_db("duck").db_type


class DuckDB(SQLiteDB, db_type="duck"):
    pass


class DuckPlugin:
    @staticmethod
    @hookimpl
    def director_db_backend():
        return BackendSpec("duck", DuckDB, "For tests")


class TestRegister:
    def test_it_lasts_as_long_as_the_block(self):
        with register(DuckPlugin) as spec:
            assert "duck" == spec.name
            assert "duck" in DBType
            db = load_db("duck")
            assert DuckDB is type(db)
            db.create_session("s1")
        assert db.closed
        assert "duck" not in DBType
        with pytest.raises(UnknownDBTypeError):
            load_db("duck")

    def test_a_taken_name_is_refused(self):
        with (
            register(DuckPlugin),
            pytest.raises(PluginError, match="installed already"),
            register(DuckPlugin),
        ):
            pass

    def test_it_ends_with_an_error_too(self):
        with pytest.raises(ZeroDivisionError), register(DuckPlugin):
            1 / 0  # noqa: B018
        assert "duck" not in DBType

    def test_it_takes_no_test_framework(self):
        code = "import sys, director_db.testing; print('pytest' in sys.modules)"
        assert "False" == subprocess.check_output([sys.executable, "-c", code], text=True).strip()


class TestSharing:
    def test_one_instance_for_each_place(self, monkeypatch, tmp_path):
        db = load_db()
        assert db is load_db("sqlite") is load_db("SQLITE") is load_db(DBType.SQLITE)
        monkeypatch.setenv("SQLITE_DB_PATH", str(tmp_path / "other.db"))
        other = load_db()
        assert db is not other
        assert str(tmp_path / "other.db") == other.place == other.db_path
        assert other is load_db(f"sqlite:///{tmp_path}/other.db")
        monkeypatch.delenv("SQLITE_DB_PATH")
        assert db is load_db()

    def test_empty_settings_are_no_settings(self, monkeypatch):
        monkeypatch.setenv("DB_TYPE", " ")
        monkeypatch.setenv("SQLITE_DB_PATH", "")
        assert "director.db" == load_db().db_path

    def test_loading_does_no_io(self, tmp_path):
        db = load_db("sqlite:////no/such/folder/x.db")
        assert "/no/such/folder/x.db" == db.db_path
        load_db()
        assert [] == list(tmp_path.iterdir())

    def test_a_relative_path_belongs_to_the_folder_of_the_call(self, tmp_path, monkeypatch):
        first = load_db()
        (tmp_path / "sub").mkdir()
        monkeypatch.chdir(tmp_path / "sub")
        second = load_db()
        first.create_session("first")
        second.create_session("second")
        assert [str(tmp_path / "director.db"), str(tmp_path / "sub" / "director.db")] == [
            first.place,
            second.place,
        ]
        assert {} == second.get_session("first")

    def test_leaving_with_does_not_close_a_shared_instance(self):
        with load_db() as db:
            pass
        assert not db.closed
        with SQLiteDB() as own:
            pass
        assert own.closed

    def test_after_close_the_next_call_opens_anew(self):
        db = load_db()
        db.create_session("s1")
        db.close()
        again = load_db()
        assert db is not again
        assert "s1" == again.get_session("s1")["session_id"]
        close_all()
        assert again.closed
        assert not load_db().closed
        close_all()
        close_all()

    def test_those_that_are_closed_are_not_kept(self):
        """With a file for each user, say, nobody asks for most of them again."""
        closed = [load_db(f"sqlite:///{number}.db") for number in range(10)]
        for db in closed:
            db.close()
        seen = [weakref.ref(db) for db in closed]
        del closed, db
        kept = load_db("sqlite:///kept.db")
        gc.collect()
        assert [None] * 10 == [each() for each in seen]
        assert kept is load_db("sqlite:///kept.db")

    def test_at_exit_each_is_closed_whatever_another_raises(self, tmp_path):
        code = """
            import director_db
            from director_db_sqlite import SQLiteDB

            class Odd(SQLiteDB):
                def _close(self):
                    super()._close()
                    print("closed", self.place.rpartition("/")[2], flush=True)
                    raise ZeroDivisionError

            from director_db import registry
            for name in "ab":
                with Odd(f"{name}.db") as db:
                    registry._shared[name, ()] = db
                    db._shared = True
                    db.create_session("s1")
        """
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code)],
            check=True, capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip
        assert ["closed a.db", "closed b.db"] == sorted(ended.stdout.splitlines())
        assert "" == ended.stderr

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    def test_a_fork_waits_until_a_backend_is_imported(self, tmp_path):
        """A child would wait for Python's own lock of the module, which nobody releases there."""
        (tmp_path / "slow.py").write_text(
            "import time\n"
            "from director_db_sqlite import SQLiteDB\n"
            "print('importing', flush=True)\n"
            "time.sleep(1)\n"
            "class SlowDB(SQLiteDB, db_type='slow'):\n"
            "    pass\n"
        )
        code = """
            import os, signal, sys, threading
            from director_db import BackendSpec, hookimpl, load_db
            from director_db.testing import register

            class Plugin:
                @hookimpl
                def director_db_backend(self):
                    return BackendSpec("slow", "slow:SlowDB", "")

            with register(Plugin()):
                thread = threading.Thread(target=load_db, args=("slow",))
                thread.start()
                while "slow" not in sys.modules:
                    pass
                child = os.fork()
                if not child:
                    signal.alarm(60)
                    os._exit(0 if load_db("slow").place else 1)
                print(os.waitpid(child, 0)[1])
                thread.join()
        """
        shown = subprocess.check_output(
            [sys.executable, "-c", textwrap.dedent(code)], text=True,
            env={**os.environ, "PYTHONPATH": f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"},
        )  # fmt: skip
        assert ["importing", "0"] == shown.split()

    def test_threads_get_one_instance(self):
        barrier = threading.Barrier(16)

        def load(_):
            barrier.wait(30)
            return load_db()

        with ThreadPoolExecutor(16) as pool:
            assert 1 == len(set(map(id, pool.map(load, range(16)))))

    @pytest.mark.parametrize(
        ("url", "path"),
        [
            ("sqlite:///x.db", "x.db"),
            ("sqlite:////a/b%20c.db", "/a/b%20c.db"),
            ("SQLite:///x.db", "x.db"),
            ("sqlite://", ":memory:"),
            ("sqlite:///:memory:", ":memory:"),
        ],
    )
    def test_urls(self, url, path):
        assert path == load_db(url).db_path

    @pytest.mark.parametrize("url", ["sqlite://host/x.db", "sqlite:///x.db?mode=ro", "://x"])
    def test_wrong_urls(self, url):
        with pytest.raises(ConfigurationError):
            load_db(url)


class TestBaseDB:
    def test_a_public_operation_cannot_be_overridden(self):
        with pytest.raises(TypeError, match=r"Bad\.get_session overrides a final operation"):

            class Bad(SQLiteDB):
                def get_session(self, session_id):
                    return {}

        class Mixin:
            closed = False

        with pytest.raises(TypeError, match="closed"):

            class Worse(Mixin, SQLiteDB):
                pass

    def test_an_instance_says_why_it_cannot_be_sent_to_another_process(self):
        with SQLiteDB() as db, pytest.raises(TypeError, match=r"Call load_db\(\) there"):
            pickle.dumps(db)

    def test_the_storage_operations_are_the_abstract_ones(self):
        assert all(name.startswith("_") or name == "place" for name in BaseDB.__abstractmethods__)

    def test_every_public_name_exists(self):
        for name in director_db.__all__:
            assert getattr(director_db, name) is not None
        with pytest.raises(AttributeError, match="nothing"):
            director_db.nothing  # noqa: B018


class TestImports:
    def run(self, code):
        return subprocess.check_output(
            [sys.executable, "-c", code], text=True, env={**os.environ, "DB_TYPE": "sqlite"}
        ).split()

    def test_importing_the_package_imports_no_driver_and_no_tool(self):
        heavy = "sqlite3 psycopg pytest hypothesis click rich pluggy director_db_sqlite ctypes"
        code = (
            f"import sys, director_db; print(*(n for n in '{heavy}'.split() if n in sys.modules))"
        )
        assert [] == self.run(code)

    def test_the_spec_is_read_without_the_driver(self):
        code = (
            "import sys, director_db_sqlite.plugin as p; print(p.director_db_backend().name,"
            " 'sqlite3' in sys.modules)"
        )
        assert ["sqlite", "False"] == self.run(code)

    def test_the_core_names_no_backends_package(self):
        files = [*Path(director_db.__file__).parent.rglob("*.py")]
        assert len(files) > 20
        backends = re.compile("director_db_(sqlite|postgres)")
        assert [] == [file for file in files if backends.search(file.read_text())]


def test_what_runs_later_at_the_end_of_the_process_can_still_store(tmp_path):
    code = (
        "import atexit\n"
        "@atexit.register\n"
        "def last():\n"
        "    load_db().create_session('last')\n"
        "from director_db import load_db\n"
        "load_db().create_session('first')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "" == result.stderr
    with SQLiteDB(tmp_path / "director.db") as db:
        assert {"first", "last"} == {session["session_id"] for session in db.get_sessions()}


def test_instances_are_closed_at_the_end_of_the_process(tmp_path):
    code = "from director_db import load_db; load_db().create_session('s1')"
    subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        check=True,
        cwd=tmp_path,
        env={**os.environ, "SQLITE_DB_PATH": "x.db"},
        capture_output=True,
    )
    assert ["x.db"] == sorted(path.name for path in tmp_path.iterdir())
